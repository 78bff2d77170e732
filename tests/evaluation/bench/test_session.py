"""What keeps a comparison honest: no frame early, no result twice, every byte counted, feedback late."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from accmpeg.camera import SteeredEncoder
from accmpeg.errors import MethodError
from accmpeg.evaluation.bench.cache import StreamCache
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.costs import Costs
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.link.emulator import ServerMachine
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import METHODS, Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.base import Stream

POINT = OperatingPoint(quality=34)
FREE = Costs(stage_ms={"camera: think": 0.0}, camera_ms=1.0, plain_camera_ms=1.0, infer_ms=10.0)
Act = Callable[[Session, int, av.VideoFrame], None]


def scripted(act: Act, at_end: Callable[[Session], None] = lambda session: None) -> Method:
    """A method whose every step is a function of (session, index, frame)."""

    def open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        class Acting:
            def push(self, index: int, frame: av.VideoFrame) -> None:
                act(session, index, frame)

            def finish(self) -> None:
                at_end(session)

        return Acting()

    return Method("scripted", "plugin", "this test", open)


def every(clip: Clip) -> frozenset[int]:
    return frozenset(range(len(clip.frames)))


def test_a_method_that_looks_at_a_frame_to_come_is_caught(clip: Clip, context: MethodContext) -> None:
    peeking = scripted(lambda session, index, frame: session.deliver(index, session.frame(index + 1)))
    with pytest.raises(MethodError, match="frame 1 when frame 0"):
        run_method(clip, peeking, POINT, context)


def test_a_map_made_after_sending_costs_the_camera_but_not_the_frame(
    clip: Clip, context: MethodContext
) -> None:
    """With the demo's AccModel, every third frame: a millisecond for the frame, nine for its map."""
    times = {"camera: encode": 1.0, "camera: accmodel": 8.0, "camera: policy": 1.0, "server: decode": 0.0}
    costs = Costs(stage_ms=times, camera_ms=1.0, plain_camera_ms=1.0, infer_ms=10.0)
    shared = replace(context, every=3)
    session = run_method(clip, METHODS["graded"], POINT, shared, costs=costs)
    camera = [[step for step in flow.steps if step.place == "camera"] for flow in session.flows]
    work_ms = [sum(step.work_ms for step in steps) for steps in camera]
    after_ms = [sum(step.after_ms for step in steps) for steps in camera]
    maps = [9.0 if (index + 1) % 3 == 0 else 0.0 for index in range(len(clip.frames))]
    assert after_ms == maps
    # The first frame waits for its own map; the flush at the end belongs to the last flow.
    assert work_ms[:-1] == [10.0, *[1.0] * (len(clip.frames) - 2)]
    assert session.stage_ms["camera: accmodel"] == 8.0 * (1 + sum(map(bool, maps)))


def test_past_frames_may_be_looked_at(clip: Clip, context: MethodContext) -> None:
    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        assert session.frame(index) is frame
        assert session.frame(0) is clip.frames[0]
        session.deliver_result(index, None)

    session = run_method(clip, scripted(act), POINT, context)
    assert session.clip_results("scripted") == []


@pytest.mark.parametrize("wanted", [True, False])
def test_results_come_neither_early_nor_twice_and_none_is_left_out(
    wanted: bool, clip: Clip, context: MethodContext
) -> None:
    """Whether the bench measures a frame or not: a method must not know."""
    frames = every(clip) if wanted else frozenset()
    early = scripted(lambda session, index, frame: session.deliver_result(index + 1, None))
    with pytest.raises(MethodError, match="delivered frame 1 when frame 0"):
        run_method(clip, early, POINT, context, wanted=frames)
    twice = scripted(lambda session, index, frame: session.deliver_result(0, None))
    with pytest.raises(MethodError, match="frame 0 twice"):
        run_method(clip, twice, POINT, context, wanted=frames)
    seen_twice = scripted(lambda session, index, frame: session.deliver(0, frame))
    with pytest.raises(MethodError, match="frame 0 twice"):
        run_method(clip, seen_twice, POINT, context, wanted=frames)

    def every_other(session: Session, index: int, frame: av.VideoFrame) -> None:
        if index % 2:
            session.deliver_result(index, None)

    session = run_method(clip, scripted(every_other), POINT, context, wanted=frames)
    with pytest.raises(MethodError, match=r"lazy delivered no result for frame 0 \(6 in all\)"):
        session.clip_results("lazy")


