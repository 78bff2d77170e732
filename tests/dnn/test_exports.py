"""ONNX files as exporters write them: kinds of outputs, inputs, operators and weights, read or refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from av import VideoFrame
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.errors import AccmpegError, CardError, DnnError, NoGradientError, WeightsError

ANSWERS = {
    "input.colour": "rgb",
    "input.mean": "0,0,0",
    "input.std": "255,255,255",
    "input.letterbox": "stretch",
    "score_threshold": "0.25",
    "nms_iou": "none",
    "classes": "a,b,c",
}
SIZE_PX = 32
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def picture_input(kind=FLOAT, shape=("batch", 3, SIZE_PX, SIZE_PX)):
    return value("images", list(shape), kind)


def write(path: Path, nodes, outputs, constants=None, *, inputs=None, opset=17) -> Path:
    graph = helper.make_graph(
        nodes,
        "exported",
        [picture_input()] if inputs is None else inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, str(path))
    return path


def fixed(path: Path, **outputs) -> Path:
    """A network that gives these arrays, each plus nothing times the picture: the gradient is zero."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["m"], axes=[0, 1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["m", "zero"], ["nothing"]))
    constants = {"zero": np.float32(0)}
    infos = []
    for name, array in outputs.items():
        array = np.asarray(array)
        constants[f"{name}_value"] = array.astype(np.float32)
        target = name if array.dtype.kind == "f" else f"{name}_float"
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [target]))
        if array.dtype.kind != "f":
            nodes.append(helper.make_node("Cast", [target], [name], to=TensorProto.INT64))
        infos.append(value(name, array.shape, FLOAT if array.dtype.kind == "f" else TensorProto.INT64))
    return write(path, nodes, infos, constants)


def imported(model: Path, task: str, head: str, **more):
    answers = {
        **ANSWERS,
        "task": task,
        "head.name": head,
        **{k.replace("__", "."): v for k, v in more.items()},
    }
    return import_model(model, model.parent, answers=answers, replace=True).card


def frame(width=64, height=64, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")


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


def convolution(path: Path, kind, array_type, *, nhwc=False, cast=False) -> Path:
    nodes, seen = [], "images"
    if cast:
        nodes.append(helper.make_node("Cast", [seen], ["cast"], to=FLOAT))
        seen = "cast"
    if nhwc:
        nodes.append(helper.make_node("Transpose", [seen], ["planes"], perm=[0, 3, 1, 2]))
        seen = "planes"
    nodes.append(helper.make_node("Conv", [seen, "w"], ["logits"], pads=[1, 1, 1, 1]))
    weights = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(array_type)
    shape = ["batch", SIZE_PX, SIZE_PX, 3] if nhwc else ["batch", 3, SIZE_PX, SIZE_PX]
    out_kind = HALF if array_type == np.float16 else FLOAT
    return write(
        path,
        nodes,
        [value("logits", ["batch", 3, SIZE_PX, SIZE_PX], out_kind)],
        {"w": weights},
        inputs=[picture_input(kind, shape)],
    )


@pytest.mark.parametrize(
    ("kind", "array_type", "options"),
    [
        (FLOAT, np.float32, {}),
        (HALF, np.float16, {}),
        (FLOAT, np.float32, {"nhwc": True}),
        (HALF, np.float16, {"nhwc": True}),
        (TensorProto.UINT8, np.float32, {"cast": True}),
        (TensorProto.UINT8, np.float32, {"cast": True, "nhwc": True}),
    ],
    ids=["float32", "float16", "NHWC", "float16 NHWC", "uint8", "uint8 NHWC"],
)
def test_kinds_of_inputs(tmp_path, kind, array_type, options):
    plain = load_dnn(
        imported(convolution(tmp_path / "plain.onnx", FLOAT, np.float32), "segmentation", "logits")
    )
    more = {"input.mean": "0,0,0", "input.std": "1,1,1"} if kind == TensorProto.UINT8 else {}
    model = convolution(tmp_path / "n.onnx", kind, array_type, **options)
    card = imported(model, "segmentation", "logits", **more)
    assert read_card(card).input.layout == ("NHWC" if options.get("nhwc") else "NCHW")
    dnn = load_dnn(card)
    classes, findings = check_dnn(dnn, frame())
    assert all(finding.ok for finding in findings), findings
    assert (classes == plain.infer(frame())).mean() > 0.97


def test_a_uint8_network_normalises_itself(tmp_path):
    model = convolution(tmp_path / "n.onnx", TensorProto.UINT8, np.float32, cast=True)
    with pytest.raises(DnnError, match=r"input.mean = 0,0,0 and input.std = 1,1,1"):
        imported(model, "segmentation", "logits")
    unsaid = {k: v for k, v in ANSWERS.items() if k not in ("input.mean", "input.std")}
    answers = unsaid | {"task": "segmentation", "head.name": "logits"}
    card = import_model(model, tmp_path, answers=answers).card
    assert read_card(card).input.std == (1, 1, 1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "has no input.*export the network with the picture as an argument"),
        ([value("images", [3])], r"reads \[3\], not pictures of"),
        ([value("images", ["n", 1, 8, 8])], "not pictures of.*export the network with a batch of RGB"),
        ([value("images", ["n", 3, 8, 8], TensorProto.INT64)], "float32, float16 or uint8 input"),
        (
            [value("images", ["n", 3, 8, 8]), value("orig_target_sizes", ["n", 2])],
            "has 2 inputs.*orig_target",
        ),
    ],
    ids=["none", "1-D", "grey", "int64", "two"],
)
def test_inputs_that_are_no_picture_are_refused_with_a_way_out(tmp_path, inputs, message):
    nodes = [helper.make_node("Identity", [entry.name], [f"o{i}"]) for i, entry in enumerate(inputs)]
    outputs = [value(f"o{i}", None, entry.type.tensor_type.elem_type) for i, entry in enumerate(inputs)]
    if not inputs:
        nodes, outputs = [helper.make_node("Identity", ["c"], ["o"])], [value("o", [1])]
    model = write(tmp_path / "n.onnx", nodes, outputs, {"c": np.zeros(1, np.float32)}, inputs=inputs)
    with pytest.raises(DnnError, match=message) as caught:
        imported(model, "detection", "yolo")
    assert "\n" not in str(caught.value)


