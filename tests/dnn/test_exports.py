"""ONNX files as exporters write them: kinds of inputs, operators and weights, read or refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.errors import AccmpegError, DnnError, NoGradientError, WeightsError
from tests.dnn.exported import (
    ANSWERS,
    FLOAT,
    HALF,
    SIZE_PX,
    fixed,
    frame,
    imported,
    picture_input,
    value,
    write,
)


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


def test_a_file_that_leaves_its_channels_open_is_what_the_card_says(tmp_path):
    model = onnx.load(convolution(tmp_path / "n.onnx", FLOAT, np.float32, nhwc=True))
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    onnx.save(model, tmp_path / "n.onnx")
    sizes = {f"input.{key}": str(SIZE_PX) for key in ("width_px", "height_px", "size_multiple")}
    more = {**sizes, "input.layout": "NHWC"}
    dnn = load_dnn(imported(tmp_path / "n.onnx", "segmentation", "logits", **more))
    assert dnn.infer(frame()).shape == (SIZE_PX, SIZE_PX)
    with pytest.raises(DnnError, match="failed on an input"):
        imported(tmp_path / "n.onnx", "segmentation", "logits", **{**more, "input.layout": "NCHW"})


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
        ([value("images", ["n", 2, 8, 8])], "not pictures of.*export the network with a batch of RGB"),
        ([value("images", ["n", 3, 8, 8], TensorProto.INT64)], "float32, float16 or uint8 input"),
        (
            [value("images", ["n", 3, 8, 8]), value("prompt", ["n", 2])],
            "has 2 inputs.*prompt",
        ),
    ],
    ids=["none", "1-D", "two channels", "int64", "two"],
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


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("nhwc", [False, True], ids=["NCHW", "NHWC"])
def test_a_grey_network_reads_the_luma(tmp_path, nhwc, colour):
    shape = ["n", SIZE_PX, SIZE_PX, 1] if nhwc else ["n", 1, SIZE_PX, SIZE_PX]
    nodes = [
        helper.make_node("Sub", ["images", "middle"], ["bright"]),
        helper.make_node("Neg", ["bright"], ["d"]),
    ]
    nodes.append(helper.make_node("Concat", ["d", "bright"], ["logits"], axis=3 if nhwc else 1))
    outputs = [value("logits", [each if each != 1 else 2 for each in shape])]
    model = write(
        tmp_path / "n.onnx", nodes, outputs, {"middle": np.float32(0.5)}, inputs=[value("images", shape)]
    )
    dnn = load_dnn(imported(model, "segmentation", "logits", classes="dark,bright", input__colour=colour))
    found, findings = check_dnn(dnn, frame(SIZE_PX, SIZE_PX))
    assert all(finding.ok for finding in findings), findings
    rgb = frame(SIZE_PX, SIZE_PX).reformat(format="rgb24").to_ndarray() / 255
    luma = rgb @ [0.299, 0.587, 0.114]
    clear = np.abs(luma - 0.5) > 0.02
    assert (found[clear] == (luma > 0.5)[clear]).all()


def test_a_network_without_a_batch_axis(tmp_path):
    """As Detectron2 and torchvision trace their networks of two stages."""
    inputs = [value("images", [3, SIZE_PX, SIZE_PX])]
    model = write(
        tmp_path / "n.onnx",
        [helper.make_node("Identity", ["images"], ["logits"])],
        [value("logits", [3, SIZE_PX, SIZE_PX])],
        inputs=inputs,
    )
    dnn = load_dnn(imported(model, "segmentation", "logits"))
    frames = [frame(SIZE_PX, SIZE_PX, seed) for seed in (0, 1)]
    for found, each in zip(dnn.infer_many(frames), frames, strict=True):
        assert (found == each.reformat(format="rgb24").to_ndarray().argmax(-1)).mean() > 0.9
    _, findings = check_dnn(dnn, frames[0])
    assert all(finding.ok for finding in findings), findings


@pytest.mark.parametrize(("batch", "mask"), [("n", None), (2, (64, 64))])
def test_what_networks_ask_for_beside_the_pictures_is_answered(tmp_path, batch, mask):
    """As PaddleDetection scales its boxes back, and with the mask of Hugging Face's DETR."""
    width_px, height_px = 48, SIZE_PX
    model = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("Div", ["im_shape", "scale_factor"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "order"], ["corners"], axis=1),
            helper.make_node("Mul", ["corners", "fractions"], ["scaled"]),
            helper.make_node("Cast", ["pixel_mask"], ["counted"], to=FLOAT),
            helper.make_node("ReduceMean", ["counted"], ["score"], axes=[1], keepdims=0),
            helper.make_node("ReduceMean", ["score"], ["scores"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["scores", "zero"], ["labels"]),
            helper.make_node("Concat", ["labels", "scores", "scaled"], ["row"], axis=1),
            helper.make_node("Unsqueeze", ["row", "axis"], ["found"]),
        ],
        [value("found", [batch, 1, 6])],
        {
            "fractions": np.float32([0.25, 0.5, 0.75, 1]),
            "order": np.int64([1, 0, 1, 0]),
            "axis": np.int64([1]),
            "zero": np.float32(0),
        },
        inputs=[
            value("im_shape", [batch, 2]),
            picture_input(shape=(batch, 3, height_px, width_px)),
            value("scale_factor", [batch, 2]),
            value("pixel_mask", [batch, *(mask or ("height", "width"))], TensorProto.INT64),
        ],
    )
    columns = {"head__parameters__columns": "class,score,x1,y1,x2,y2"}
    dnn = load_dnn(imported(model, "detection", "end2end", **columns))
    for found in dnn.infer_many([frame(200, 100)] * 3):
        assert found.xyxy.tolist() == [[50, 50, 150, 100]]
        assert found.confidence.tolist() == [1]
    assert dnn.differentiable()(torch.zeros(3, 100, 200)).boxes_xyxy.tolist() == [[50, 50, 150, 100]]