def test_results_that_come_at_the_end_count(clip: Clip, context: MethodContext) -> None:
    def all_at_once(session: Session) -> None:
        for index in range(len(clip.frames)):
            session.deliver_result(index, index)

    session = run_method(
        clip, scripted(lambda *_: None, all_at_once), POINT, context, wanted=frozenset({1, 4})
    )
    assert session.clip_results("late") == [1, 4]
    assert [len(step.delivers) for step in session.flows[-1].steps] == [1] * len(clip.frames)


def test_nothing_can_be_done_before_the_first_frame_or_after_the_last(
    clip: Clip, context: MethodContext
) -> None:
    session = Session(clip, context, wanted=every(clip))
    with pytest.raises(MethodError, match="before the first frame"):
        session.spent("camera", "head start", 1.0)
    with pytest.raises(MethodError, match="frame 0 when frame -1"):
        session.frame(0)
    done = run_method(clip, scripted(lambda s, index, _: s.deliver_result(index, None)), POINT, context)
    with pytest.raises(MethodError):
        done.spent("camera", "afterthought", 1.0)


def arrivals(clip: Clip, context: MethodContext, act: Act, costs: Costs) -> dict[int, int]:
    """In whose turn the feedback about each frame reached the camera."""
    came: dict[int, int] = {}

    def acting(session: Session, index: int, frame: av.VideoFrame) -> None:
        for message in session.arrived():
            assert message not in came
            came[message] = index
        act(session, index, frame)

    run_method(clip, scripted(acting), POINT, context, costs=costs)
    return came


def test_feedback_has_gone_all_the_way_before_it_arrives(clip: Clip, context: MethodContext) -> None:
    """Frames come every 33.3 ms. Camera 30, link 20 each way, DNN 10: 80 ms, which is the third frame on."""

    costs = FREE.model_copy(update={"stage_ms": {"camera: encode": 30.0}})
    over = replace(
        context, link=Link(bandwidth_bps=1e9, propagation_ms=20), server=ServerMachine(10.0, workers=2)
    )

    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        session.spent("camera", "encode", 1.0)
        session.upload(1)
        session.deliver(index, frame)
        session.feedback(index, 1)

    assert arrivals(clip, over, act, costs) == {index: index + 3 for index in range(9)}
    # Each leg on its own makes the camera wait longer.
    for slower in (
        replace(over, link=Link(bandwidth_bps=1e9, propagation_ms=40)),
        replace(over, server=ServerMachine(45.0, workers=3)),
        replace(over, link=Link(bandwidth_bps=1600, downlink_bps=200, propagation_ms=20)),
    ):
        late = arrivals(clip, slower, act, costs)
        assert late[0] > 3
        assert all(turn > index for index, turn in late.items())


def test_messages_that_depend_on_slow_work_beside_the_flow_arrive_later(
    clip: Clip, context: MethodContext
) -> None:
    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        session.upload(1)
        session.deliver(index, frame)
        if index == 0:
            with session.server("gradient", beside=True):
                pass
            session.feedback("slow", 1)
            session.feedback("quick", 1)

    costs = FREE.model_copy(update={"stage_ms": {"server: gradient": 120.0}})
    over = replace(context, link=Link(bandwidth_bps=1e9, propagation_ms=1))
    came = arrivals(clip, over, act, costs)
    # 1 + 10 + 1 ms, and 120 ms more.
    assert came == {"quick": 1, "slow": 4}
    session = run_method(clip, scripted(act), POINT, over, costs=costs)
    assert bytes_of(session.flows, "downlink") == 2


def test_bytes_are_those_of_the_access_units_and_of_messages(clip: Clip, context: MethodContext) -> None:
    sent = []
    stream = StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)

    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        with SteeredEncoder(stream.settings(POINT, aq_mode=1), None) as encoder:
            units = encoder.encode(frame) + encoder.flush()
        sent.append(sum(unit.size_bytes for unit in units))
        session.upload(units)
        session.download(30)
        session.feedback(index, 100)
        session.deliver_result(index, None)

    session = run_method(clip, scripted(act), POINT, context)
    assert bytes_of(session.flows, "uplink") == sum(sent) > 0
    assert bytes_of(session.flows, "downlink") == 130 * len(clip.frames)
    # Both ways count in a stream's bytes; four frames of this clip are warm-up.
    assert sum(session.traffic.blocks().bytes) == sum(sent[4:]) + 130 * (len(clip.frames) - 4)


