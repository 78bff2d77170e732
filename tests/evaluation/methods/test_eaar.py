"""EAAR: boxes follow their object, feedback is used only when it has arrived, regions really are finer."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.evaluation.methods.eaar import MotionReader, moved_boxes
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.encoder import AccessUnit, Encoder, EncoderSettings
from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.tasks import get_task
from accmpeg.tasks.matching import iou_matrix

Record = Callable[..., Any]
EAAR = METHODS["eaar"]
GRID = MacroblockGrid(640, 360)


def qps_of(units: list[AccessUnit]) -> np.ndarray:
    decoder = Decoder(read_qp=True)
    return qp_map([*decoder.decode(units[0]), *decoder.flush()][0])


def moving_patch(index: int) -> av.VideoFrame:
    """A textured 96×96 patch on another texture, 6 px right and 3 px down in each frame."""
    rng = np.random.default_rng(3)
    luma = np.repeat(np.repeat(rng.integers(40, 200, (45, 80)), 8, axis=0), 8, axis=1)
    patch = np.repeat(np.repeat(rng.integers(40, 200, (24, 24)), 4, axis=0), 4, axis=1)
    y, x = 100 + 3 * index, 200 + 6 * index
    luma[y : y + 96, x : x + 96] = patch
    planes = np.full((540, 640), 128, np.uint8)
    planes[:360] = luma
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, 30)
    return frame


def test_boxes_follow_a_moving_object_by_the_encoders_vectors() -> None:
    settings = EncoderSettings(
        width_px=640,
        height_px=360,
        frame_rate=Fraction(30),
        time_base=Fraction(1, 30),
        qp=32,
        steerable=False,
    )
    reader = MotionReader()
    still = np.array([[20, 20, 84, 84]], np.float32)
    start = np.array([[200, 100, 296, 196]], np.float32)
    boxes = np.concatenate([start, still])
    with Encoder(settings) as encoder:
        for index in range(16):
            for unit in encoder.encode(moving_patch(index)):
                boxes = moved_boxes(boxes, reader.read(unit))
    truth = start + np.array([90, 45, 90, 45], np.float32)
    assert iou_matrix(start, truth)[0, 0] < 0.1
    assert iou_matrix(boxes[:1], truth)[0, 0] > 0.8
    assert iou_matrix(boxes[1:], still)[0, 0] > 0.95


def test_the_newest_boxes_that_have_arrived_are_used(
    street: Clip, context: MethodContext, record: Record
) -> None:
    session = record(street, EAAR, context, all_keyframes=True)
    for index in (0, 1):
        assert np.ptp(qps_of(session.sent[index])) == 0
    # Without pictures in between there are no vectors: the boxes stay as the server said.
    for index in (2, 5):
        boxes = context.dnn.task.object_boxes(session.results[index - 2])
        assert boxes is not None
        assert len(boxes) > 2
        inside = dilate(GRID.cover_boxes(np.rint(boxes)), 1)
        assert 0 < inside.mean() < 0.9
        qps = qps_of(session.sent[index])
        finest = qps.min()
        assert (qps[inside] == finest).mean() > 0.98
        assert (qps[~inside] == finest + 10).mean() > 0.98


def test_a_longer_delay_keeps_regions_staler(street: Clip, context: MethodContext, record: Record) -> None:
    late = replace(context, link=Link(bandwidth_bps=1e9, propagation_ms=220))
    session = record(street, EAAR, late, all_keyframes=True, frames=7)
    flat = [index for index in range(7) if np.ptp(qps_of(session.sent[index])) == 0]
    assert flat == [0, 1, 2, 3, 4]


def test_feedback_bytes_are_counted(street: Clip, context: MethodContext, record: Record) -> None:
    session = record(street, EAAR, context)
    counts = [len(context.dnn.task.object_boxes(session.results[index])) for index in range(12)]
    assert bytes_of(session.flows, "downlink") == sum(4 + 8 * count for count in counts)
    assert bytes_of(session.flows, "uplink") == sum(
        unit.size_bytes for units in session.sent.values() for unit in units
    )
    assert session.stage_ms["camera: motion vectors"] > 0


def test_a_dnn_without_objects_is_refused(street: Clip, record: Record) -> None:
    dnn: Any = SimpleNamespace(task=get_task("segmentation"), card=SimpleNamespace(name="streets"))
    context = MethodContext(dnn, None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"eaar.*streets"):
        record(street, EAAR, context)
