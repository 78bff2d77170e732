"""Feedback boxes: the last two answers that have arrived are finer, at any size; nothing before the first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import supervision as sv

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.link.flow import bytes_of
from accmpeg.evaluation.methods import METHODS, MethodContext
from accmpeg.evaluation.methods.regions import packed_boxes, unpacked_boxes
from accmpeg.media.decoder import Decoder, qp_map
from accmpeg.media.encoder import AccessUnit
from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.tasks import get_task

Record = Callable[..., Any]
GRID = MacroblockGrid(640, 360)


def qps_of(units: list[AccessUnit]) -> np.ndarray:
    decoder = Decoder(read_qp=True)
    return qp_map([*decoder.decode(units[0]), *decoder.flush()][0])


def inside(*results: sv.Detections) -> np.ndarray:
    boxes = [result.xyxy[result.confidence > 0.15] for result in results]
    return dilate(GRID.cover_boxes(np.rint(np.concatenate(boxes))), 2)


def test_the_map_is_the_last_two_answers(street: Clip, context: MethodContext, record: Record) -> None:
    """Answers on every frame of ten a second, there two frames later."""
    steered = record(street, METHODS["feedback"], context, all_keyframes=True)
    plain = record(street, METHODS["aq-1"], context, all_keyframes=True)
    for index in (0, 1):
        assert [unit.data for unit in steered.sent[index]] == [unit.data for unit in plain.sent[index]]
    for index, answers in ((2, (0,)), (3, (0, 1)), (5, (2, 3)), (8, (5, 6))):
        near = inside(*(steered.results[answer] for answer in answers))
        assert 0.05 < near.mean() < 0.95
        added = qps_of(steered.sent[index]) - qps_of(plain.sent[index])
        # CRF moves the whole frame a little when its size changes, so only the difference is exact.
        assert abs(np.median(added[~near]) - np.median(added[near]) - 8) <= 1


@pytest.mark.parametrize(
    ("frame_rate", "answered"), [(10, range(12)), (25, (0, 3, 6, 9)), (30, (0, 3, 6, 9))]
)
def test_ten_answers_a_second_go_back_and_are_counted(
    street: Clip, context: MethodContext, record: Record, frame_rate: int, answered: Sequence[int]
) -> None:
    session = record(replace(street, frame_rate=Fraction(frame_rate)), METHODS["feedback"], context)
    answers = [session.results[index] for index in answered]
    sent = [4 + 8 * int((answer.confidence > 0.15).sum()) for answer in answers]
    assert min(sent) > 4
    assert bytes_of(session.flows, "downlink") == sum(sent)


def test_boxes_are_scaled_to_a_smaller_stream(street: Clip, context: MethodContext, record: Record) -> None:
    small_input = context.dnn.card.input.model_copy(update={"width_px": 320, "height_px": 320})
    card = context.dnn.card.model_copy(update={"input": small_input})
    dnn: Any = SimpleNamespace(card=card, task=context.dnn.task, infer=context.dnn.infer)
    session = record(street, METHODS["feedback@dnn"], replace(context, dnn=dnn), all_keyframes=True)
    plain = record(street, METHODS["aq-1@dnn"], replace(context, dnn=dnn), all_keyframes=True)
    boxes = np.rint(session.results[0].xyxy[session.results[0].confidence > 0.15]) / 2
    grid = MacroblockGrid(320, 180)
    near = dilate(grid.cover_boxes(boxes), 2)
    added = qps_of(session.sent[2]) - qps_of(plain.sent[2])
    assert added.shape == near.shape == grid.shape
    assert 0 < near.mean() < 1
    assert abs(np.median(added[~near]) - np.median(added[near]) - 8) <= 1


def test_answers_without_boxes_make_no_map(street: Clip, context: MethodContext, record: Record) -> None:
    """Or the picture would get coarser because nothing was seen in it."""

    def blind(frame: Any, size_px: Any = None) -> sv.Detections:
        return context.dnn.infer(frame, size_px)[:0]

    dnn: Any = SimpleNamespace(card=context.dnn.card, task=context.dnn.task, infer=blind)
    session = record(street, METHODS["feedback"], replace(context, dnn=dnn))
    plain = record(street, METHODS["aq-1"], replace(context, dnn=dnn))
    assert bytes_of(session.flows, "downlink") == 12 * 4
    assert bytes_of(session.flows, "uplink") == bytes_of(plain.flows, "uplink")


def test_b_frames_are_steered_too(street: Clip, context: MethodContext, record: Record) -> None:
    steered = record(street, METHODS["b2-feedback"], context, quality=26)
    plain = record(street, METHODS["b2"], context, quality=26)
    assert sorted(steered.results) == list(range(12))
    assert bytes_of(steered.flows, "uplink") != bytes_of(plain.flows, "uplink")
    assert bytes_of(steered.flows, "downlink") > 0


def test_messages_come_back_as_they_were_packed() -> None:
    boxes = np.array([[1.2, 2.6, 300.4, 4000], [-3, 0, 70000, 9]], np.float32)
    message = packed_boxes(70_000, boxes)
    assert len(message) == 4 + 8 * 2
    index, unpacked = unpacked_boxes(message)
    assert index == 70_000
    assert unpacked.tolist() == [[1, 3, 300, 4000], [0, 0, 65535, 9]]


def test_a_dnn_without_objects_is_refused(street: Clip, record: Record) -> None:
    dnn: Any = SimpleNamespace(task=get_task("segmentation"), card=SimpleNamespace(name="streets"))
    with pytest.raises(UsageError, match=r"feedback.*streets"):
        record(street, METHODS["feedback"], MethodContext(dnn, None))  # type: ignore[arg-type]
