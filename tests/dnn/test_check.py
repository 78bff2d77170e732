"""What the numbers of a network mean: all kinds of boxes are read, and what a card misreads is told."""

import numpy as np
import pytest
import torch
from onnx import helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.errors import CardError
from tests.dnn.exported import ANSWERS, SIZE_PX, fixed, frame, imported, value, write

CORNERS = np.array([[[8, 8, 24, 20], [2, 4, 12, 30], [0, 0, 0, 0]]], np.float32)
SCORES = np.array([[[0.9, 0.1, 0], [0.1, 0.6, 0.2], [0, 0, 0]]], np.float32)


def centred(corners):
    low, high = corners[..., :2], corners[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], -1)


MEANT = [
    ("boxes", CORNERS, {}),
    ("boxes", CORNERS / SIZE_PX, {"head__parameters__units": "fractions"}),
    ("boxes", centred(CORNERS), {"head__parameters__columns": "cx,cy,w,h"}),
    ("boxes", CORNERS[..., [1, 0, 3, 2]], {"head__parameters__columns": "y1,x1,y2,x2"}),
    ("yolo", centred(CORNERS) / SIZE_PX, {"head__parameters__units": "fractions"}),
    ("yolo the other way round", centred(CORNERS), {}),
    ("end2end", CORNERS / SIZE_PX, {"head__parameters__units": "fractions"}),
    ("end2end", centred(CORNERS), {"head__parameters__columns": "cx,cy,w,h,score,class"}),
    ("detr", centred(CORNERS) / SIZE_PX, {}),
    ("detr", centred(CORNERS), {"head__parameters__units": "pixels"}),
]


def detector(folder, head, boxes, scores=SCORES):
    if head == "boxes":
        return fixed(folder / "n.onnx", boxes=boxes, scores=scores)
    if head == "detr":
        return fixed(folder / "n.onnx", logits=np.log(np.clip(scores, 1e-6, 1) / (1 - scores)), boxes=boxes)
    if head == "end2end":
        best, label = scores.max(-1, keepdims=True), scores.argmax(-1)[..., None].astype(np.float32)
        return fixed(folder / "n.onnx", output=np.concatenate([boxes, best, label], -1))
    rows = np.concatenate([boxes, scores], -1)
    return fixed(folder / "n.onnx", output=rows if "round" in head else rows.transpose(0, 2, 1))


@pytest.mark.parametrize(("head", "boxes", "parameters"), MEANT)
def test_boxes_of_every_kind_are_read(tmp_path, head, boxes, parameters):
    card = imported(detector(tmp_path, head, boxes), "detection", head.split()[0], **parameters)
    result, findings = check_dnn(load_dnn(card), frame(64, 64))
    sure = result[result.confidence > 0.25]
    assert sure.xyxy == pytest.approx(2 * CORNERS[0, :2], abs=0.01)
    assert sure.class_id.tolist() == [0, 1]
    assert "meaning" not in [finding.name for finding in findings]


@pytest.mark.parametrize(
    ("head", "boxes", "scores", "way_out"),
    [
        ("boxes", CORNERS / SIZE_PX, SCORES, "units = 'fractions'"),
        ("yolo", centred(CORNERS) / SIZE_PX, SCORES, "units = 'fractions'"),
        ("end2end", CORNERS / SIZE_PX, SCORES, "units = 'fractions'"),
        ("boxes", centred(CORNERS), SCORES, "columns = 'cx,cy,w,h'"),
        ("detr", centred(CORNERS), SCORES, "units = 'pixels'"),
        ("boxes", CORNERS, 8 * SCORES - 4, "no probabilities"),
        ("boxes", CORNERS, 100 * SCORES, "no probabilities"),
    ],
)
def test_what_is_misread_is_told_on_import_and_fails_the_check(tmp_path, head, boxes, scores, way_out):
    model = detector(tmp_path, head, boxes, scores)
    answers = {**ANSWERS, "task": "detection", "head.name": head}
    done = import_model(model, tmp_path, answers=answers)
    assert way_out in done.note
    _, findings = check_dnn(load_dnn(done.card), frame())
    (meaning,) = [finding for finding in findings if finding.name == "meaning"]
    assert way_out in meaning.value
    assert not meaning.ok


@pytest.mark.parametrize("head", ["detr", "rtdetr", "binary"])
def test_a_sigmoid_of_probabilities_is_told(tmp_path, head):
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    shown = {"logits": SCORES, "boxes": centred(CORNERS) / SIZE_PX}
    if head == "rtdetr":
        shown = {"output": np.concatenate([centred(CORNERS) / SIZE_PX, SCORES], -1)}
    if head == "binary":
        shown = {"mask": np.tile(ramp, (1, 1, 16, 1))}
    task = "segmentation" if head == "binary" else "detection"
    answers = {**ANSWERS, "task": task, "head.name": head, "head.parameters.activation": "sigmoid"}
    answers |= {"classes": "x,y"} if head == "binary" else {}
    done = import_model(fixed(tmp_path / "n.onnx", **shown), tmp_path, answers=answers)
    assert "say head.parameters.activation = 'none'" in done.note
    done = import_model(
        tmp_path / "n.onnx",
        tmp_path,
        answers={**answers, "head.parameters.activation": "none"},
        replace=True,
    )
    assert "wrong" not in done.note