@pytest.mark.parametrize("batch", ["n", 2])
def test_a_network_that_asks_for_the_size_of_its_boxes(tmp_path, batch):
    """As D-FINE exports: boxes are fractions times the size that it is told."""
    width_px, height_px = 48, SIZE_PX
    model = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("ReduceMax", ["images"], ["most"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["most"], ["scores"], axes=[1], keepdims=1),
            helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=FLOAT),
            helper.make_node("Concat", ["sizes", "sizes"], ["corners"], axis=1),
            helper.make_node("Mul", ["corners", "fractions"], ["scaled"]),
            helper.make_node("Unsqueeze", ["scaled", "axis"], ["boxes"]),
            helper.make_node("Mul", ["scores", "zero"], ["none"]),
            helper.make_node("Cast", ["none"], ["labels"], to=TensorProto.INT64),
        ],
        [
            value("labels", [batch, 1], TensorProto.INT64),
            value("boxes", [batch, 1, 4]),
            value("scores", [batch, 1]),
        ],
        {"fractions": np.float32([0.25, 0.5, 0.75, 1]), "axis": np.int64([1]), "zero": np.float32(0)},
        inputs=[
            picture_input(shape=(batch, 3, height_px, width_px)),
            value("orig_target_sizes", [batch, 2], TensorProto.INT64),
        ],
    )
    dnn = load_dnn(imported(model, "detection", "final"))
    for found in dnn.infer_many([frame(200, 100)] * 3):
        assert found.xyxy.tolist() == [[50, 50, 150, 100]]
    dense = dnn.differentiable()(torch.full((3, 100, 200), 204.0))
    assert dense.boxes_xyxy.tolist() == [[50, 50, 150, 100]]
    assert float(dense.scores[0, 0]) == pytest.approx(0.8)


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


def test_a_fixed_batch_whose_answer_has_no_batch_axis_is_refused(tmp_path):
    """Its first rows would be taken for those of the first picture."""
    rows = np.array([[4, 4, 20, 20, 0.9, 0], [0, 0, 8, 8, 0.8, 1], [8, 8, 30, 30, 0.7, 2]], np.float32)
    card = imported(fixed(tmp_path / "e.onnx", output0=rows), "detection", "end2end")
    assert len(load_dnn(card).infer(frame())) == 3
    with pytest.raises(DnnError, match=r"'output0' of f is \(3, 6\) for 4 pictures: export .* batch of 1"):
        imported(fixed(tmp_path / "f.onnx", batch=4, output0=rows), "detection", "end2end")


