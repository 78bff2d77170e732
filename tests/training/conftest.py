"""Small server DNNs with known weights, made on the spot, and cards for real ones."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accmpeg.dnn.card import DnnCard, HeadCard, InputCard, write_card
from accmpeg.dnn.weights import sha256_of
from accmpeg.media.frames import plane_view
from tests.training.accmodels import labels, trained, unseen_labels

__all__ = ["labels", "trained", "unseen_labels"]

INPUT_PX = 64
CELL_PX = 16

FrameMaker = Callable[..., av.VideoFrame]
PictureWriter = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # On networks this small, threads only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture
def textured() -> FrameMaker:
    """Frames of smooth random texture, which codecs change at coarse quality."""

    def make(width_px: int = 96, height_px: int = 64, seed: int = 0) -> av.VideoFrame:
        random = np.random.default_rng(seed)
        frame = av.VideoFrame(width_px, height_px, "yuv420p")
        for index in range(3):
            view = plane_view(frame, index)
            rows, cols = (np.arange(size)[:, None] for size in view.shape)
            waves = np.sin(rows / 3 + random.random()) @ np.ones((1, view.shape[1])) + np.sin(cols / 2.3).T
            view[:] = np.clip(128 + 25 * waves + random.normal(0, 12, view.shape), 16, 235)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        return frame

    return make


@pytest.fixture
def write_picture(textured: FrameMaker) -> PictureWriter:
    def write(path: Path, seed: int = 0, width_px: int = 96, height_px: int = 64) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        textured(width_px, height_px, seed).to_image().save(path)
        return path

    return write


@pytest.fixture
def segmenter_card(tmp_path: Path) -> Path:
    """Two classes by brightness: logits ±(mean of the colours − 0.5) · 20 at each pixel."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0], weight[1] = 20 / 3, -20 / 3
    bias = np.asarray([-10, 10], np.float32)
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])]
    return _card(tmp_path, "segmenter", "segmentation", "logits", nodes, {"weight": weight, "bias": bias})


@pytest.fixture
def detector_card(tmp_path: Path) -> Path:
    """One candidate per 16×16 px cell of its input, whose score falls with the cell's mean brightness."""
    cells = INPUT_PX // CELL_PX
    centres = (np.stack(np.meshgrid(np.arange(cells), np.arange(cells)))[::1] + 0.5) * CELL_PX
    boxes = np.concatenate((centres.reshape(2, -1), np.full((2, cells * cells), CELL_PX)))[None].astype(
        np.float32
    )
    weight = np.full((1, 3, CELL_PX, CELL_PX), -20 / (3 * CELL_PX**2), np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["means"], strides=[CELL_PX, CELL_PX]),
        helper.make_node("Sigmoid", ["means"], ["probabilities"]),
        helper.make_node("Reshape", ["probabilities", "shape"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["rows"], axis=1),
    ]
    constants = {
        "weight": weight,
        "bias": np.asarray([9.5], np.float32),
        "shape": np.asarray([1, 1, cells * cells], np.int64),
        "boxes": boxes,
    }
    return _card(tmp_path, "detector", "detection", "yolo", nodes, constants, nms_iou=0.45)


@pytest.fixture
def class_map_card(tmp_path: Path) -> Path:
    """The brighter half of the colours, already as class numbers: no gradient."""
    weight = np.asarray([1, -1], np.float32).reshape(2, 1, 1, 1).repeat(3, axis=1)
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=0),
    ]
    constants = {"weight": weight, "bias": np.asarray([-1.5, 1.5], np.float32)}
    return _card(tmp_path, "classes", "segmentation", "class_map", nodes, constants)


@pytest.fixture
def constant_card(tmp_path: Path) -> Path:
    """A segmenter that sees the first class everywhere, whatever the picture."""
    constants = {"weight": np.zeros((2, 3, 1, 1), np.float32), "bias": np.asarray([5, 0], np.float32)}
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])]
    return _card(tmp_path, "constant", "segmentation", "logits", nodes, constants)


@pytest.fixture
def nan_gradient_card(tmp_path: Path) -> Path:
    """A segmenter with finite outputs and a gradient of 0 · ∞: the square root of nothing."""
    constants = {"weight": np.ones((2, 3, 1, 1), np.float32), "nothing": np.zeros((), np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["sums"]),
        helper.make_node("Mul", ["sums", "nothing"], ["zero"]),
        helper.make_node("Sqrt", ["zero"], ["logits"]),
    ]
    return _card(tmp_path, "nan", "segmentation", "logits", nodes, constants)


def _card(
    folder: Path,
    name: str,
    task: str,
    head: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    nms_iou: float | None = None,
) -> Path:
    kind = TensorProto.INT64 if nodes[-1].op_type == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, INPUT_PX, INPUT_PX])],
        [helper.make_tensor_value_info(nodes[-1].output[0], kind, None)],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    weights = folder / f"{name}.onnx"
    onnx.save(model, weights)
    card = DnnCard(
        name=name,
        task=task,
        adapter="onnx",
        model=weights.name,
        sha256=sha256_of(weights),
        classes=["bright", "dark"] if task == "segmentation" else ["dark"],
        nms_iou=nms_iou,
        input=InputCard(name="image", width_px=INPUT_PX, height_px=INPUT_PX, letterbox="stretch"),
        head=HeadCard(name=head),
    )
    path = folder / f"{name}.card.toml"
    write_card(card, path)
    return path
