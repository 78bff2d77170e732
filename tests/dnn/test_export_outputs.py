"""ONNX files as exporters write them: kinds of outputs, and the heads that read them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from av import VideoFrame
from onnx import TensorProto, helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.errors import CardError, DnnError, NoGradientError
from tests.dnn.exported import ANSWERS, SIZE_PX, fixed, frame, imported, value, write


def half_bright(size=SIZE_PX):
    pixels = np.full((size, size, 3), 20, np.uint8)
    pixels[:, size // 2 :] = 220
    return VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


ROWS = np.zeros((1, 5, 6), np.float32)
ROWS[0, 0] = [4, 4, 20, 20, 0.9, 0]
ROWS[0, 1] = [10, 10, 30, 30, 0.8, 2]


def test_end_to_end_rows(tmp_path):
    found = load_dnn(imported(fixed(tmp_path / "e.onnx", output0=ROWS), "detection", "end2end")).infer(
        frame()
    )
    assert found.class_id[:2].tolist() == [0, 2]
    assert found.confidence[:2] == pytest.approx([0.9, 0.8])
    assert found.xyxy[:2] == pytest.approx(np.array([[8, 8, 40, 40], [20, 20, 60, 60]]))


def test_end_to_end_rows_in_another_order_and_without_a_batch_axis(tmp_path):
    # YOLOv7's: picture, box, class, score.
    rows = np.array([[0, 4, 4, 20, 20, 1, 0.9]], np.float32)
    card = imported(
        fixed(tmp_path / "e.onnx", output=rows),
        "detection",
        "end2end",
        head__parameters__columns="batch,x1,y1,x2,y2,class,score",
    )
    found = load_dnn(card).infer(frame())
    assert (found.class_id.tolist(), found.confidence.tolist()) == ([1], [pytest.approx(0.9)])
    assert found.xyxy == pytest.approx(np.array([[8, 8, 40, 40]]))
    with pytest.raises(CardError, match="must name each of x1,y1,x2,y2,score,class once"):
        imported(tmp_path / "e.onnx", "detection", "end2end", head__parameters__columns="x1,y1,score")


def test_end_to_end_keypoints_and_masks(tmp_path):
    pose = np.concatenate([ROWS[:, :2], np.full((1, 2, 3), 8, np.float32)], axis=2)
    card = imported(
        fixed(tmp_path / "p.onnx", output0=pose), "keypoints", "end2end_pose", **{"keypoints.names": "nose"}
    )
    assert load_dnn(card).infer(frame()).xy[0].tolist() == [[16, 16]]
    masks = np.concatenate([ROWS[:, :2], np.ones((1, 2, 1), np.float32)], axis=2)
    prototypes = np.full((1, 1, 8, 8), 5, np.float32)
    card = imported(fixed(tmp_path / "s.onnx", output0=masks, output1=prototypes), "instances", "end2end_seg")
    assert load_dnn(card).infer(frame()).mask[0].sum() == 32 * 32


@pytest.mark.parametrize(("units", "scale"), [("fractions", 1 / SIZE_PX), ("pixels", 1.0)])
def test_queries_with_boxes_and_probabilities_in_one_output(tmp_path, units, scale):
    rows = np.array([[[16 * scale, 8 * scale, 8 * scale, 8 * scale, 0.1, 0.7, 0.2]]], np.float32)
    card = imported(
        fixed(tmp_path / "q.onnx", output=rows), "detection", "rtdetr", head__parameters__units=units
    )
    found = load_dnn(card).infer(frame())
    assert (found.class_id.tolist(), found.confidence.tolist()) == ([1], [pytest.approx(0.7)])
    assert found.xyxy == pytest.approx(np.array([[24, 8, 40, 24]]))


BOXES = np.array([[4, 4, 20, 20], [0, 0, 8, 8]], np.float32)
CENTRES = np.array([[12, 12, 16, 16], [4, 4, 8, 8]], np.float32)
SCORES = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.1]], np.float32)
UNBATCHED = {
    "final": {"b": BOXES, "s": np.array([0.9, 0.2], np.float32), "l": np.array([0, 1])},
    "boxes": {"b": BOXES, "s": SCORES},
    "yolo": {"o": np.concatenate([CENTRES, SCORES], 1).T},
    "yolo_objectness": {"o": np.concatenate([CENTRES, np.ones((2, 1), np.float32), SCORES], 1)},
    "rtdetr": {"o": np.concatenate([CENTRES / SIZE_PX, SCORES], 1)},
    "end2end": {"o": np.concatenate([BOXES, [[0.9, 0], [0.2, 1]]], 1).astype(np.float32)},
    "detr": {"l": np.log((SCORES + 1e-6) / (1 - SCORES + 1e-6)), "b": CENTRES / SIZE_PX},
}


@pytest.mark.parametrize("batched", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("head", UNBATCHED)
def test_every_detector_head_reads_outputs_with_and_without_a_batch_axis(tmp_path, head, batched):
    outputs = {k: v[None] if batched else v for k, v in UNBATCHED[head].items()}
    dnn = load_dnn(imported(fixed(tmp_path / "n.onnx", **outputs), "detection", head))
    results = [dnn.infer(frame()), dnn.infer(frame())] if batched else dnn.infer_many([frame(), frame()])
    for found in results:
        assert found.class_id[0] == 0
        assert found.confidence[0] == pytest.approx(0.9, abs=1e-4)
        assert found.xyxy[0] == pytest.approx([8, 8, 40, 40], abs=1e-3)
    rgb = torch.zeros(3, 64, 64, requires_grad=True)
    dense = dnn.differentiable()(rgb)
    assert float(dense.scores.detach().max()) == pytest.approx(0.9, abs=1e-4)


FOUND = np.array([0.9, 0.8], np.float32)
ORDERS = {
    "torchvision": ("final", {"b": BOXES, "l": np.array([1, 1]), "s": FOUND}, {"first_label": "1"}, [0, 0]),
    "MMDetection": ("final", {"b": np.c_[BOXES, FOUND], "l": np.array([2, 1])}, {}, [2, 1]),
    "PP-YOLOE": ("boxes", {"b": BOXES[::-1], "s": SCORES[::-1].T}, {}, [0]),
    "YOLOv4": ("boxes", {"b": BOXES[:, None], "s": SCORES}, {}, [0]),
    "a background first": (
        "boxes",
        {"b": BOXES, "s": np.c_[np.ones((2, 1), np.float32), SCORES]},
        {"first_label": "1"},
        [0],
    ),
}


@pytest.mark.parametrize("exporter", ORDERS)
def test_detections_in_the_order_of_each_exporter(tmp_path, exporter):
    head, outputs, parameters, class_ids = ORDERS[exporter]
    model = fixed(tmp_path / "n.onnx", **{name: array[None] for name, array in outputs.items()})
    more = {f"head__parameters__{name}": value for name, value in parameters.items()}
    dnn = load_dnn(imported(model, "detection", head, **more))
    found = dnn.infer(frame())
    sure = found[found.confidence > 0.25]
    assert sure.class_id.tolist() == class_ids
    assert sure.confidence == pytest.approx(FOUND[: len(sure)])
    assert sure.xyxy[0].tolist() == [8, 8, 40, 40]
    assert float(dnn.differentiable()(torch.zeros(3, 64, 64)).scores.max()) == pytest.approx(0.9)


@pytest.mark.parametrize("cells", [-1, 16], ids=["gives one answer", "fails"])
def test_a_graph_traced_with_one_picture_gets_one_at_a_time(tmp_path, capfd, cells):
    weights = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    model = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("Conv", ["images", "w"], ["cells"], strides=[8, 8]),
            helper.make_node("Sigmoid", ["cells"], ["squashed"]),
            helper.make_node("Reshape", ["squashed", "shape"], ["output"]),
        ],
        [value("output", ["batch", 7, "anchors"])],
        {"w": weights, "shape": np.array([1, 7, cells])},
    )
    dnn = load_dnn(imported(model, "detection", "yolo", head__parameters__units="fractions"))
    frames = [frame(seed=seed) for seed in range(4)]
    capfd.readouterr()
    assert [found.xyxy.tolist() for found in dnn.infer_many(frames)] == [
        dnn.infer(each).xyxy.tolist() for each in frames
    ]
    assert capfd.readouterr().err == ""


def test_yolox_as_it_exports_itself(tmp_path):
    rows = np.zeros((1, 20, 8), np.float32)  # 4 × 4 cells of 8 pixels, 2 × 2 of 16
    rows[0, 9] = [0.5, 0.25, np.log(2), 0, 0.9, 1, 0, 0]  # from (8, 16) on
    rows[0, 17] = [0.5, 0.5, 0, 0, 0.8, 0, 0, 1]  # from (16, 0) on
    model = fixed(tmp_path / "n.onnx", output=rows)
    dnn = load_dnn(
        imported(model, "detection", "yolo_objectness", nms_iou="0.5", head__parameters__strides="8,16")
    )
    found = dnn.infer(frame())[:2]
    assert found.class_id.tolist() == [0, 2]
    assert found.xyxy == pytest.approx(np.array([[8, 28, 40, 44], [32, 0, 64, 32]]), abs=1e-4)
    assert dnn.differentiable()(torch.zeros(3, 64, 64)).boxes_xyxy[9].tolist() == pytest.approx(
        [8, 28, 40, 44], abs=1e-4
    )
    many = np.random.default_rng(0).uniform(0, 1, (1, 1200, 8)).astype(np.float32)
    answers = {**ANSWERS, "task": "detection", "head.name": "yolo_objectness"}
    done = import_model(fixed(tmp_path / "m.onnx", output=many), tmp_path, answers=answers)
    assert "head.parameters.strides = [8, 16, 32]" in done.note


def test_keypoints_without_visibilities_and_masks_by_rows(tmp_path):
    pose = np.array([[[16, 8, 8, 8, 0.9, 3, 4, 5, 6]]], np.float32).transpose(0, 2, 1)
    card = imported(
        fixed(tmp_path / "p.onnx", output=pose),
        "keypoints",
        "yolo_pose",
        classes="card",
        **{"keypoints.names": "a,b"},
    )
    found = load_dnn(card).infer(frame())
    assert found.xy[0].tolist() == [[6, 8], [10, 12]]
    assert found.keypoint_confidence.tolist() == [[1, 1]]
    with pytest.raises(DnnError, match=r"correct head.name, head.outputs, keypoints.names or classes"):
        imported(tmp_path / "p.onnx", "keypoints", "yolo_pose", **{"keypoints.names": "a,b,c"})
    rows = np.array([[[16, 8, 8, 8, 0.9, 1]]], np.float32)
    model = fixed(tmp_path / "s.onnx", output=rows, prototypes=np.ones((1, 1, 8, 8), np.float32))
    masks = load_dnn(imported(model, "instances", "yolo_seg", classes="card")).infer(frame())
    assert masks.mask[0].sum() == 16 * 16


def test_outputs_of_usual_names_are_put_in_order(tmp_path):
    points = np.array([[[3, 4, 1]], [[5, 6, 1]]], np.float32)
    model = fixed(
        tmp_path / "n.onnx",
        boxes=BOXES,
        labels=np.array([1, 1]),
        scores=FOUND,
        keypoints=points,
        keypoints_scores=points[..., 2],
    )
    parameters = {"head__parameters__first_label": "1", "classes": "person", "keypoints.names": "nose"}
    found = load_dnn(imported(model, "keypoints", "final_keypoints", **parameters)).infer(frame())
    assert found.xy.tolist() == [[[6, 8]], [[10, 12]]]
    found = load_dnn(imported(model, "detection", "final", **parameters)).infer(frame())
    assert found.confidence == pytest.approx(FOUND)


@pytest.mark.parametrize("names", ["det_{}", "nmsed_{}"])
def test_a_suppression_like_that_of_tensorrt_is_known_by_its_names(tmp_path, names):
    outputs = {"boxes": BOXES[None], "scores": FOUND[None], "classes": np.array([[2, 1]])}
    outputs = {names.format(name): array for name, array in outputs.items()}
    model = fixed(tmp_path / "n.onnx", num_dets=np.array([[2]]), **outputs)
    found = load_dnn(imported(model, "detection", "final")).infer(frame())
    assert found.class_id.tolist() == [2, 1]
    assert found.confidence == pytest.approx(FOUND)


def test_tensorflow_is_known_by_its_names(tmp_path):
    model = fixed(
        tmp_path / "n.onnx",
        **{
            "detection_boxes": BOXES[None][..., [1, 0, 3, 2]] / SIZE_PX,
            "detection_classes": np.float32([[2, 1]]),
            "detection_scores:0": FOUND[None],
            "num_detections": np.float32([2]),
        },
    )
    found = load_dnn(imported(model, "detection", "final")).infer(frame())
    assert found.xyxy.tolist()[0] == [8, 8, 40, 40]
    assert found.class_id.tolist() == [1, 0]


def test_eighty_classes_from_one_on_are_doubted(tmp_path):
    model = fixed(tmp_path / "n.onnx", boxes=BOXES[None], scores=FOUND[None], labels=np.array([[1, 2]]))
    answers = {**ANSWERS, "task": "detection", "head.name": "final", "head.parameters.first_label": "1"}
    for number, doubted in ((80, True), (90, False)):
        classes = ",".join(f"c{i}" for i in range(number))
        done = import_model(model, tmp_path, answers={**answers, "classes": classes}, replace=True)
        assert ("labels go to 90" in done.note) == doubted


def test_ninety_classes_from_nought_on_are_doubted(tmp_path):
    model = fixed(tmp_path / "n.onnx", boxes=BOXES[None], scores=FOUND[None], labels=np.array([[1, 2]]))
    answers = {**ANSWERS, "task": "detection", "head.name": "final"}
    answers["classes"] = ",".join(f"c{i}" for i in range(90))
    assert "say head.parameters.first_label = 1" in import_model(model, tmp_path, answers=answers).note
    answers["head.parameters.first_label"] = "1"
    assert "COCO" not in import_model(model, tmp_path, answers=answers, replace=True).note


def test_ssd_of_openvino(tmp_path):
    rows = np.zeros((1, 1, 200, 7), np.float32)
    rows[0, 0, :2] = [[0, 2, 0.9, 0.25, 0.25, 0.5, 1], [0, 1, 0.8, 0, 0, 0.25, 0.5]]
    rows[0, 0, 2, 0] = -1
    more = {"columns": "batch,class,score,x1,y1,x2,y2", "units": "fractions", "first_label": "1"}
    more = {f"head__parameters__{name}": value for name, value in more.items()}
    dnn = load_dnn(imported(fixed(tmp_path / "n.onnx", output=rows), "detection", "end2end", **more))
    for found in dnn.infer_many([frame(64, 64)] * 2):
        assert found.xyxy.tolist() == [[16, 16, 32, 64], [0, 0, 16, 32]]
        assert found.class_id.tolist() == [1, 0]


def test_end_to_end_keypoints_without_visibilities(tmp_path):
    rows = np.float32([[[8, 8, 24, 24, 0.9, 0, 10, 12, 20, 22]]])
    more = {"classes": "person", "keypoints.names": "head,foot"}
    found = load_dnn(imported(fixed(tmp_path / "n.onnx", output=rows), "keypoints", "end2end_pose", **more))
    people = found.infer(frame())
    assert people.xy.tolist() == [[[20, 24], [40, 44]]]
    assert people.keypoint_confidence.tolist() == [[1, 1]]


def test_rf_detr_with_four_classes(tmp_path):
    logits = np.full((1, 2, 4), -9, np.float32)
    logits[0, 0, 3] = logits[0, 1, 0] = 2
    model = fixed(
        tmp_path / "n.onnx", dets=np.float32([[[0.5, 0.5, 1, 1], [0.25, 0.25, 0.5, 0.5]]]), labels=logits
    )
    found = load_dnn(imported(model, "detection", "detr", classes="a,b,c,d")).infer(frame())
    assert found.xyxy[:2].tolist() == [[0, 0, 64, 64], [0, 0, 32, 32]]
    assert found.class_id[:2].tolist() == [3, 0]


def test_no_object_and_labels_that_are_none_are_told(tmp_path):
    boxes = np.full((1, 5, 4), 0.5, np.float32)
    model = fixed(tmp_path / "d.onnx", logits=np.zeros((1, 5, 4), np.float32), boxes=boxes)
    with pytest.raises(DnnError, match=r"4 logits for 3 classes.*activation = 'softmax'"):
        imported(model, "detection", "detr")
    one_class = np.float32([[[16, 16, 8, 8, 0.9, 0.95], [8, 8, 4, 4, 0.01, 0.4]]])  # YOLOv5
    with pytest.raises(
        DnnError, match=r"labels such as 0\.95, which are no whole numbers: correct head.name"
    ):
        imported(fixed(tmp_path / "v5.onnx", output=one_class), "detection", "end2end", classes="a")
    found = load_dnn(imported(tmp_path / "v5.onnx", "detection", "yolo_objectness", classes="a")).infer(
        frame()
    )
    assert found.confidence[0] == pytest.approx(0.855)


def test_keypoints_of_rtmo(tmp_path):
    points = np.array([[[3, 4, 0.7]], [[5, 6, 0.2]]], np.float32)
    model = fixed(tmp_path / "n.onnx", dets=np.c_[BOXES, FOUND][None], keypoints=points[None])
    card = imported(model, "keypoints", "final_keypoints", classes="person", **{"keypoints.names": "nose"})
    found, findings = check_dnn(load_dnn(card), frame())
    assert found.detection_confidence == pytest.approx(FOUND)
    assert found.xy.tolist() == [[[6, 8]], [[10, 12]]]
    assert found.keypoint_confidence == pytest.approx(points[..., 2])
    assert "meaning" not in [finding.name for finding in findings]


@pytest.mark.parametrize("apart", [True, False])
def test_one_class_needs_no_labels(tmp_path, apart):
    outputs = {"b": BOXES, "s": FOUND} if apart else {"dets": np.c_[BOXES, FOUND]}
    model = fixed(tmp_path / "n.onnx", **{name: array[None] for name, array in outputs.items()})
    found, findings = check_dnn(load_dnn(imported(model, "detection", "final", classes="face")), frame())
    assert found.xyxy.tolist() == [[8, 8, 40, 40], [0, 0, 16, 16]]
    assert found.confidence == pytest.approx(FOUND)
    assert "meaning" not in [finding.name for finding in findings]
    with pytest.raises(DnnError, match="the head 'final' reads outputs of"):
        imported(model, "detection", "final", classes="face,plate")


def test_no_detections_and_no_batch_axis(tmp_path):
    shapes = {"b": (0, 4), "s": (0,)}
    outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | {
        "l": np.zeros(0, np.int64)
    }
    dnn = load_dnn(imported(fixed(tmp_path / "n.onnx", **outputs), "detection", "final"))
    assert [len(found) for found in dnn.infer_many([frame(), frame()])] == [0, 0]


def test_a_head_with_other_outputs_is_one_line(tmp_path):
    scalar = fixed(tmp_path / "n.onnx", o=np.float32(1))
    for head in ("yolo", "boxes", "final", "end2end", "rtdetr"):
        with pytest.raises(DnnError, match=f"the head '{head}' reads outputs of"):
            imported(scalar, "detection", head)


def brightness(path: Path, *, sigmoid: bool, keep_channel=True) -> Path:
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["g"], axes=[1], keepdims=int(keep_channel)),
        helper.make_node("Sub", ["g", "middle"], ["d"]),
        helper.make_node("Mul", ["d", "slope"], ["mask" if not sigmoid else "logit"]),
    ]
    if sigmoid:
        nodes.append(helper.make_node("Sigmoid", ["logit"], ["mask"]))
    shape = ["batch", 1, SIZE_PX, SIZE_PX] if keep_channel else ["batch", SIZE_PX, SIZE_PX]
    return write(path, nodes, [value("mask", shape)], {"middle": np.float32(0.5), "slope": np.float32(8)})


@pytest.mark.parametrize("keep_channel", [True, False])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_one_channel_tells_two_classes_apart(tmp_path, sigmoid, keep_channel):
    model = brightness(tmp_path / "b.onnx", sigmoid=sigmoid, keep_channel=keep_channel)
    more = {} if sigmoid else {"head__parameters__activation": "sigmoid"}
    dnn = load_dnn(imported(model, "segmentation", "binary", classes="dark,bright", **more))
    classes = dnn.infer(half_bright())
    assert (classes[:, : SIZE_PX // 2] == 0).all()
    assert (classes[:, SIZE_PX // 2 :] == 1).all()
    _, findings = check_dnn(dnn, half_bright())
    assert all(finding.ok for finding in findings), findings


def test_one_channel_and_another_head_is_refused(tmp_path):
    model = brightness(tmp_path / "b.onnx", sigmoid=True)
    with pytest.raises(CardError, match=r"'logits' with one class .* head.name = 'binary' and two classes"):
        imported(model, "segmentation", "logits", classes="bright")
    with pytest.raises(DnnError, match=r"the network gave one: say head.name = 'binary'"):
        imported(model, "segmentation", "logits", classes="dark,bright")
    with pytest.raises(CardError, match="'binary' tells two classes apart"):
        imported(model, "segmentation", "binary", classes="bright")
    logit = brightness(tmp_path / "l.onnx", sigmoid=False)
    with pytest.raises(DnnError, match=r"activation = 'sigmoid'"):
        load_dnn(imported(logit, "segmentation", "binary", classes="dark,bright")).infer(half_bright())


@pytest.mark.parametrize("keepdims", [0, 1])
def test_finished_class_maps(tmp_path, keepdims):
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    shape = ["batch", 1, SIZE_PX, SIZE_PX] if keepdims else ["batch", SIZE_PX, SIZE_PX]
    model = write(
        tmp_path / "m.onnx",
        [
            helper.make_node("Conv", ["images", "w"], ["logits"]),
            helper.make_node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=keepdims),
        ],
        [value("classes", shape, TensorProto.INT64)],
        {"w": weights},
    )
    dnn = load_dnn(imported(model, "segmentation", "class_map"))
    shown = frame(SIZE_PX, SIZE_PX)
    rgb = shown.to_ndarray(format="rgb24").astype(np.float32) / 255
    expected = np.einsum("kc,hwc->hwk", weights[..., 0, 0], rgb).argmax(axis=2)
    first, second = dnn.infer_many([shown, shown])
    assert (first == expected).mean() > 0.98
    assert (first == second).all()
    with pytest.raises(NoGradientError, match=r"finished classes.*without the argmax.*black-box"):
        dnn.differentiable()
    _, findings = check_dnn(dnn, shown)
    assert [f.ok for f in findings] == [True, False]
    with pytest.raises(DnnError, match="whole numbers from 0 to 1"):
        load_dnn(imported(model, "segmentation", "class_map", classes="a,b")).infer(shown)


@pytest.mark.parametrize("head", ["binary", "class_map"])
def test_one_channel_that_comes_last(tmp_path, head):
    mask = np.zeros((1, 8, 16, 1), np.float32)
    mask[:, 4:] = 1
    model = fixed(tmp_path / "m.onnx", mask=mask)
    found = load_dnn(imported(model, "segmentation", head, classes="x,y")).infer(frame())
    assert found.shape == (8, 16)
    assert found[:, 0].tolist() == [0] * 4 + [1] * 4
    if head == "binary":
        with pytest.raises(DnnError, match="export masks of 0 to 255 divided by 255"):
            imported(fixed(tmp_path / "m.onnx", mask=255 * mask), "segmentation", head, classes="x,y")


def test_more_than_255_classes(tmp_path):
    many = 300
    logits = np.zeros((1, many, 4, 4), np.float32)
    logits[0, 299, :2], logits[0, 256, 2:] = 5, 5
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class-{i}" for i in range(many)))
    dnn = load_dnn(
        imported(fixed(tmp_path / "m.onnx", o=logits), "segmentation", "logits", classes=str(names))
    )
    classes = dnn.infer(frame())
    assert classes.dtype == np.uint16
    assert (classes[:2] == 299).all()
    assert (classes[2:] == 256).all()
    accuracy = dnn.task.clip_accuracy([classes], [classes])
    assert (accuracy.value, accuracy.extras["iou_299"]) == (1, 1)
    assert dnn.task.frame_accuracy(np.where(classes == 299, 43, 0).astype(np.uint16), classes) == 0
