"""Delays, ages and loads of an emulated camera, link and server, against closed forms and by hand."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation.link.emulator import Emulated, Emulator, ServerMachine, emulate
from accmpeg.evaluation.link.flow import Delivery, Flow, Step, bytes_of
from accmpeg.evaluation.link.link import Link

FAST = Link(1e12)
"""Takes no time that a test would notice."""
ONE = ServerMachine(max_batch=1)

FRAMES = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 50), st.integers(0, 20_000), st.floats(0, 40)),
    min_size=1,
    max_size=30,
)
"""Per frame: time since the frame before, camera's work, bytes, server's work."""

LINKS = st.builds(
    Link,
    bandwidth_bps=st.floats(1e5, 1e7),
    propagation_ms=st.floats(0, 100),
    jitter_ms=st.sampled_from([0.0, 10.0, 50.0]),
    loss=st.sampled_from([0.0, 0.1, 0.5]),
    queue_limit_bytes=st.sampled_from([None, 1500, 10_000]),
    seed=st.integers(0, 9),
)
MACHINES = st.builds(
    ServerMachine,
    server_ms=st.sampled_from([0.0, 5.0, 30.0]),
    workers=st.integers(1, 3),
    max_batch=st.integers(1, 4),
    batch_growth=st.sampled_from([0.0, 0.3, 1.0]),
)


def own(index: int) -> tuple[Delivery]:
    """A frame's result from its own picture."""
    return (Delivery(index, index),)


def flows_of(frames: Sequence[tuple[float, float, int, float]]) -> list[Flow]:
    flows, captured_ms = [], 0.0
    for index, (gap_ms, camera_ms, size_bytes, server_ms) in enumerate(frames):
        captured_ms += gap_ms
        steps = (
            Step("camera", camera_ms),
            Step("uplink", size_bytes=size_bytes),
            Step("server", server_ms),
            Step("dnn", delivers=own(index)),
        )
        flows.append(Flow(captured_ms, steps))
    return flows


def seen_at(*captured_ms: float, pictures: int = 1) -> list[Flow]:
    """Flows that go straight to the DNN."""
    return [
        Flow(each_ms, (Step("dnn", pictures=pictures, delivers=own(index)),))
        for index, each_ms in enumerate(captured_ms)
    ]


def assert_adds_up(done: Emulated) -> None:
    parts = (done.camera_ms, done.uplink_ms, done.propagation_ms, done.serve_ms, done.wait_ms)
    np.testing.assert_allclose(np.sum(parts, axis=0), done.delay_ms, atol=1e-6)


# The places in a row.


@given(FRAMES, st.floats(1e4, 1e8), st.floats(0, 300), st.integers(1, 3), st.floats(0, 50))
def test_a_constant_link_is_its_closed_form(
    frames: list[tuple[float, float, int, float]],
    bandwidth_bps: float,
    propagation_ms: float,
    workers: int,
    map_ms: float,
) -> None:
    """Places in a row, each busy until the frame before has left it, the DNN that `workers` before.

    After every other frame the camera is busy for `map_ms` more.
    """
    flows = [
        replace(flow, steps=(replace(flow.steps[0], after_ms=map_ms * (index % 2)), *flow.steps[1:]))
        for index, flow in enumerate(flows_of(frames))
    ]
    done = emulate(
        flows,
        Link(bandwidth_bps, propagation_ms=propagation_ms),
        ServerMachine(7.0, workers=workers, max_batch=1),
    )
    camera_ms = link_ms = server_ms = made_ms = 0.0
    seen_ms: list[float] = []
    for flow in flows:
        camera, uplink, server, _ = flow.steps
        camera_ms = max(flow.captured_ms, made_ms) + camera.work_ms
        made_ms = camera_ms + camera.after_ms
        link_ms = max(camera_ms, link_ms) + uplink.size_bytes * 8000 / bandwidth_bps
        server_ms = max(link_ms + propagation_ms, server_ms) + server.work_ms
        free_ms = seen_ms[-workers] if len(seen_ms) >= workers else 0.0
        seen_ms.append(max(server_ms, free_ms) + 7.0)
    expected = [end_ms - flow.captured_ms for end_ms, flow in zip(seen_ms, flows, strict=True)]
    assert done.delay_ms == pytest.approx(expected)