def test_a_softmax_of_probabilities_is_told(tmp_path):
    """Its scores are all near 1/C: nothing would ever be found."""
    shares = np.float32([[[0.9, 0.02, 0.03, 0.05], [0, 0, 0, 1], [0.1, 0.6, 0.2, 0.1]]])
    model = fixed(tmp_path / "n.onnx", logits=shares, boxes=centred(CORNERS) / SIZE_PX)
    answers = {**ANSWERS, "task": "detection", "head.name": "detr", "head.parameters.activation": "softmax"}
    done = import_model(model, tmp_path, answers=answers)
    assert "say head.parameters.activation = 'none'" in done.note
    answers["head.parameters.activation"] = "none"
    done = import_model(model, tmp_path, answers=answers, replace=True)
    assert "wrong" not in done.note
    found = load_dnn(done.card).infer(frame())
    assert found.confidence[:2] == pytest.approx([0.9, 0.6])
    assert found.class_id[:2].tolist() == [0, 1]
    fixed(tmp_path / "n.onnx", logits=np.log(shares + 1e-6), boxes=centred(CORNERS) / SIZE_PX)
    answers["head.parameters.activation"] = "softmax"
    assert "wrong" not in import_model(model, tmp_path, answers=answers, replace=True).note


def test_probabilities_in_place_of_logits_are_told_and_read(tmp_path):
    shares = np.zeros((1, 3, 4, 4), np.float32)
    shares[0, 0], shares[0, 2] = 0.2, 0.8
    model = fixed(tmp_path / "n.onnx", shares=shares)
    answers = {**ANSWERS, "task": "segmentation", "head.name": "logits"}
    assert "say head.parameters.activation = 'none'" in import_model(model, tmp_path, answers=answers).note
    card = imported(model, "segmentation", "logits", head__parameters__activation="none")
    dnn = load_dnn(card)
    _, findings = check_dnn(dnn, frame())
    assert "meaning" not in [finding.name for finding in findings]
    p = dnn.differentiable()(torch.zeros(3, 64, 64)).logits.softmax(0)
    assert p[:, 0, 0].tolist() == pytest.approx([0.2, 0, 0.8], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "first_label", "stray"), [([1, 3], 0, 3), ([0, 2], 1, 0), ([1, 3], 1, None)]
)
def test_labels_of_no_class_are_told(tmp_path, labels, first_label, stray):
    model = fixed(
        tmp_path / "n.onnx",
        boxes=CORNERS[:, :2],
        scores=np.float32([[0.9, 0.6]]),
        labels=np.array([labels]),
    )
    card = imported(model, "detection", "final", head__parameters__first_label=str(first_label))
    _, findings = check_dnn(load_dnn(card), frame())
    told = [finding.value for finding in findings if finding.name == "meaning"]
    assert told == [] if stray is None else f"objects of the label {stray}, " in told[0]


@pytest.mark.parametrize("head", ["yolo", "detr", "rtdetr"])
def test_corners_that_are_taken_for_centres_are_told(tmp_path, head):
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 16, (1, 40, 4)).astype(np.float32)
    corners[..., 2:] = corners[..., :2] + rng.uniform(4, 16, (1, 40, 2))
    scores = np.full((1, 40, 3), 0.01, np.float32)
    scores[0, 7, 1] = 0.9

    def model(boxes):
        boxes = boxes if head == "yolo" else boxes / SIZE_PX
        return detector(tmp_path, "yolo round" if head == "rtdetr" else head, boxes, scores)

    answers = {**ANSWERS, "task": "detection", "head.name": head}
    assert "wrong" not in import_model(model(centred(corners)), tmp_path, answers=answers).note
    done = import_model(model(corners), tmp_path, answers=answers, replace=True)
    assert "they are corners, so say head.parameters.columns with x1,y1,x2,y2" in done.note
    answers["head.parameters.columns"] = "x1,y1,x2,y2"
    done = import_model(model(corners), tmp_path, answers=answers, replace=True)
    assert "wrong" not in done.note
    best = load_dnn(done.card).infer(frame(64, 64))
    assert best.xyxy[0] == pytest.approx(2 * corners[0, 7], abs=0.01)


def test_objects_that_nobody_suppresses_are_told(tmp_path):
    boxes = np.repeat(CORNERS[:, :2], 3, axis=1) + np.linspace(0, 0.5, 6, dtype=np.float32)[None, :, None]
    scores = np.repeat(SCORES[:, :2], 3, axis=1)
    model = detector(tmp_path, "yolo", centred(boxes), scores)
    answers = {**ANSWERS, "task": "detection", "head.name": "yolo"}
    assert "say nms_iou = 0.45" in import_model(model, tmp_path, answers=answers).note
    done = import_model(model, tmp_path, answers={**answers, "nms_iou": "0.45"}, replace=True)
    assert "nms_iou" not in done.note
    assert (load_dnn(done.card).infer(frame()).confidence > 0.25).sum() == 2