# One node each, in the form that opset 18 or later gives it, or that onnx2torch alone reads otherwise; x is
# (batch, 3, 32, 32).
OPERATORS = {
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
    "Clip without a least": (13, ["x", "", "most"], {"most": np.float32(0.2)}, {}),
    "CumSum": (14, ["x", "axis"], {"axis": np.int64(1)}, {}),
    "Conv": (22, ["x", "k"], {"k": np.ones((3, 3, 1, 1), np.float32)}, {}),
    "GridSample": (20, ["x", "grid"], {"grid": np.zeros((1, 32, 32, 2), np.float32)}, {"mode": "linear"}),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_operators_have_a_gradient(tmp_path, case):
    opset, inputs, constants, attributes = OPERATORS[case]
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
    dnn = load_dnn(imported(model, "detection", "yolo", head__parameters__units="fractions"))
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


def test_weights_that_are_no_initializers_have_a_gradient(tmp_path):
    """Shared ones come through an Identity, halves through a Cast, others from a Constant."""
    weights = np.random.default_rng(3).normal(0, 0.5, (3, 3, 1, 1)).astype(np.float32)
    bias = numpy_helper.from_array(np.float32([0.1, 0.2, 0.3]))
    nodes = [
        helper.make_node("Constant", [], ["bias"], value=bias),
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("Identity", ["again"], ["third"]),
        helper.make_node("Cast", ["half"], ["whole"], to=FLOAT),
        helper.make_node("Identity", ["axes"], ["same_axes"]),
        helper.make_node("Conv", ["images", "w", "bias"], ["x"]),
        helper.make_node("Conv", ["x", "third", "bias"], ["y"]),
        helper.make_node("Conv", ["y", "whole"], ["z"]),
        helper.make_node("ReduceMean", ["z", "same_axes"], ["mean"]),
        helper.make_node("Sub", ["z", "mean"], ["logits"]),
    ]
    constants = {"w": weights, "half": weights.astype(np.float16), "axes": np.int64([2, 3])}
    shape = ["batch", 3, SIZE_PX, SIZE_PX]
    model = write(tmp_path / "n.onnx", nodes, [value("logits", shape)], constants, opset=18)
    _, findings = check_dnn(load_dnn(imported(model, "segmentation", "logits")), frame())
    assert all(finding.ok for finding in findings), findings


def test_a_layer_is_normalised_whose_size_nothing_tells(tmp_path):
    nodes = [
        helper.make_node("Abs", ["dims"], ["computed"]),
        helper.make_node("Reshape", ["images", "computed"], ["rows"]),
        helper.make_node("LayerNormalization", ["rows", "scale", "bias"], ["normal"], axis=-1),
        helper.make_node("Reshape", ["normal", "back"], ["logits"]),
    ]
    constants = {
        "dims": np.int64([1, 3 * SIZE_PX, SIZE_PX]),
        "scale": np.linspace(1, 2, SIZE_PX, dtype=np.float32),
        "bias": np.linspace(0, 1, SIZE_PX, dtype=np.float32),
        "back": np.int64([1, 3, SIZE_PX, SIZE_PX]),
    }
    model = write(
        tmp_path / "n.onnx",
        nodes,
        [value("logits", [1, 3, SIZE_PX, SIZE_PX])],
        constants,
        inputs=[picture_input(shape=(1, 3, SIZE_PX, SIZE_PX))],
    )
    _, findings = check_dnn(load_dnn(imported(model, "segmentation", "logits")), frame())
    assert all(finding.ok for finding in findings), findings


def test_a_quantised_network_names_its_float_one_for_the_gradient(tmp_path):
    shape = ["batch", 3, SIZE_PX, SIZE_PX]
    scale = ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", *scale], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *scale], ["output"]),
    ]
    constants = {"scale": np.float32(1 / 255), "zero": np.uint8(0)}
    dnn = load_dnn(
        imported(
            write(tmp_path / "n.onnx", nodes, [value("output", shape)], constants), "segmentation", "logits"
        )
    )
    with pytest.raises(NoGradientError, match=r"is quantised.*card of the float network"):
        dnn.differentiable()


def test_indices_of_what_is_not_zero_are_the_same_in_pytorch(tmp_path):
    model = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("Sub", ["images", "middle"], ["d"]),
            helper.make_node("Relu", ["d"], ["bright"]),
            helper.make_node("NonZero", ["bright"], ["indices"]),
            helper.make_node("Cast", ["indices"], ["numbers"], to=FLOAT),
            helper.make_node("Transpose", ["numbers"], ["boxes"]),
            helper.make_node("ReduceMean", ["boxes"], ["means"], axes=[1], keepdims=0),
            helper.make_node("Sigmoid", ["means"], ["scores"]),
            helper.make_node("Cast", ["means"], ["labels"], to=TensorProto.INT64),
        ],
        [value("boxes", ["n", 4]), value("scores", ["n"]), value("labels", ["n"], TensorProto.INT64)],
        {"middle": np.float32(0.5)},
    )
    dnn = load_dnn(imported(model, "detection", "final"))
    pixels = np.random.default_rng(0).random((1, 3, SIZE_PX, SIZE_PX), np.float32)
    run, twin = dnn.network.run(pixels), dnn.network.differentiable("cpu")(torch.from_numpy(pixels))
    assert run[0].shape[1] == 4
    assert all((ours == theirs.numpy()).all() for ours, theirs in zip(run[::2], twin[::2], strict=True))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: setattr(model.opset_import[0], "version", 99),
            "its Opset 99 is newer .*: update onnxrun",
        ),
        (lambda model: setattr(model, "ir_version", 99), "its IR version 99 is newer .*: update onnxruntime"),
        (lambda model: setattr(model.graph.node[0], "domain", "trt"), "without operators of other programs"),
    ],
)
def test_what_this_runtime_does_not_know_is_refused_with_a_way_out(tmp_path, change, message):
    path = convolution(tmp_path / "n.onnx", FLOAT, np.float32)
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=message) as caught:
        imported(path, "segmentation", "logits")
    assert "/onnxruntime_src" not in str(caught.value)


def test_missing_weights_beside_the_file_are_named_on_import(tmp_path):
    path = convolution(tmp_path / "n.onnx", FLOAT, np.float32)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="n.data", size_threshold=0)
    (tmp_path / "n.data").unlink()
    with pytest.raises(
        WeightsError, match=r"weights are in n\.data, which is missing: put it beside n\.onnx"
    ):
        imported(path, "segmentation", "logits")


def test_a_pointer_in_place_of_the_file_is_told(tmp_path):
    path = tmp_path / "n.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(WeightsError, match="is no ONNX file, or cut off, or a pointer"):
        imported(path, "segmentation", "logits")