def test_two_workers_as_computed_by_hand() -> None:
    # D/D/2: a picture every 10 ms. At 15 ms a pass each worker rests 5 ms between its pictures (load 0.75),
    # so none waits. At 25 ms a worker that takes one every 20 ms falls 5 ms behind with each: the first two
    # pictures take 25 ms, the next two 30, the next two 35.
    flows = seen_at(*(10.0 * index for index in range(6)))
    steady = emulate(flows, FAST, ServerMachine(15, workers=2, max_batch=1))
    assert steady.delay_ms == pytest.approx([15] * 6)
    assert steady.dnn_load == pytest.approx(0.75)
    behind = emulate(flows, FAST, ServerMachine(25, workers=2, max_batch=1))
    assert behind.delay_ms == pytest.approx([25, 25, 30, 30, 35, 35])
    assert behind.dnn_load == pytest.approx(1.25)


def test_work_at_one_place_does_not_wait_for_another() -> None:
    # The camera encodes the second frame while the first is on the link.
    flows = flows_of([(0, 10, 12_500, 0), (0, 90, 0, 0)])
    assert emulate(flows, Link(1e6), ServerMachine(0)).delay_ms == pytest.approx([110, 110])


def test_what_the_camera_does_after_a_frame_delays_the_next_one_only() -> None:
    # Captured at 0, 12, 14 and 60 ms, 10 ms each; after the first and the third the camera goes on for 9 ms.
    flows = [
        Flow(at_ms, (Step("camera", 10, after_ms=after_ms), Step("dnn", delivers=own(index))))
        for index, (at_ms, after_ms) in enumerate([(0.0, 9.0), (12.0, 0.0), (14.0, 9.0), (60.0, 0.0)])
    ]
    done = emulate(flows, FAST, ServerMachine(0))
    # The second begins at 19 and the third, which waits for it, at 29; both before the map of the third.
    assert done.delay_ms == pytest.approx([10, 17, 25, 10])
    assert done.camera_ms == pytest.approx(done.delay_ms)
    assert done.camera_load == pytest.approx((4 * 10 + 2 * 9) / 80)


def test_steps_of_a_flow_run_in_order_and_both_ways() -> None:
    steps = (
        Step("uplink", size_bytes=1250),
        Step("server", 7),
        Step("downlink", size_bytes=1250),
        Step("camera", 3),
        Step("uplink", size_bytes=1250, delivers=own(0)),
    )
    done = emulate([Flow(5, steps)], Link(1e6, downlink_bps=2e6, propagation_ms=20), ServerMachine())
    assert done.delay_ms == pytest.approx([10 + 7 + 5 + 3 + 10 + 3 * 20])
    assert (done.camera_ms, done.serve_ms, done.wait_ms) == (3, 7, 0)
    assert (done.uplink_ms, done.propagation_ms) == (pytest.approx([25]), 60)


def test_a_chunk_waits_for_its_last_frame_and_some_frames_get_nothing() -> None:
    chunk = (Delivery(0, 0), Delivery(1, 1))
    flows = [Flow(0, ()), Flow(40, (Step("server", 5, delivers=chunk),)), Flow(80, (Step("camera", 1),))]
    done = emulate(flows, FAST, ONE)
    assert list(done.delay_ms[:2]) == [45, 5]
    assert list(done.wait_ms[:2]) == [40, 0]
    assert math.isnan(done.delay_ms[2])
    assert math.isnan(done.wait_ms[2])


def test_a_frame_s_first_result_counts() -> None:
    steps = (Step("camera", 5, delivers=own(0)), Step("server", 20, delivers=own(0)))
    assert emulate([Flow(0, steps)], FAST, ONE).delay_ms == [5]


# The server's machine.


def test_a_free_worker_takes_what_waits() -> None:
    # The first picture goes alone, 0 to 10 ms; the next three together, 10 to 20; the last from 20 to 30.
    flows = seen_at(0, 2, 4, 6, 8)
    gpu = emulate(flows, FAST, ServerMachine(10, max_batch=3))
    assert gpu.delay_ms == pytest.approx([10, 18, 16, 14, 22])
    # On a core the batch of three is three passes, 10 to 40 ms, and each of it waits for all.
    core = emulate(flows, FAST, ServerMachine(10, max_batch=3, batch_growth=1))
    assert core.delay_ms == pytest.approx([10, 38, 36, 34, 42])


