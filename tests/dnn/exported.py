"""Small networks as exporters write them, and their cards."""

from pathlib import Path

import numpy as np
import onnx
from av import VideoFrame
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.importer import import_model

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


def fixed(path: Path, batch="batch", **outputs) -> Path:
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
    inputs = [picture_input(shape=(batch, 3, SIZE_PX, SIZE_PX))]
    return write(path, nodes, infos, constants, inputs=inputs)


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
