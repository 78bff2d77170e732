"""Heads of networks that give boxes in input pixels, against hand-computed numbers."""

import numpy as np
import pytest
import torch

from accmpeg.dnn.card import InputCard
from accmpeg.dnn.heads.boxes import BoxesHead, FinalHead, FinalKeypointsHead
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError

# 200x100 pixels halved into 100x100, hence 25 rows of padding above and below.
GEOMETRY = InputGeometry.of(InputCard(name="x", width_px=100, height_px=100), 200, 100)
BOXES = np.array([[10, 25, 20, 75], [0, 30, 50, 35]], np.float32)
BOXES_IN_FRAME = np.array([[20, 0, 40, 100], [0, 10, 100, 20]], np.float32)
SCORES, LABELS = np.array([0.9, 0.4], np.float32), np.array([3, 2])


def test_candidates():
    scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)
    dense = BoxesHead(classes=3).dense([BOXES, scores], GEOMETRY)
    assert dense.boxes_xyxy == pytest.approx(BOXES_IN_FRAME)
    assert (dense.scores == scores).all()
    assert dense.frame_size_px == (200, 100)


def test_final_scores_go_to_the_column_of_their_label():
    dense = FinalHead(classes=2, first_label=1).dense([BOXES, SCORES, LABELS], GEOMETRY)
    assert dense.boxes_xyxy == pytest.approx(BOXES_IN_FRAME)
    assert dense.scores == pytest.approx(np.array([[0, 0], [0, 0.4]]))


def test_tensors_keep_their_gradient():
    boxes, scores = (torch.from_numpy(a).requires_grad_(True) for a in (BOXES, SCORES))
    dense = FinalHead(classes=3, first_label=1).dense([boxes, scores, torch.from_numpy(LABELS)], GEOMETRY)
    (dense.scores.sum() + dense.boxes_xyxy.sum()).backward()
    assert (boxes.grad == 2).all()
    assert (scores.grad == 1).all()


def test_keypoints():
    points = np.array([[[10, 25, 0.7]], [[50, 75, 0.2]]], np.float32)
    head = FinalKeypointsHead(classes=1, keypoints=1, first_label=3)
    dense = head.dense([BOXES, SCORES, LABELS, points], GEOMETRY)
    assert dense.keypoints == pytest.approx(np.array([[[20, 0, 0.7]], [[100, 100, 0.2]]]))
    assert dense.scores == pytest.approx(np.array([[0.9], [0]]))


def test_no_detections():
    empty = [np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0,))]
    assert FinalHead(classes=2).dense(empty, GEOMETRY).scores.shape == (0, 2)


@pytest.mark.parametrize("outputs", [[BOXES], [BOXES, SCORES, LABELS, LABELS], [SCORES, BOXES, LABELS]])
def test_other_outputs(outputs):
    with pytest.raises(DnnError, match="the head 'final' reads outputs"):
        FinalHead(classes=2).dense(outputs, GEOMETRY)
