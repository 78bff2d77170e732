"""Delays over an emulated link, against closed forms."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation.flow import Flow, Step
from accmpeg.evaluation.link import Link, Serialiser, emulate, paper_delay_s, read_trace

FRAMES = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 50), st.integers(0, 20_000), st.floats(0, 40)),
    min_size=1,
    max_size=30,
)
"""Per frame: time since the frame before, camera's work, bytes, server's work."""


def flows_of(frames: list[tuple[float, float, int, float]]) -> list[Flow]:
    flows, captured_ms = [], 0.0
    for index, (gap_ms, camera_ms, size_bytes, server_ms) in enumerate(frames):
        captured_ms += gap_ms
        steps = (
            Step("camera", camera_ms),
            Step("uplink", size_bytes=size_bytes),
            Step("server", server_ms, delivers=(index,)),
        )
        flows.append(Flow(captured_ms, steps))
    return flows


def sent(*messages: tuple[float, int]) -> list[Flow]:
    """Flows that only send: (captured at ms, bytes)."""
    return [
        Flow(captured_ms, (Step("uplink", size_bytes=size_bytes, delivers=(index,)),))
        for index, (captured_ms, size_bytes) in enumerate(messages)
    ]


def delays_ms(flows: list[Flow], link: Link) -> list[float]:
    return emulate(flows, len(flows), link).delays_ms


def closed_form_ms(flows: list[Flow], bandwidth_bps: float, propagation_ms: float) -> list[float]:
    """Three places in a row, each busy until the frame before has left it."""
    delays, camera_ms, link_ms, server_ms = [], 0.0, 0.0, 0.0
    for flow in flows:
        camera, uplink, server = flow.steps
        camera_ms = max(flow.captured_ms, camera_ms) + camera.work_ms
        link_ms = max(camera_ms, link_ms) + uplink.size_bytes * 8000 / bandwidth_bps
        server_ms = max(link_ms + propagation_ms, server_ms) + server.work_ms
        delays.append(server_ms - flow.captured_ms)
    return delays


def test_the_paper_s_published_point() -> None:
    assert paper_delay_s(8_000_484, 1800, 0.5e6) == pytest.approx(1.022, abs=5e-4)
    assert paper_delay_s(8_000_484, 1800, 0.5e6, accmodel=False) == pytest.approx(0.942, abs=5e-4)


@given(FRAMES, st.floats(1e4, 1e8), st.floats(0, 300))
def test_a_constant_link_is_its_closed_form(
    frames: list[tuple[float, float, int, float]], bandwidth_bps: float, propagation_ms: float
) -> None:
    flows = flows_of(frames)
    link = Link(bandwidth_bps, propagation_ms=propagation_ms)
    assert delays_ms(flows, link) == pytest.approx(closed_form_ms(flows, bandwidth_bps, propagation_ms))


def test_a_queue_grows_by_what_the_link_can_t_carry() -> None:
    # 50 ms of sending every 40 ms: each frame waits 10 ms longer than the one before.
    done = emulate(sent((0, 6250), (40, 6250), (80, 6250)), 3, Link(1e6, propagation_ms=10))
    assert done.delays_ms == pytest.approx([60, 70, 80])
    assert done.uplink.packets == 15
    assert done.uplink.max_queue_ms == pytest.approx(20 + 4 * 12)
    assert done.uplink.max_queue_bytes == 1500 + 250 + 6250  # when the third frame comes


def test_work_at_one_place_does_not_wait_for_another() -> None:
    # The camera encodes the second frame while the first is on the link.
    flows = flows_of([(0, 10, 12_500, 0), (0, 90, 0, 0)])
    assert delays_ms(flows, Link(1e6)) == pytest.approx([110, 110])


def test_steps_of_a_flow_run_in_order_and_both_ways() -> None:
    steps = (
        Step("uplink", size_bytes=1250),
        Step("server", 7),
        Step("downlink", size_bytes=1250),
        Step("camera", 3),
        Step("uplink", size_bytes=1250, delivers=(0,)),
    )
    link = Link(1e6, downlink_bps=2e6, propagation_ms=20)
    assert emulate([Flow(5, steps)], 1, link).delays_ms == pytest.approx([10 + 7 + 5 + 3 + 10 + 3 * 20])


def test_a_later_flow_may_deliver_earlier_frames_and_some_get_nothing() -> None:
    flows = [Flow(0, ()), Flow(40, (Step("server", 5, delivers=(0, 1)),)), Flow(80, (Step("camera", 1),))]
    delays = delays_ms(flows, Link(1e6))
    assert delays[:2] == [45, 5]
    assert math.isnan(delays[2])


def test_messages_of_the_server_are_no_frames_but_load_the_downlink() -> None:
    answer = Flow(0, (Step("downlink", size_bytes=12_500),))
    asking = Flow(0, (Step("downlink", size_bytes=0), Step("server", 0, delivers=(0,))))
    assert emulate([answer, asking], 1, Link(1e6)).delays_ms == pytest.approx([100])
    with pytest.raises(EvaluationError, match="1 flows do not belong to 2 frames"):
        emulate([answer, asking], 2, Link(1e6))


LINKS = st.builds(
    Link,
    bandwidth_bps=st.floats(1e5, 1e7),
    propagation_ms=st.floats(0, 100),
    jitter_ms=st.floats(0, 50),
    loss=st.sampled_from([0.0, 0.1, 0.5]),
    queue_limit_bytes=st.sampled_from([None, 1500, 10_000]),
    seed=st.integers(0, 9),
)


@given(FRAMES, LINKS)
def test_everything_arrives_in_order_and_never_before_its_own_steps_are_done(
    frames: list[tuple[float, float, int, float]], link: Link
) -> None:
    flows = flows_of(frames)
    delays = delays_ms(flows, link)
    ends = [flow.captured_ms + delay for flow, delay in zip(flows, delays, strict=True)]
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(ends))
    assert link.bandwidth_bps is not None
    for (_, camera_ms, size_bytes, server_ms), delay in zip(frames, delays, strict=True):
        own_ms = camera_ms + size_bytes * 8000 / link.bandwidth_bps + link.propagation_ms + server_ms
        assert delay >= own_ms - 1e-6


def test_a_trace_delivers_a_packet_per_line_for_ever() -> None:
    link = Link(trace=(10, 20, 50))
    # Deliveries at 10, 20, 50, 60, 70, 100 …; a delivery that nothing waits for is lost.
    assert delays_ms(sent((0, 4500)), link) == [50]
    assert delays_ms(sent((0, 7501)), link) == [100]
    assert delays_ms(sent((21, 1500)), link) == [29]
    assert delays_ms(sent((1_000_021, 100)), link) == [29]
    # Two small packets share a delivery; the third one comes too late for it.
    assert delays_ms(sent((0, 700), (5, 700), (15, 700)), link) == [10, 5, 5]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 9000), st.floats(0, 500))
def test_a_message_over_a_trace_is_as_if_counted_off_by_hand(
    gaps: list[int], size_bytes: int, start_ms: float
) -> None:
    trace = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    rounds = range(math.ceil(start_ms / trace[-1]) + 7)
    deliveries = [turn * trace[-1] + time_ms for turn in rounds for time_ms in trace]
    usable = [time_ms for time_ms in deliveries if time_ms >= start_ms]
    finish_ms = Serialiser(trace=trace).finish_ms(start_ms, size_bytes)
    assert finish_ms == usable[math.ceil(size_bytes / 1500) - 1]


def test_a_constant_trace_is_a_constant_bandwidth() -> None:
    messages = sent(*((index * 40.0, 3000) for index in range(50)))
    traced = delays_ms(messages, Link(trace=(12,)))
    assert traced == pytest.approx(delays_ms(messages, Link(1e6)), abs=12)


def test_an_outage_delays_what_comes_in_it_and_ends() -> None:
    messages = sent(*((index * 100.0, 1500) for index in range(120)))
    trace = (*range(0, 3000, 10), 9000)
    delays = delays_ms(messages, Link(trace=trace))
    assert max(delays[:30]) <= 10
    assert delays[31] == pytest.approx(9000 - 3100, abs=20)
    assert all(delay < 10 for delay in delays[-5:])
    assert delays[31:85] == sorted(delays[31:85], reverse=True)


def test_a_trace_begins_with_zeros_but_is_not_made_of_them() -> None:
    assert delays_ms(sent((0, 3000), (1, 1500)), Link(trace=(0, 0, 30))) == [0, 29]
    with pytest.raises(UsageError, match="no time but 0"):
        Link(trace=(0, 0))


def test_a_lost_packet_holds_up_what_follows_for_a_timeout() -> None:
    messages = sent(*((index * 50.0, 1500) for index in range(200)))
    clean = Link(1e6, propagation_ms=20)
    lossy = Link(1e6, propagation_ms=20, loss=0.05, seed=3)
    done = emulate(messages, 200, lossy)
    assert done == emulate(messages, 200, lossy)
    assert done.delays_ms == emulate(messages, 200, lossy).delays_ms
    assert done.delays_ms != delays_ms(messages, Link(1e6, propagation_ms=20, loss=0.05, seed=4))
    assert 2 <= done.uplink.retransmitted_packets <= 25
    stalled = [delay for delay in done.delays_ms if delay > 32.1]
    # Timeout 240 ms after the first sending, then sent again; the ones behind it wait less and less.
    assert min(done.delays_ms) == pytest.approx(delays_ms(messages, clean)[0])
    assert max(stalled) >= 12 + 240 + 12 + 20 - 1e-6
    assert len(stalled) > done.uplink.retransmitted_packets


def test_what_overflows_the_queue_comes_a_timeout_later() -> None:
    # One packet on the link, two in the queue, the fourth and fifth after a timeout of 200 + 2 · 10 ms.
    done = emulate(sent((0, 7500)), 1, Link(1e6, propagation_ms=10, queue_limit_bytes=3000))
    assert done.delays_ms == pytest.approx([220 + 2 * 12 + 10])
    assert done.uplink.retransmitted_packets == 1
    assert done.uplink.max_queue_bytes == 3000


def test_jitter_spreads_delays_within_its_bounds() -> None:
    delays = delays_ms(sent(*((index * 500.0, 1250) for index in range(100))), Link(1e6, jitter_ms=200))
    assert all(10 <= delay <= 210 for delay in delays)
    assert max(delays) - min(delays) > 150


def test_a_trace_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "train.up"
    path.write_text("0\n5\n5\n1000\n\n")
    assert read_trace(path) == (0, 5, 5, 1000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "empty"),
        ("10\n5\n", "entry 2 goes back from 10 to 5 ms"),
        ("-3\n5\n", "begins at -3 ms"),
        ("0\n0\n", "no time but 0"),
        ("1\n2.5 Mbit\n", "line 2: '2.5 Mbit' is no whole number"),
    ],
)
def test_what_is_no_trace_is_told_why(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "bad.trace"
    path.write_text(content)
    with pytest.raises(UsageError, match=complaint) as raised:
        read_trace(path)
    assert "bad.trace" in str(raised.value)


def test_a_missing_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read the link trace"):
        read_trace(tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "either a bandwidth or a trace"),
        ({"bandwidth_bps": 1e6, "trace": (1,)}, "either a bandwidth or a trace"),
        ({"bandwidth_bps": 0}, "bandwidth of 0"),
        ({"bandwidth_bps": 1e6, "downlink_bps": -1}, "downlink of -1"),
        ({"bandwidth_bps": 1e6, "loss": 1.0}, "loss of 1.0"),
        ({"bandwidth_bps": 1e6, "propagation_ms": -1}, "propagation_ms of -1"),
        ({"bandwidth_bps": 1e6, "queue_limit_bytes": 100}, "can't hold a packet"),
        ({"bandwidth_bps": 1e6, "retransmit_ms": 0}, "without end"),
    ],
)
def test_links_that_can_t_be_meant(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Link(**settings)  # type: ignore[arg-type]
