"""Links against closed forms: bandwidths, traces, queues, losses."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.errors import UsageError
from accmpeg.evaluation.link.emulator import Emulated, ServerMachine, emulate
from accmpeg.evaluation.link.flow import Delivery, Flow, Step
from accmpeg.evaluation.link.link import Link, Serialiser, read_trace


def sent(*messages: tuple[float, int]) -> list[Flow]:
    """Flows that only send: (captured at ms, bytes)."""
    return [
        Flow(captured_ms, (Step("uplink", size_bytes=size_bytes, delivers=(Delivery(index, index),)),))
        for index, (captured_ms, size_bytes) in enumerate(messages)
    ]


def over(flows: Sequence[Flow], link: Link) -> Emulated:
    return emulate(flows, link, ServerMachine())


def delays_ms(flows: Sequence[Flow], link: Link) -> list[float]:
    return [float(delay) for delay in over(flows, link).delay_ms]


def test_a_queue_grows_by_what_the_link_can_t_carry() -> None:
    # 50 ms of sending every 40 ms: each frame waits 10 ms longer than the one before.
    done = over(sent((0, 6250), (40, 6250), (80, 6250)), Link(1e6, propagation_ms=10))
    assert done.delay_ms == pytest.approx([60, 70, 80])
    assert done.uplink.packets == 15
    assert done.uplink.max_queue_ms == pytest.approx(20 + 4 * 12)
    assert done.uplink.max_queue_bytes == 1500 + 250 + 6250  # when the third frame comes
    assert done.uplink_load == pytest.approx(50 / 40)


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
    done = over(messages, lossy)
    assert done.uplink == over(messages, lossy).uplink
    found = delays_ms(messages, lossy)
    assert found == list(done.delay_ms)
    assert found != delays_ms(messages, Link(1e6, propagation_ms=20, loss=0.05, seed=4))
    assert 2 <= done.uplink.retransmitted_packets <= 25
    stalled = [delay for delay in found if delay > 32.1]
    # Timeout 240 ms after the first sending, then sent again; the ones behind it wait less and less.
    assert min(found) == pytest.approx(delays_ms(messages, clean)[0])
    assert max(stalled) >= 12 + 240 + 12 + 20 - 1e-6
    assert len(stalled) > done.uplink.retransmitted_packets


def test_what_overflows_the_queue_comes_a_timeout_later() -> None:
    # One packet on the link, two in the queue, the fourth and fifth after a timeout of 200 + 2 · 10 ms.
    done = over(sent((0, 7500)), Link(1e6, propagation_ms=10, queue_limit_bytes=3000))
    assert done.delay_ms == pytest.approx([220 + 2 * 12 + 10])
    assert done.uplink.retransmitted_packets == 1
    assert done.uplink.max_queue_bytes == 3000


def test_what_is_sent_again_counts_in_the_link_s_load() -> None:
    messages = sent(*((index * 50.0, 1500) for index in range(200)))
    clean, lossy = over(messages, Link(1e6)), over(messages, Link(1e6, loss=0.2))
    again_bytes = 1500 * lossy.uplink.retransmitted_packets
    assert clean.uplink.sent_bytes == 200 * 1500
    assert lossy.uplink.sent_bytes == 200 * 1500 + again_bytes
    assert clean.uplink_load == pytest.approx(12 / 50)
    assert lossy.uplink_load == pytest.approx(12 / 50 * (1 + again_bytes / 300_000))


def test_a_link_carries_as_much_as_its_trace_delivers() -> None:
    assert Link(1e6, downlink_bps=2e6).capacity_bytes(100) == (12_500, 25_000)
    traced = Link(trace=(10, 20, 50), downlink_bps=1e6)
    assert traced.capacity_bytes(50) == (3 * 1500, 6250)
    assert traced.capacity_bytes(75)[0] == 5 * 1500  # 10, 20, 50, 60 and 70 ms
    assert Link(trace=(10, 20, 50)).capacity_bytes(9) == (0, 0)


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


def test_two_traces_of_one_name_are_not_one_link(tmp_path: Path) -> None:
    arguments = ["evaluate", "--videos", "missing", "--dnn", "missing", "--output", str(tmp_path / "out")]
    for folder in ("up", "down"):
        trace = tmp_path / folder / "lte.trace"
        trace.parent.mkdir()
        trace.write_text("10\n")
        arguments += ["--trace", str(trace)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "lte" in done.output
