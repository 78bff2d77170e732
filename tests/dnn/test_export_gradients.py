"""The gradient of ONNX files as exporters write them: operators and weights, converted or refused."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.check import check_dnn
from accmpeg.errors import NoGradientError
from tests.dnn.exported import (
    FLOAT,
    SIZE_PX,
    frame,
    imported,
    picture_input,
    value,
    write,
)

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


def test_a_network_whose_weights_alone_are_quantised_names_its_float_one(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["weights"]),
        helper.make_node("Conv", ["images", "weights"], ["output"]),
    ]
    constants = {"scale": np.float32(0.1), "w": np.arange(9, dtype=np.int8).reshape(3, 3, 1, 1)}
    outputs = [value("output", ["batch", 3, SIZE_PX, SIZE_PX])]
    card = imported(write(tmp_path / "n.onnx", nodes, outputs, constants), "segmentation", "logits")
    with pytest.raises(NoGradientError, match=r"is quantised.*card of the float network"):
        load_dnn(card).differentiable()


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