def test_a_fixed_batch_is_filled_up(tmp_path):
    nodes = [helper.make_node("Conv", ["images", "w"], ["logits"])]
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    results = []
    for batch in ("batch", 4):
        model = write(
            tmp_path / f"{batch}.onnx",
            nodes,
            [value("logits", [batch, 3, SIZE_PX, SIZE_PX])],
            {"w": weights},
            inputs=[picture_input(shape=(batch, 3, SIZE_PX, SIZE_PX))],
        )
        dnn = load_dnn(imported(model, "segmentation", "logits"))
        results.append(dnn.infer_many([frame(seed=i) for i in range(6)]))
        assert all(finding.ok for finding in check_dnn(dnn, frame())[1])
    assert all((a == b).all() for a, b in zip(*results, strict=True))


# One node each, in the form that opset 18 or later gives it; x is (batch, 3, 32, 32).
NEW_OPERATORS = {
    "AveragePool": (19, ["x"], {}, {"kernel_shape": [3, 3], "pads": [1] * 4, "dilations": [1, 1]}),
    "Resize": (19, ["x", "", "scales"], {"scales": np.float32([1, 1, 2, 2])}, {"mode": "linear"}),
    "Resize sizes": (
        18,
        ["x", "", "", "sizes"],
        {"sizes": np.int64([1, 3, 16, 16])},
        {"mode": "linear", "antialias": 0, "keep_aspect_ratio_policy": "stretch"},
    ),
    "Split": (18, ["x"], {}, {"axis": 2, "num_outputs": 3}),
    "Pad": (21, ["x", "p", "", "a"], {"p": np.int64([1, 2]), "a": np.int64([3])}, {"mode": "edge"}),
    "ReduceMean": (18, ["x", "a"], {"a": np.int64([-1])}, {}),
    "ReduceMax": (20, ["x", "a"], {"a": np.int64([2])}, {}),
    "ReduceL2": (18, ["x", "a"], {"a": np.int64([2, 3])}, {}),
    "ReduceSumSquare": (18, ["x"], {}, {"noop_with_empty_axes": 0}),
    "ReduceMin": (18, ["x"], {}, {"noop_with_empty_axes": 1}),
    "Gelu": (20, ["x"], {}, {}),
    "Gelu tanh": (20, ["x"], {}, {"approximate": "tanh"}),
    "Mish": (22, ["x"], {}, {}),
    "HardSwish": (22, ["x"], {}, {}),
    "Swish": (24, ["x"], {}, {"alpha": 1.5}),
    "GroupNormalization": (21, ["x", "g", "g"], {"g": np.ones(3, np.float32)}, {"num_groups": 3}),
    "Cast": (23, ["x"], {}, {"to": FLOAT, "saturate": 1}),
    "MaxPool": (22, ["x"], {}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "Transpose": (23, ["x"], {}, {"perm": [0, 1, 3, 2]}),
    "Conv": (22, ["x", "k"], {"k": np.ones((3, 3, 1, 1), np.float32)}, {}),
    "GridSample": (20, ["x", "grid"], {"grid": np.zeros((1, 32, 32, 2), np.float32)}, {"mode": "linear"}),
}


@pytest.mark.parametrize("case", NEW_OPERATORS)
def test_operators_of_opset_18_and_later_have_a_gradient(tmp_path, case):
    opset, inputs, constants, attributes = NEW_OPERATORS[case]
    parts = attributes.get("num_outputs", 1)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["x"]),
        helper.make_node(case.split()[0], inputs, [f"y{i}" for i in range(parts)], **attributes),
        # Whatever shape comes out, three rows of it are candidates of a detector.
        helper.make_node("Reshape", [f"y{parts - 1}", "rows"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "last"], ["sums"], keepdims=1),
        helper.make_node("Mul", ["sums", "spread"], ["spreaded"]),
        helper.make_node("Sigmoid", ["spreaded"], ["output"]),
    ]
    weights = np.random.default_rng(3).normal(0, 0.5, (3, 3, 1, 1)).astype(np.float32)
    constants = {
        **constants,
        "w": weights,
        "rows": np.int64([1, 1, -1]),
        "last": np.int64([2]),
        "spread": np.linspace(0.0005, 0.002, 7, dtype=np.float32).reshape(1, 7, 1),
    }
    model = write(
        tmp_path / "n.onnx",
        nodes,
        [value("output", [1, 7, 1])],
        constants,
        inputs=[picture_input(shape=(1, 3, SIZE_PX, SIZE_PX))],
        opset=opset,
    )
    dnn = load_dnn(imported(model, "detection", "yolo"))
    _, findings = check_dnn(dnn, frame())
    assert all(finding.ok for finding in findings), findings