def test_camera_time_is_counted_by_stage(clip: Clip, context: MethodContext) -> None:
    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        with session.camera("thinking"):
            np.linalg.svd(np.ones((60, 60)))
        session.spent("camera", "earlier", 3.0)
        session.deliver_result(index, None, at="camera")

    session = run_method(clip, scripted(act), POINT, context)
    assert session.stage_ms["camera: earlier"] == pytest.approx(3.0 * len(clip.frames))
    assert session.stage_ms["camera: thinking"] > 0
    assert [step.place for step in session.flows[0].steps] == ["camera", "camera", "camera"]
    assert [flow.captured_ms for flow in session.flows] == [
        pytest.approx(1000 * index / 30) for index in range(len(clip.frames))
    ]


def test_results_of_a_smaller_stream_are_in_source_pixels(clip: Clip, context: MethodContext) -> None:
    small = clip.frames[0].reformat(width=clip.width_px // 2, height=clip.height_px // 2)
    size = clip.width_px, clip.height_px
    from_small, from_source = context.dnn.infer(small, size), context.dnn.infer(clip.frames[0])
    sure = from_source[from_source.confidence > 0.6]
    assert len(sure) > 0
    found = from_small[from_small.confidence > 0.3]
    gaps = np.abs(found.xyxy[None] - sure.xyxy[:, None]).max(axis=2).min(axis=1)
    assert np.median(gaps) < 8


def accuracy(session: Session, context: MethodContext) -> float:
    own = [context.dnn.infer(session.clip.frames[index]) for index in sorted(session.results)]
    return float(context.dnn.task.clip_accuracy(session.clip_results("it"), own).value)


def test_a_plain_stream_is_made_once_and_is_the_same_again(
    clip: Clip, context: MethodContext, tmp_path: Path
) -> None:
    cached = replace(context, streams=StreamCache(tmp_path, "clip"))
    for name in ("constant-qp", "b2@dnn"):
        first, again, plain = (
            run_method(clip, METHODS[name], POINT, shared, wanted=every(clip))
            for shared in (cached, cached, context)
        )
        assert first.traffic.blocks() == again.traffic.blocks() == plain.traffic.blocks()
        assert bytes_of(first.flows, "uplink") == bytes_of(again.flows, "uplink") > 0
        assert accuracy(first, context) == accuracy(again, context) == accuracy(plain, context)
        # The camera's time is that of the first making, not of reading a file.
        assert again.stage_ms["camera: encode"] == pytest.approx(first.stage_ms["camera: encode"])
    assert len(list(tmp_path.glob("stream-*.npz"))) == 2


def test_a_kept_stream_is_not_that_of_another_version(
    clip: Clip, context: MethodContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = replace(context, streams=StreamCache(tmp_path, "clip"))
    now = run_method(clip, METHODS["b2"], POINT, cached)
    monkeypatch.setattr("accmpeg.media.codecs._PB_RATIO", 1.3)
    before = run_method(clip, METHODS["b2"], POINT, cached)
    assert bytes_of(before.flows, "uplink") > bytes_of(now.flows, "uplink")


def test_a_coarser_stream_has_fewer_bytes_and_worse_answers(clip: Clip, context: MethodContext) -> None:
    fine, coarse = (
        run_method(clip, METHODS["aq-1"], OperatingPoint(quality=quality), context, wanted=every(clip))
        for quality in (20, 47)
    )
    assert fine.traffic.bytes_per_frame > 3 * coarse.traffic.bytes_per_frame
    assert accuracy(fine, context) > accuracy(coarse, context)


def test_the_server_dnn_runs_for_wanted_frames_and_costs_for_all(clip: Clip, context: MethodContext) -> None:
    session = run_method(clip, METHODS["aq-1"], POINT, context, wanted=frozenset({2, 7}))
    assert sorted(session.results) == [2, 7]
    assert len(session.infer_ms) == 2
    passes = [step.pictures for flow in session.flows for step in flow.steps if step.place == "dnn"]
    assert passes == [1] * len(clip.frames)


def test_the_decoded_frame_asked_for_is_kept_at_the_source_s_size(clip: Clip, context: MethodContext) -> None:
    keep = frozenset([3])
    session = run_method(clip, METHODS["aq-1"], POINT, context, keep=keep)
    assert set(session.seen) == {3}
    small = run_method(clip, METHODS["aq-1@dnn"], POINT, context, keep=keep)
    assert (small.seen[3].width, small.seen[3].height) == (clip.width_px, clip.height_px)
    gap = session.seen[3].to_ndarray().astype(int) - clip.frames[3].to_ndarray()
    assert 0 < np.abs(gap).mean() < 8