def test_a_chunk_is_seen_when_its_last_picture_is() -> None:
    # Two workers take two of five pictures each; the fifth is left for the next batch.
    server = ServerMachine(10, workers=2, max_batch=2)
    assert emulate(seen_at(0, pictures=5), FAST, server).delay_ms == pytest.approx([20])
    assert emulate(seen_at(0, pictures=4), FAST, server).delay_ms == pytest.approx([10])
    assert emulate(seen_at(0, pictures=5), FAST, ServerMachine.measured(10, 1)).delay_ms == pytest.approx(
        [50]
    )


@pytest.mark.parametrize(
    ("frame_rate", "server_ms", "workers"),
    [(30, 10, 1), (30, 23, 1), (30, 70 / 3, 2), (60, 45, 4), (30, 0, 1)],
)
def test_the_stated_machine_stays_below_its_load(frame_rate: float, server_ms: float, workers: int) -> None:
    server = ServerMachine.gpu(frame_rate, server_ms)
    assert server.workers == workers
    assert frame_rate * server_ms / 1000 / server.workers < 0.7
    assert ServerMachine.gpu(frame_rate, server_ms, workers=7).workers == 7
    assert [server.batch_ms(n) for n in (1, 8)] == [server_ms, server_ms]


def test_measured_cores_do_a_batch_in_as_many_passes() -> None:
    server = ServerMachine.measured(45, cores=4)
    assert (server.workers, server.batch_ms(1), server.batch_ms(3)) == (4, 45, 135)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"server_ms": -1}, "server_ms -1"),
        ({"server_ms": math.nan}, "server_ms nan"),
        ({"batch_growth": -0.1}, "batch_growth"),
        ({"workers": 0}, "at least one worker"),
        ({"max_batch": 0}, "at least one worker"),
    ],
)
def test_machines_that_can_t_be_meant(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        ServerMachine(**settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="frames/s"):
        ServerMachine.gpu(0)


def test_loads_are_busy_time_over_the_clip_s() -> None:
    # Ten frames, 40 ms apart: 400 ms.
    flows = flows_of([(40, 20, 2500, 10)] * 10)
    done = emulate(flows, Link(1e6), ServerMachine(30, workers=2))
    assert (done.camera_load, done.server_load) == pytest.approx((0.5, 0.25))
    assert done.dnn_load == pytest.approx(30 / 80)
    assert done.uplink_load == pytest.approx(0.5)
    assert done.downlink_load == 0
    assert math.isnan(emulate(flows[:1], Link(1e6), ONE).camera_load)


# Beside the flow.


def asking(beside_ms: float, *, message: int = 7, index: int = 0, captured_ms: float = 0.0) -> Flow:
    branch = (Step("server", beside_ms), Step("downlink", size_bytes=250, message=message))
    steps = (
        Step("camera", 10),
        Step("uplink", size_bytes=12_500),
        Step("server", 5),
        Step("dnn", delivers=own(index), beside=branch),
    )
    return Flow(captured_ms, steps)


def test_feedback_comes_when_the_link_brings_it() -> None:
    # 10 encode + 100 link + 20 way + 5 decode + 10 DNN: the result at 145. Then 30 beside, 2 link, 20 way.
    emulator = Emulator(Link(1e6, propagation_ms=20), ServerMachine(10), 1)
    emulator.add(asking(30), frame=0)
    assert emulator.messages_until(196.9) == []
    assert emulator.messages_until(197) == [7]
    assert emulator.messages_until(500) == []
    done = emulator.finish()
    assert done.delay_ms == pytest.approx([145])
    assert done.downlink.sent_bytes == 250


def test_work_beside_delays_no_result_but_messages_share_the_downlink() -> None:
    # Both results as without feedback. The branches work at once, 100 ms apart, and meet at the downlink of
    # 4 kbit/s, where each message takes 500 ms.
    flows = [asking(1000, message=0), asking(1000, message=1, index=1)]
    link = Link(1e6, downlink_bps=4e3, propagation_ms=20)
    done = emulate(flows, link, ServerMachine(10))
    assert done.delay_ms == pytest.approx([145, 245])
    emulator = Emulator(link, ServerMachine(10), 2)
    for index, flow in enumerate(flows):
        emulator.add(flow, frame=index)
    assert emulator.messages_until(145 + 1000 + 500 + 19) == []
    assert emulator.messages_until(145 + 1000 + 500 + 21) == [0]
    assert emulator.messages_until(145 + 1000 + 1000 + 19) == []
    assert emulator.messages_until(145 + 1000 + 1000 + 21) == [1]


def test_a_result_may_come_beside_with_the_parts_of_its_whole_way() -> None:
    back = (Step("downlink", size_bytes=1250, delivers=own(0)),)
    steps = (Step("uplink", size_bytes=1250), Step("dnn", beside=back), Step("server", 1000))
    done = emulate([Flow(0, steps)], Link(1e6, propagation_ms=20), ServerMachine(10))
    assert done.delay_ms == pytest.approx([10 + 20 + 10 + 10 + 20])
    assert (done.uplink_ms, done.propagation_ms, done.serve_ms) == (pytest.approx([20]), 40, 10)


# Ages.


def test_ages_of_a_method_that_leaves_frames_out() -> None:
    # A frame every 100 ms, results 50 ms after it. Every third is looked at, the others get its result again.
    flows = [
        Flow(100.0 * index, (Step("server", 50, delivers=(Delivery(index, index - index % 3),)),))
        for index in range(7)
    ]
    done = emulate(flows, FAST, ONE)
    assert done.delay_ms == pytest.approx([50] * 7)
    assert math.isnan(done.age_ms[0])
    assert done.age_ms[1:] == pytest.approx([100, 200, 300, 100, 200, 300])
    every = emulate(
        [Flow(f.captured_ms, (Step("server", 50, delivers=own(i)),)) for i, f in enumerate(flows)], FAST, ONE
    )
    assert every.age_ms[1:] == pytest.approx([100] * 6)


def test_an_age_is_that_of_the_newest_picture_of_any_result_so_far() -> None:
    # Results take 250 ms, frames come every 100: at the capture of frame k the newest is of frame k − 3. The
    # result of frame 4 speaks of frame 0, which makes nothing older that is known already.
    flows = [
        Flow(
            100.0 * index,
            (Step("server", 50), Step("dnn", delivers=(Delivery(index, 0 if index == 4 else index),))),
        )
        for index in range(8)
    ]
    done = emulate(flows, FAST, ServerMachine(200, workers=8, max_batch=1))
    assert np.isnan(done.age_ms[:3]).all()
    assert done.age_ms[3:] == pytest.approx([300, 300, 300, 300, 400])


def test_a_result_that_comes_with_the_capture_is_there() -> None:
    done = emulate(seen_at(0, 10, 20), FAST, ServerMachine(10))
    assert done.age_ms[1:] == pytest.approx([10, 10])


# While time goes on.

STEPS = st.one_of(
    st.builds(Step, st.sampled_from(["camera", "server"]), work_ms=st.sampled_from([0, 5, 20])),
    st.builds(Step, st.sampled_from(["uplink", "downlink"]), size_bytes=st.sampled_from([0, 1250, 4000])),
    st.builds(Step, st.just("dnn"), pictures=st.integers(1, 3)),
)


@st.composite
def clips(draw: st.DrawFn) -> list[Flow]:
    """Flows with everything in them, whose events often fall together."""
    flows: list[Flow] = []
    captured_ms = 0.0
    for index in range(draw(st.integers(1, 8))):
        branch = (*draw(st.lists(STEPS, max_size=2)), Step("downlink", size_bytes=125, message=index))
        steps = draw(st.lists(STEPS, max_size=4))
        steps.append(Step("server", delivers=(Delivery(index, draw(st.integers(0, index))),)))
        asked = draw(st.integers(0, len(steps) - 1))
        steps[asked] = replace(steps[asked], beside=branch)
        flows.append(Flow(captured_ms, tuple(steps)))
        captured_ms += draw(st.sampled_from([0.0, 5.0, 20.0, 33.3]))
    return flows


TIED = st.builds(
    Link,
    bandwidth_bps=st.sampled_from([1e6, 2e6]),
    propagation_ms=st.sampled_from([0.0, 5.0]),
    jitter_ms=st.sampled_from([0.0, 10.0]),
    loss=st.sampled_from([0.0, 0.2]),
    queue_limit_bytes=st.sampled_from([None, 3000]),
)


@given(clips(), TIED, MACHINES, st.data())
def test_flows_added_while_time_goes_on_are_as_if_all_were_known(
    flows: list[Flow], link: Link, server: ServerMachine, data: st.DataObject
) -> None:
    whole = Emulator(link, server, len(flows))
    for index, flow in enumerate(flows):
        whole.add(flow, frame=index)
    online, messages = Emulator(link, server, len(flows)), []
    for index, flow in enumerate(flows):
        if data.draw(st.booleans()):
            online.run_until(flow.captured_ms - data.draw(st.sampled_from([0, 1, 5])))
        messages += online.messages_until(flow.captured_ms)
        online.add(flow, frame=index)
        if data.draw(st.booleans()):
            online.run_until(flow.captured_ms)
    expected, done = whole.finish(), online.finish()
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(vars(done)[name], value, err_msg=name)
    messages += online.messages_until(math.inf)
    assert messages == whole.messages_until(math.inf)
    assert sorted(messages) == list(range(len(flows)))


@given(FRAMES, LINKS, MACHINES)
def test_nothing_is_lost_or_early_and_parts_add_up(
    frames: list[tuple[float, float, int, float]], link: Link, server: ServerMachine
) -> None:
    flows = flows_of(frames)
    done = emulate(flows, link, server)
    assert_adds_up(done)
    ends_ms = done.captured_ms + done.delay_ms
    if server.batch_growth == 0:
        assert all(later >= earlier - 1e-6 for earlier, later in pairwise(ends_ms))
    assert link.bandwidth_bps is not None
    for index, (_, camera_ms, size_bytes, server_ms) in enumerate(frames):
        assert done.camera_ms[index] >= camera_ms - 1e-6
        assert done.uplink_ms[index] >= size_bytes * 8000 / link.bandwidth_bps - 1e-6
        assert done.propagation_ms[index] == link.propagation_ms
        assert done.serve_ms[index] >= server_ms + server.server_ms - 1e-6
        assert done.wait_ms[index] == 0
    if not link.loss:
        assert done.uplink.sent_bytes == bytes_of(flows, "uplink")
    else:
        assert done.uplink.sent_bytes >= bytes_of(flows, "uplink")


def test_a_queue_limit_alone_sends_nothing_twice() -> None:
    done = emulate(flows_of([(0, 0, 7500, 0)]), Link(1e6, queue_limit_bytes=3000), ONE)
    assert done.uplink.retransmitted_packets == 1  # it was dropped before it took the link's time
    assert done.uplink.sent_bytes == 7500


@given(clips(), TIED, MACHINES)
def test_parts_of_any_flow_add_up(flows: list[Flow], link: Link, server: ServerMachine) -> None:
    done = emulate(flows, link, server)
    assert np.isfinite(done.delay_ms).all()
    assert_adds_up(done)
    for part in (done.camera_ms, done.uplink_ms, done.propagation_ms, done.serve_ms, done.wait_ms):
        assert (part >= -1e-9).all()


def test_flows_that_no_method_can_have() -> None:
    emulator = Emulator(FAST, ONE, 2)
    emulator.run_until(10)
    with pytest.raises(EvaluationError, match="captured at 5 ms was added at 10 ms"):
        emulator.add(Flow(5, ()))
    with pytest.raises(EvaluationError, match=r"frame 1 of 2 can't follow 0 others"):
        emulator.add(Flow(10, ()), frame=1)
    with pytest.raises(EvaluationError, match=r"index=1.*with 1 frames captured so far"):
        emulator.add(Flow(10, (Step("camera", beside=(Step("server", delivers=own(1)),)),)), frame=0)
    with pytest.raises(EvaluationError, match="a step at the DNN with 0 pictures"):
        emulator.add(Flow(10, (Step("dnn", pictures=0),)), frame=0)
    with pytest.raises(EvaluationError, match="flows do not belong to 2 frames"):
        emulator.finish()
    late = Emulator(FAST, ONE, 1)
    late.add(Flow(0, ()), frame=0)
    with pytest.raises(EvaluationError, match="frame 1 of 1"):
        late.add(Flow(0, ()), frame=1)


def test_a_flow_of_the_clip_s_end_delivers_what_is_left() -> None:
    emulator = Emulator(FAST, ONE, 1)
    emulator.add(Flow(0, ()), frame=0)
    emulator.add(Flow(30, (Step("server", 5, delivers=own(0)),)))
    done = emulator.finish()
    assert (done.delay_ms, done.wait_ms, done.serve_ms) == (35, 30, 5)


def test_a_sweep_does_not_wait_for_it() -> None:
    # 150 frames of 0.5 Mbit/s over four links; the best of a few, because other work slows a machine down.
    flows = flows_of([(1000 / 30, 6, 2000, 2)] * 150)
    took_s = []
    for _ in range(5):
        start_s = time.process_time()
        for bandwidth_bps in (0.5e6, 1e6, 2e6, 4e6):
            emulate(flows, Link(bandwidth_bps, propagation_ms=20), ServerMachine.gpu(30))
        took_s.append(time.process_time() - start_s)
    assert min(took_s) < 0.1
