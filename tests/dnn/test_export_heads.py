"""Heads of single families of networks: YOLOv5-seg, CenterNet, MoveNet, YOLO-NAS-POSE."""

import numpy as np
import pytest
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.errors import CardError
from tests.dnn.exported import SIZE_PX, fixed, frame, imported


def test_masks_of_yolov5(tmp_path):
    rows = np.float32([[[16, 8, 8, 8, 0.9, 0.1, 1, 0, 1, -1], [8, 24, 8, 8, 0.8, 0, 0, 1, 0, 1]]])
    prototypes = np.ones((1, 2, 8, 8), np.float32)
    prototypes[0, 1, :6] = -1  # only the bottom is of the second kind
    model = fixed(tmp_path / "n.onnx", output0=rows, output1=prototypes)
    dnn = load_dnn(imported(model, "instances", "yolo_objectness_seg"))
    found = dnn.infer(frame())
    assert found.class_id.tolist() == [1, 2]
    assert found.confidence == pytest.approx([0.9, 0.8])
    assert found.xyxy.tolist() == [[24, 8, 40, 24], [8, 40, 24, 56]]
    assert found.mask[0].sum() == 16 * 16
    assert found.mask[1][:46].sum() == 0
    assert found.mask[1][50:56, 8:24].all()
    scores = dnn.differentiable()(torch.zeros(3, 64, 64)).scores.numpy()
    assert scores == pytest.approx(np.float32([[0.09, 0.9, 0], [0, 0, 0.8]]))


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_centres_of_centernet(tmp_path, activation):
    heat = np.full((1, 3, 8, 8), 0.001, np.float32)
    heat[0, 2, 5, 1], heat[0, 2, 5, 2] = 0.9, 0.6  # the peak, and the cell beside it
    heat[0, 0, 0, 6] = 0.7
    sizes, offsets = np.ones((1, 2, 8, 8), np.float32), np.zeros((1, 2, 8, 8), np.float32)
    sizes[0, :, 5, 1:3], offsets[0, :, 5, 1] = [[2, 2], [4, 4]], [0.5, 0.25]
    maps = heat if activation == "none" else np.log(heat / (1 - heat))
    model = fixed(tmp_path / "n.onnx", wh=sizes, hm=maps, reg=offsets)
    card = imported(model, "detection", "centernet", nms_iou="0.3", head__parameters__activation=activation)
    dnn = load_dnn(card)
    found = dnn.infer(frame(64, 64))
    sure = found[found.confidence > 0.25]
    assert sure.class_id.tolist() == [2, 0]
    assert sure.confidence == pytest.approx([0.9, 0.7])
    # A cell is 8 pixels of the frame: the centre is (1.5, 5.25), the size 2x4 of them.
    assert sure.xyxy == pytest.approx(np.float32([[4, 26, 20, 58], [44, 0, 52, 4]]), abs=1e-4)
    dense = dnn.differentiable()(torch.zeros(3, 64, 64))
    assert dense.boxes_xyxy[41].tolist() == pytest.approx([4, 26, 20, 58], abs=1e-4)


POINTS = np.float32([[[0.25, 0.5, 0.9], [0.75, 0.125, 0.2]]])
MOVENET = {"columns": "points,y1,x1,y2,x2,score", "points": "y,x,visibility", "units": "fractions"}


def person(tmp_path, rows, **parameters):
    more = {f"head__parameters__{name}": value for name, value in parameters.items()}
    more |= {"classes": "person", "keypoints.names": "nose,foot"}
    return load_dnn(imported(fixed(tmp_path / "n.onnx", output=rows), "keypoints", "end2end_pose", **more))


def test_people_of_movenet(tmp_path):
    rows = np.concatenate([POINTS.reshape(1, 1, -1), np.float32([[[0.125, 0.25, 0.5, 1, 0.8]]])], -1)
    dnn = person(tmp_path, rows, **MOVENET)
    found = dnn.infer(frame(64, 64))
    assert found.xy.tolist() == [[[32, 16], [8, 48]]]
    assert found.keypoint_confidence == pytest.approx(np.float32([[0.9, 0.2]]))
    assert found.detection_confidence == pytest.approx([0.8])
    assert dnn.task.object_boxes(found).tolist() == [[16, 8, 64, 32]]
    assert dnn.differentiable()(torch.zeros(3, 64, 64)).keypoints[0, 0, :2].tolist() == [32, 16]


def test_people_of_yolo_nas(tmp_path):
    points = POINTS[..., [1, 0, 2]] * np.float32([SIZE_PX, SIZE_PX, 1])
    rows = np.concatenate([np.float32([[0, 8, 4, 32, 16, 0.8]]), points.reshape(1, -1)], -1)
    dnn = person(tmp_path, rows, columns="batch,x1,y1,x2,y2,score,points")
    found = dnn.infer(frame(64, 64))
    assert found.xy.tolist() == [[[32, 16], [8, 48]]]
    assert dnn.task.object_boxes(found).tolist() == [[16, 8, 64, 32]]
    with pytest.raises(CardError, match="points is 'x,y,visibility' or 'y,x,visibility', not 'y,x'"):
        person(tmp_path, rows, points="y,x")
    with pytest.raises(CardError, match="must name each of x1,y1,x2,y2,score,points once"):
        person(tmp_path, rows, columns="x1,y1,x2,y2,score,class")
