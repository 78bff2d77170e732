"""Boxes and matching against hand-computed cases and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accmpeg.tasks.matching import (
    FrameMatches,
    average_precision,
    clip_average_precision,
    f1_counts,
    f1_score,
    iou_matrix,
    match,
    nms,
)


def boxes_strategy(most: int = 30):
    corners = arrays(np.float64, st.tuples(st.integers(0, most), st.just(4)), elements=st.integers(0, 40))
    return corners.map(lambda c: np.concatenate([c[:, :2], c[:, :2] + c[:, 2:]], axis=1))


def plain_iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / max(areas - width * height, 1e-9)


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 40]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [100, 100, 110, 110]], np.float32)
    assert iou_matrix(a, b) == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))


@given(boxes_strategy(), boxes_strategy())
def test_iou_equals_plain_arithmetic(a, b):
    expected = np.array([[plain_iou(x, y) for y in b] for x in a]).reshape(len(a), len(b))
    assert iou_matrix(a, b) == pytest.approx(expected)


@settings(max_examples=200)
@given(boxes_strategy(), st.randoms(use_true_random=False), st.floats(0.05, 0.95))
def test_nms_equals_the_greedy_loop(boxes, random, max_iou):
    scores = np.array([random.choice([0.1, 0.4, random.random()]) for _ in boxes])
    classes = np.array([random.randrange(3) for _ in boxes], int)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        clashing = (classes[i] == classes[j] and plain_iou(boxes[i], boxes[j]) > max_iou for j in kept)
        if not any(clashing):
            kept.append(int(i))
    assert nms(boxes, scores, classes, max_iou).tolist() == kept
    assert nms(boxes, scores, classes, max_iou, 3).tolist() == kept[:3]


def test_nms_of_many_boxes_equals_the_greedy_loop():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 200, (400, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, 60, (400, 2))], axis=1).astype(np.float32)
    scores, classes = rng.random(400), rng.integers(0, 2, 400)
    overlaps = (iou_matrix(boxes, boxes) > 0.4) & (classes[:, None] == classes[None])
    kept: list[int] = []
    for i in np.argsort(-scores):
        if not overlaps[i, kept].any():
            kept.append(int(i))
    assert nms(boxes, scores, classes, 0.4).tolist() == kept


def test_each_reference_is_matched_once_and_by_the_best_score():
    similarity = np.array([[0.9, 0.6], [0.95, 0.2], [0.7, 0.55]])
    scores = np.array([0.8, 0.9, 0.7])
    # The second result takes reference 0, so the first falls back to reference 1 and the third gets none.
    assert match(similarity, scores, 0.5).tolist() == [1, 0, -1]


def test_other_classes_do_not_match():
    frame = FrameMatches(np.array([0.9]), np.array([1]), np.array([2]), np.array([[1.0]]))
    assert f1_counts(frame, 0.5, 0.25) == (0, 1, 1)


def test_average_precision_by_hand():
    # Right, wrong, right of three references: recall 1/3 at precision 1, then 2/3 at 2/3.
    scores, correct = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    expected = (34 * 1.0 + 33 * 2 / 3) / 101
    assert average_precision(scores, correct, 3) == pytest.approx(expected)


def test_average_precision_without_references_is_undefined():
    assert np.isnan(average_precision(np.array([0.9]), np.array([False]), 0))


@pytest.mark.parametrize(("score", "expected"), [(0.2, 1.0), (0.3, 0.0)])
def test_a_clip_without_references_is_right_when_nothing_sure_is_found(score, expected):
    frame = FrameMatches(np.array([score]), np.array([0]), np.zeros(0, int), np.zeros((1, 0)))
    assert clip_average_precision([frame], 0.5, 0.25) == expected


def test_f1_counts_an_empty_frame_as_right():
    assert f1_score(0, 0, 0) == 1
    assert f1_score(2, 1, 1) == pytest.approx(2 / 3)
