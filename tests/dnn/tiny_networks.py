"""Networks of a few weights, written as ONNX, for tests that need no real one."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, KeypointCard, write_card
from accmpeg.dnn.weights import sha256_of

CLASSES = ["person", "car"]


def write_network(
    path: Path,
    rows: int,
    *,
    height="height",
    width="width",
    batch="batch",
    name="images",
    weight: float | None = None,
) -> Path:
    """One convolution of stride 8 to `rows` values per cell, as `(batch, rows, cells)` through a sigmoid.

    Its weights are random, or all the same `weight`.
    """
    weights = np.random.default_rng(0).normal(0, 0.05, (rows, 3, 8, 8)).astype(np.float32)
    if weight is not None:
        weights.fill(weight)
    return _save(
        path,
        [
            helper.make_node("Conv", [name, "weights"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Sigmoid", ["cells"], ["squashed"]),
            helper.make_node("Reshape", ["squashed", "shape"], ["output"]),
        ],
        {"weights": weights, "shape": np.array([0, rows, -1], np.int64)},
        {name: [batch, 3, height, width]},
        {"output": [batch, rows, "cells"]},
    )


def write_logits_network(path: Path, classes: int, *, bias: float = 0.0) -> Path:
    """A pointwise convolution from pixels to class logits of the same resolution."""
    weights = np.random.default_rng(1).normal(0, 1, (classes, 3, 1, 1)).astype(np.float32)
    return _save(
        path,
        [helper.make_node("Conv", ["image", "weights", "bias"], ["logits"], kernel_shape=[1, 1])],
        {"weights": weights, "bias": np.full(classes, bias, np.float32)},
        {"image": ["batch", 3, 48, 64]},
        {"logits": ["batch", classes, 48, 64]},
    )


def write_tiny_card(network: Path, task: str = "detection", head: str = "yolo", **changes) -> Path:
    """A card for one of these networks, beside it; `changes` replace its keys (`input__colour="bgr"`)."""
    sections = {"input": {}, "head": {}, "": {}}
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        sections[section][name] = value
    card = DnnCard(
        **{
            "name": network.stem,
            "task": task,
            "adapter": "onnx",
            "model": network.name,
            "sha256": sha256_of(network),
            "classes": CLASSES,
            "nms_iou": 0.5,
            "keypoints": KeypointCard(names=["head", "foot"]) if task == "keypoints" else None,
            "input": InputCard(
                **{
                    "name": "image" if task == "segmentation" else "images",
                    "width_px": 64,
                    "height_px": 48 if task == "segmentation" else 64,
                    "size_multiple": None if task == "segmentation" else 16,
                    **sections["input"],
                }
            ),
            "head": HeadCard(**{"name": head, **sections["head"]}),
            **sections[""],
        }
    )
    path = network.with_name(f"{network.stem}.card.toml")
    write_card(card, path)
    return path


def _save(path, nodes, constants, inputs, outputs) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
        [numpy_helper.from_array(array, n) for n, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path