def test_unsure_candidates_may_come_in_another_order(tmp_path):
    """Of equal scores, ONNX Runtime and PyTorch choose others."""
    rows = np.zeros((300, 6), np.float32)
    rows[:, :4] = np.random.default_rng(0).uniform(0, 14, (300, 4)) + np.float32([0, 0, 16, 16])
    rows[:, 4] = 0.02
    rows[7, 4:], rows[200, 4:] = (0.9, 1), (0.8, 2)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["m", "zero"], ["nothing"]),
        helper.make_node("Add", ["scores", "nothing"], ["all"]),
        helper.make_node("TopK", ["all", "most"], ["best", "chosen"], axis=0),
        helper.make_node("Add", ["rows", "nothing"], ["candidates"]),
        helper.make_node("Gather", ["candidates", "chosen"], ["found"], axis=0),
        helper.make_node("Unsqueeze", ["found", "axis"], ["output"]),
    ]
    constants = {
        "zero": np.float32(0),
        "rows": rows,
        "scores": rows[:, 4],
        "most": np.int64([100]),
        "axis": np.int64([0]),
    }
    model = write(tmp_path / "n.onnx", nodes, [value("output", [1, 100, 6])], constants)
    _, findings = check_dnn(load_dnn(imported(model, "detection", "end2end")), frame())
    assert next(each for each in findings if each.name == "PyTorch equals runtime").ok, findings


def test_a_background_among_the_classes_is_told(tmp_path):
    """As in the list of names beside SSD's weights: it would be the surest object of every picture."""
    model = fixed(tmp_path / "n.onnx", scores=SCORES, boxes=CORNERS)
    answers = {**ANSWERS, "task": "detection", "head.name": "boxes", "classes": "BACKGROUND,car,person"}
    done = import_model(model, tmp_path, answers=answers)
    assert "take it out of classes, and say head.parameters.first_label = 1" in done.note
    answers |= {"classes": "car,person", "head.parameters.first_label": "1"}
    done = import_model(model, tmp_path, answers=answers, replace=True)
    assert "wrong" not in done.note
    found = load_dnn(done.card).infer(frame())
    assert (found.class_id[:2].tolist(), found.confidence[:2]) == ([0, 0], pytest.approx([0.6, 0.1]))


@pytest.mark.parametrize("background", ["__background__", "???"])
def test_a_background_in_the_place_of_the_first_label_is_told(tmp_path, background):
    """torchvision's and TensorFlow's lists begin with one: every object was one class off."""
    names = {"detection_boxes": CORNERS[:, :2] / SIZE_PX, "detection_scores": np.float32([[0.9, 0.6]])}
    model = fixed(tmp_path / "n.onnx", **names, detection_classes=np.float32([[1, 2]]))
    answers = {**ANSWERS, "task": "detection", "head.name": "final", "classes": f"{background},car,person"}
    done = import_model(model, tmp_path, answers=answers)
    assert f"the class '{background}' would be given to objects: take it out" in done.note
    for right in ({"classes": "car,person"}, {"head.parameters.first_label": "0"}):
        done = import_model(model, tmp_path, answers={**answers, **right}, replace=True)
        assert "wrong" not in done.note
        card, found = read_card(done.card), load_dnn(done.card).infer(frame())
        assert [card.classes[i] for i in found.class_id] == ["car", "person"]


def test_visibilities_that_are_no_probabilities_are_told(tmp_path):
    rows = np.array([[[16, 8, 8, 8, 0.9, 3, 4, -2.5]]], np.float32).transpose(0, 2, 1)
    model = fixed(tmp_path / "n.onnx", output=rows)
    answers = {**ANSWERS, "task": "keypoints", "head.name": "yolo_pose", "keypoints.names": "nose"}
    done = import_model(model, tmp_path, answers={**answers, "classes": "person"})
    assert "visibilities are no probabilities" in done.note


def test_logits_with_channels_last(tmp_path):
    logits = np.zeros((1, SIZE_PX, SIZE_PX, 3), np.float32)
    logits[0, :, 16:, 1] = 1
    card = imported(fixed(tmp_path / "n.onnx", logits=logits), "segmentation", "logits")
    assert load_dnn(card).infer(frame())[0].tolist() == [2] * 16 + [1] * 16


@pytest.mark.parametrize(
    ("head", "parameters", "message"),
    [
        ("boxes", {"head__parameters__columns": "x,y,w,h"}, "must name each of x1,y1,x2,y2 once"),
        ("boxes", {"head__parameters__units": "percent"}, "'pixels' or 'fractions'"),
        ("boxes", {"head__parameters__unit": "fractions"}, "did you mean 'units'"),
    ],
)
def test_senseless_parameters_of_boxes_are_one_line(tmp_path, head, parameters, message):
    with pytest.raises(CardError, match=message):
        imported(detector(tmp_path, head, CORNERS), "detection", head, **parameters)
