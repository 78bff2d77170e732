"""The ten real networks: imported from their descriptions, run, compared with PyTorch, differentiated."""

import json

import numpy as np
import pytest
import supervision as sv
import torch

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.media.footage import read_still
from accmpeg.tasks.matching import iou_matrix

DETECTORS = ["yolo11n", "leyolo_nano", "yolov5n", "yolox_nano", "nanodet_plus_m_416", "deimv2_femto"]
STREET = "street_bdd_7dd9ef45-f197db95.jpg"
PEOPLE = "misc_peds_0.jpg"
PARKED_CAR = np.array([[0, 222, 254, 498]], np.float32)


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory):
    """Imports a network, checks it on a picture and returns the DNN with its result."""
    threads = torch.get_num_threads()
    # On a busy machine PyTorch's threads wait for each other far longer than they work.
    torch.set_num_threads(1)
    cards = tmp_path_factory.mktemp("cards")

    def check(name, picture):
        dnn = load_dnn(import_model(shared_data / "models" / f"{name}.onnx", cards).card, threads=1)
        result, findings = check_dnn(dnn, read_still(shared_data / "images" / picture))
        assert {finding.name: finding.value for finding in findings if not finding.ok} == {}
        return dnn, result

    yield check
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_see_the_parked_car(run, name):
    dnn, result = run(name, STREET)
    sure = result[result.confidence >= dnn.card.score_threshold]
    cars = sure[sure.class_id == dnn.card.classes.index("car")]
    assert iou_matrix(cars.xyxy, PARKED_CAR).max() > 0.7
    assert 3 <= len(sure) <= 12


def test_instance_masks_cover_the_people(run):
    dnn, result = run("yolov8n_seg", PEOPLE)
    sure = result[(result.confidence >= 0.8) & (result.class_id == dnn.card.classes.index("person"))]
    assert len(sure) == 4
    for mask, (x0, y0, x1, y1) in zip(sure.mask, sure.xyxy, strict=True):
        rows, cols = np.nonzero(mask)
        assert 0.4 < len(rows) / ((x1 - x0) * (y1 - y0)) < 0.85
        assert cols.min() >= int(x0)
        assert rows.max() <= y1
    assert dnn.task.frame_accuracy(result, result) == 1


def test_skeletons_stand_upright_in_their_boxes(run):
    dnn, result = run("yolov8n_pose", PEOPLE)
    sure = result[result.detection_confidence >= dnn.card.score_threshold]
    assert isinstance(sure, sv.KeyPoints)
    assert len(sure) == 4
    names = dnn.card.keypoints.names
    for points, (x0, y0, x1, y1) in zip(sure.xy, sure.data["xyxy"], strict=True):
        assert points[names.index("left_shoulder"), 1] < points[names.index("left_hip"), 1]
        assert points[names.index("left_hip"), 1] < points[names.index("left_ankle"), 1]
        assert ((points > [x0 - 9, y0 - 9]) & (points < [x1 + 9, y1 + 9])).all()
    assert dnn.task.frame_accuracy(result, result) == 1


def test_class_maps_know_the_street(run):
    dnn, result = run("espnetv2_s2_cityscapes", STREET)
    names = dnn.card.classes
    assert result.shape == (512, 1024)
    assert names[result[280, 512]] == "car"
    assert names[result[400, 480]] == "road"
    assert names[result[20, 500]] == "sky"


def test_class_maps_know_people(run):
    dnn, result = run("espnetv2_s2_voc", PEOPLE)
    present = {dnn.card.classes[i] for i in np.unique(result)}
    assert present == {"background", "car", "person"}
    assert 0.1 < (result == dnn.card.classes.index("person")).mean() < 0.3


def test_backbones_are_passed_over(shared_data, tmp_path):
    models = shared_data / "models"
    backbones = [
        path.stem for path in models.glob("*.json") if "backbone" in json.loads(path.read_text())["task"]
    ]
    assert len(backbones) == 2
    for name in backbones:
        assert import_model(models / f"{name}.onnx", tmp_path).card is None