@pytest.mark.parametrize(
    ("node", "opset", "message"),
    [
        (
            helper.make_node("Resize", ["images", "", "s"], ["output"], mode="linear", antialias=1),
            18,
            r"Resize \(with antialias\); for a gradient export it with opset 17, or as a \.pt2",
        ),
        (helper.make_node("LpPool", ["images"], ["output"], kernel_shape=[1, 1]), 18, r"LpPool; .*\.pt2"),
        (helper.make_node("LpPool", ["images"], ["output"], kernel_shape=[1, 1]), 17, r"LpPool; .*\.pt2"),
    ],
    ids=["newer form", "newer opset", "older opset"],
)
def test_operators_without_a_conversion_are_named(tmp_path, node, opset, message):
    shape = ["batch", 3, SIZE_PX, SIZE_PX]
    model = write(
        tmp_path / "n.onnx", [node], [value("output", shape)], {"s": np.ones(4, np.float32)}, opset=opset
    )
    dnn = load_dnn(imported(model, "segmentation", "logits"))
    assert dnn.infer(frame()).shape == (SIZE_PX, SIZE_PX)
    with pytest.raises(NoGradientError, match=message) as caught:
        dnn.differentiable()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opset", [18, 23])
def test_what_pytorch_exports_today_has_a_gradient(tmp_path, opset):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.norm = torch.nn.GroupNorm(2, 8)
            self.last = torch.nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, x):
            f = torch.nn.functional
            a, b = f.avg_pool2d(f.gelu(self.norm(self.first(x))), 2).chunk(2, dim=1)
            both = torch.cat([b, a * a.mean(dim=(2, 3), keepdim=True)], dim=1)
            return self.last(f.interpolate(both, scale_factor=2.0, mode="bilinear"))

    model = tmp_path / "n.onnx"
    pixels = torch.rand(1, 3, SIZE_PX, SIZE_PX)
    with pytest.warns() as _:
        torch.onnx.export(
            Network().eval(),
            (pixels,),
            str(model),
            input_names=["images"],
            output_names=["logits"],
            opset_version=opset,
            external_data=True,
            verbose=False,
        )
    dnn = load_dnn(imported(model, "segmentation", "logits"))
    _, findings = check_dnn(dnn, frame())
    assert all(finding.ok for finding in findings), findings


def test_weights_in_a_file_beside_are_part_of_the_hash(tmp_path):
    model = convolution(tmp_path / "n.onnx", FLOAT, np.float32)
    plain = read_card(imported(model, "segmentation", "logits")).sha256
    onnx.save(
        onnx.load(model), str(model), save_as_external_data=True, location="n.onnx.data", size_threshold=0
    )
    card = imported(model, "segmentation", "logits")
    assert read_card(card).sha256 != plain
    load_dnn(card)
    data = tmp_path / "n.onnx.data"
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    with pytest.raises(WeightsError, match=r"n\.onnx with n\.onnx\.data is not the file.*import them again"):
        load_dnn(card)
    data.unlink()
    with pytest.raises(WeightsError, match=r"n\.onnx\.data \(No such file.*n\.onnx needs it there"):
        load_dnn(card)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", json.dumps({}).encode()])
def test_what_is_no_onnx_file_is_refused_and_no_crash(tmp_path, content):
    model = tmp_path / "n.onnx"
    model.write_bytes(content)
    with pytest.raises(AccmpegError, match="can't be opened as an ONNX network"):
        imported(model, "detection", "yolo")
