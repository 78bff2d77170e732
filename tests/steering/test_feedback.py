"""Maps of the server's answers: where, how much, for how long."""

import numpy as np
import pytest

from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.steering.feedback import FeedbackMap

GRID = MacroblockGrid(640, 360)
BOX = np.array([[320, 160, 480, 320]], np.float32)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def made(clock: Clock | None = None, **options: int) -> FeedbackMap:
    return FeedbackMap((1280, 720), clock_s=clock or Clock(), **options)


def test_boxes_are_fine_and_the_rest_is_coarser() -> None:
    feedback = made()
    feedback.answer(BOX)
    offsets = feedback.qp_offsets(GRID)
    assert offsets is not None
    near = dilate(GRID.cover_boxes(BOX / 2), 2)
    assert (offsets[near] == 0).all()
    assert (offsets[~near] == 8).all()


def test_the_margin_may_change_while_answers_come() -> None:
    feedback = made()
    feedback.answer(BOX)
    for margin in (0, 3):
        feedback.margin_macroblocks = margin
        offsets = feedback.qp_offsets(GRID)
        assert offsets is not None
        assert ((offsets == 0) == dilate(GRID.cover_boxes(BOX / 2), margin)).all()


@pytest.mark.parametrize(
    ("apart_s", "offset_of_each"), [(0.2, [8, 0, 0]), (0.1, [8, 0, 0]), (0.03, [0, 0, 0])]
)
def test_the_last_answers_count(apart_s: float, offset_of_each: list[int]) -> None:
    clock = Clock()
    feedback = made(clock, margin_macroblocks=0)
    for left in (0, 400, 800):
        clock.now_s += apart_s
        feedback.answer(np.array([[left, 0, left + 64, 64]], np.float32))
    offsets = feedback.qp_offsets(GRID)
    assert offsets is not None
    assert [offsets[0, int(left / 32)] for left in (0, 400, 800)] == offset_of_each


def test_nothing_seen_makes_no_map() -> None:
    feedback = made()
    assert feedback.version == 0
    assert feedback.qp_offsets(GRID) is None
    feedback.answer(np.empty((0, 4), np.float32))
    assert feedback.version == 1
    assert feedback.qp_offsets(GRID) is None


def test_answers_grow_stale_and_come_back() -> None:
    clock = Clock()
    feedback = made(clock)
    feedback.answer(BOX)
    clock.now_s = 2.0
    assert feedback.version == 1
    clock.now_s = 2.1
    assert feedback.version == 0
    feedback.answer(BOX)
    assert feedback.version == 2


def test_results_are_read_as_they_come() -> None:
    feedback = made()
    for nothing in (None, {"task": "segmentation", "runs": []}):
        feedback.take(nothing)
    assert feedback.version == 0
    feedback.take({"task": "detection", "objects": [{"class": "car", "score": 0.9, "box_xyxy": [*BOX[0]]}]})
    same = made()
    same.answer(BOX)
    np.testing.assert_array_equal(feedback.qp_offsets(GRID), same.qp_offsets(GRID))


@pytest.mark.parametrize(
    "unreadable", [[{}], [5], [{"box_xyxy": [1, 2]}], [{"box_xyxy": "x"}], [{"box_xyxy": [[1], 2, 3, 4]}]]
)
def test_a_result_that_cant_be_read_is_no_answer(unreadable: list[object]) -> None:
    feedback = made()
    feedback.take({"objects": unreadable})
    assert feedback.version == 0


@pytest.mark.parametrize("side", [1e39, float("inf"), float("nan"), -1e300])
def test_boxes_beyond_all_bounds_make_a_map(side: float) -> None:
    feedback = made()
    feedback.take({"objects": [{"box_xyxy": [0, 0, side, side]}, {"box_xyxy": [320, 160, 480, 320]}]})
    assert feedback.qp_offsets(GRID, rate_controlled=True) is not None


def test_a_map_fits_any_stream_size() -> None:
    feedback = made()
    feedback.answer(BOX)
    for size in ((1280, 720), (416, 234)):
        offsets = feedback.qp_offsets(MacroblockGrid(*size))
        assert offsets is not None
        assert offsets.shape == MacroblockGrid(*size).shape
        assert 0 < (offsets == 0).mean() < 1


@pytest.mark.parametrize("boxes", [BOX, np.array([[0, 0, 1280, 600]], np.float32)])
def test_rate_controlled_maps_have_a_mean_of_zero(boxes: np.ndarray) -> None:
    feedback = made()
    feedback.answer(boxes)
    offsets = feedback.qp_offsets(GRID, rate_controlled=True)
    assert offsets is not None
    assert abs(float(offsets.mean())) <= 1
    assert np.ptp(offsets) == 8
