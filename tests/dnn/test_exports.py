"""ONNX files as exporters write them: kinds of inputs and files, read or refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from accmpeg.dnn.base import load_dnn
from accmpeg.dnn.card import read_card
from accmpeg.dnn.check import check_dnn
from accmpeg.dnn.importer import import_model
from accmpeg.errors import AccmpegError, DnnError, WeightsError
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
        (TensorProto.INT32, np.float32, {"cast": True, "nhwc": True}),
    ],
    ids=["float32", "float16", "NHWC", "float16 NHWC", "uint8", "uint8 NHWC", "int32 NHWC"],
)
def test_kinds_of_inputs(tmp_path, kind, array_type, options):
    plain = load_dnn(
        imported(convolution(tmp_path / "plain.onnx", FLOAT, np.float32), "segmentation", "logits")
    )
    more = {"input.mean": "0,0,0", "input.std": "1,1,1"} if options.get("cast") else {}
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


@pytest.mark.parametrize(("batch", "mask", "size"), [("n", None, "im_shape"), (2, (64, 64), "image_shape")])
def test_what_networks_ask_for_beside_the_pictures_is_answered(tmp_path, batch, mask, size):
    """As PaddleDetection and YOLOv3 scale their boxes back, and with the mask of Hugging Face's DETR."""
    width_px, height_px = 48, SIZE_PX
    model = write(
        tmp_path / "n.onnx",
        [
            helper.make_node("Div", [size, "scale_factor"], ["sizes"]),
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
            value(size, [batch, 2]),
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
