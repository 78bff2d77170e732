"""Maps of the server's answers: where, how much, for how long."""

import numpy as np
import pytest

from accmpeg.media.grid import MacroblockGrid, dilate
from accmpeg.steering.feedback import FeedbackMap

GRID = MacroblockGrid(640, 360)
BOX = np.array([[320, 160, 480, 320]], np.float32)


def made(**options: int) -> FeedbackMap:
    return FeedbackMap(GRID, (1280, 720), **options)


def test_boxes_are_fine_and_the_rest_is_coarser() -> None:
    feedback = made()
    feedback.answer(BOX, 0)
    offsets = feedback.qp_offsets()
    assert offsets is not None
    near = dilate(GRID.cover_boxes(BOX / 2), 2)
    assert (offsets[near] == 0).all()
    assert (offsets[~near] == 8).all()


def test_the_last_two_answers_count() -> None:
    feedback = made(margin_macroblocks=0)
    for number, left in enumerate((0, 400, 800)):
        feedback.answer(np.array([[left, 0, left + 64, 64]], np.float32), number)
    offsets = feedback.qp_offsets()
    assert offsets is not None
    assert [offsets[0, int(left / 32)] for left in (0, 400, 800)] == [8, 0, 0]


def test_an_answer_that_comes_late_is_passed_over() -> None:
    feedback = made()
    feedback.answer(BOX, 2000)
    assert feedback.renewed()
    feedback.answer(BOX + 500, 1000)
    assert not feedback.renewed()


def test_nothing_seen_makes_no_map() -> None:
    feedback = made()
    assert feedback.qp_offsets() is None
    feedback.answer(np.empty((0, 4), np.float32), 0)
    assert feedback.renewed()
    assert feedback.qp_offsets() is None


def test_answers_grow_stale() -> None:
    feedback = made()
    assert not feedback.is_fresh(0)
    feedback.answer(BOX, 1_000_000)
    assert feedback.is_fresh(3_000_000)
    assert not feedback.is_fresh(3_000_001)


@pytest.mark.parametrize("boxes", [BOX, np.array([[0, 0, 1280, 600]], np.float32)])
def test_rate_controlled_maps_have_a_mean_of_zero(boxes: np.ndarray) -> None:
    feedback = made()
    feedback.answer(boxes, 0)
    offsets = feedback.qp_offsets(rate_controlled=True)
    assert offsets is not None
    assert abs(float(offsets.mean())) <= 1
    assert np.ptp(offsets) == 8
