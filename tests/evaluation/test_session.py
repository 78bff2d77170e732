"""What keeps a comparison honest: no frame early, no result twice, every byte counted, feedback late."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from accmpeg.camera import SteeredEncoder
from accmpeg.errors import MethodError
from accmpeg.evaluation.cache import StreamCache
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.base import Stream
from accmpeg.evaluation.run import evaluate, reference_results, run_method
from accmpeg.evaluation.session import Session

POINT = OperatingPoint(quality=34)


class Scripted:
    """A method whose every step is a function of (session, index, frame)."""

    name, source = "scripted", "this test"

    def __init__(self, act: Callable[[Session, int, av.VideoFrame], None]) -> None:
        self.act = act

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        method = self

        class Acting:
            def push(self, index: int, frame: av.VideoFrame) -> None:
                method.act(session, index, frame)

            def finish(self) -> None:
                pass

        return Acting()


def test_a_method_that_looks_at_a_frame_to_come_is_caught(clip: Clip, context: MethodContext) -> None:
    peeking = Scripted(lambda session, index, frame: session.deliver(index, session.frame(index + 1)))
    with pytest.raises(MethodError, match="frame 1 when frame 0"):
        run_method(clip, peeking, POINT, context)


def test_past_frames_may_be_looked_at(clip: Clip, context: MethodContext) -> None:
    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        assert session.frame(index) is frame
        assert session.frame(0) is clip.frames[0]
        session.deliver_result(index, None)

    run_method(clip, Scripted(act), POINT, context)


def test_results_come_neither_early_nor_twice_and_none_is_missing(clip: Clip, context: MethodContext) -> None:
    early = Scripted(lambda session, index, frame: session.deliver_result(index + 1, None))
    with pytest.raises(MethodError, match="delivered frame 1"):
        run_method(clip, early, POINT, context)
    twice = Scripted(lambda session, index, frame: session.deliver_result(0, None))
    with pytest.raises(MethodError, match="twice"):
        run_method(clip, twice, POINT, context)
    lazy = Scripted(lambda session, index, frame: session.deliver_result(index, None) if index % 2 else None)
    references = reference_results(clip, context, 2)
    with pytest.raises(MethodError, match="no result for frame 0"):
        evaluate(clip, lazy, POINT, context, references, step=2)


def test_feedback_reaches_the_camera_after_its_delay_only(clip: Clip, context: MethodContext) -> None:
    arrivals: dict[int, list[int]] = {}

    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        arrivals[index] = session.arrived()
        session.feedback(index, 100)
        session.deliver_result(index, None)

    session = run_method(clip, Scripted(act), POINT, context)
    wait = round(context.feedback_delay_s * float(clip.frame_rate))
    assert wait >= 1
    for index, messages in arrivals.items():
        assert messages == ([index - wait] if index >= wait else [])
    assert bytes_of(session.flows(), "downlink") == 100 * len(clip.frames)
    assert bytes_of(session.flows(), "uplink") == 0


def test_bytes_are_those_of_the_access_units(clip: Clip, context: MethodContext) -> None:
    sent = []

    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        with SteeredEncoder(
            StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base).settings(
                POINT, aq_mode=1
            ),
            None,
        ) as encoder:
            units = encoder.encode(frame) + encoder.flush()
        sent.append(sum(unit.size_bytes for unit in units))
        session.upload(units)
        session.deliver_result(index, None)

    flows = run_method(clip, Scripted(act), POINT, context).flows()
    assert bytes_of(flows, "uplink") == sum(sent) > 0


def test_camera_time_is_counted_by_stage(clip: Clip, context: MethodContext) -> None:
    def act(session: Session, index: int, frame: av.VideoFrame) -> None:
        with session.camera("thinking"):
            np.linalg.svd(np.ones((60, 60)))
        session.spent("camera", "earlier", 3.0)
        session.deliver_result(index, None)

    session = run_method(clip, Scripted(act), POINT, context)
    assert session.stage_ms["camera: earlier"] == pytest.approx(3.0 * len(clip.frames))
    assert session.stage_ms["camera: thinking"] > 0
    assert [step.place for step in session.flows()[0].steps] == ["camera", "camera", "server"]


def test_results_of_a_smaller_stream_are_in_source_pixels(clip: Clip, context: MethodContext) -> None:
    small = clip.frames[0].reformat(width=clip.width_px // 2, height=clip.height_px // 2)
    size = clip.width_px, clip.height_px
    from_small, from_source = context.dnn.infer(small, size), context.dnn.infer(clip.frames[0])
    sure = from_source[from_source.confidence > 0.6]
    assert len(sure) > 0
    found = from_small[from_small.confidence > 0.3]
    gaps = np.abs(found.xyxy[None] - sure.xyxy[:, None]).max(axis=2).min(axis=1)
    assert np.median(gaps) < 8


def test_a_plain_stream_is_made_once(clip: Clip, context: MethodContext, tmp_path: Path) -> None:
    cached = replace(context, streams=StreamCache(tmp_path, "clip"))
    references = reference_results(clip, context, 3)
    for name in ("constant-qp", "aq-1@dnn"):
        first, again = (evaluate(clip, METHODS[name], POINT, cached, references, step=3) for _ in range(2))
        plain = evaluate(clip, METHODS[name], POINT, context, references, step=3)
        assert first.uplink_bytes == again.uplink_bytes == plain.uplink_bytes
        assert first.accuracy == again.accuracy == plain.accuracy
        # The camera's time is that of the first making, not of reading a file.
        assert again.camera_ms_per_frame == pytest.approx(first.camera_ms_per_frame)
    assert len(list(tmp_path.glob("stream-*.npz"))) == 2


def test_a_coarser_stream_has_fewer_bytes_and_less_accuracy(clip: Clip, context: MethodContext) -> None:
    references = reference_results(clip, context, 2)
    cells = [
        evaluate(clip, METHODS["aq-1"], OperatingPoint(quality=quality), context, references, step=2)
        for quality in (20, 45)
    ]
    assert cells[0].size_bytes > 3 * cells[1].size_bytes
    assert cells[0].accuracy.value > cells[1].accuracy.value
    assert cells[0].label_accuracy is not None


def test_the_decoded_frame_asked_for_is_kept(clip: Clip, context: MethodContext) -> None:
    references = reference_results(clip, context, 3)
    cell = evaluate(clip, METHODS["aq-1"], POINT, context, references, step=3, keep=frozenset([3]))
    assert set(cell.seen) == {3}
    small = evaluate(clip, METHODS["aq-1@dnn"], POINT, context, references, step=3, keep=frozenset([3]))
    assert (small.seen[3].width, small.seen[3].height) == (clip.width_px, clip.height_px)
    gap = cell.seen[3].to_ndarray().astype(int) - clip.frames[3].to_ndarray()
    assert 0 < np.abs(gap).mean() < 8
