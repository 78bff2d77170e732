"""Proving that a server DNN is read rightly: it runs, PyTorch agrees, and the gradient is usable."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import supervision as sv
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.dnn.base import ServerDnn
from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.heads import HEADS, get_head
from accmpeg.dnn.heads.base import sigmoid
from accmpeg.dnn.preprocess import InputGeometry, Preprocessor
from accmpeg.dnn.registry import get_adapter
from accmpeg.dnn.results import SCORE_FLOOR
from accmpeg.errors import NoGradientError
from accmpeg.tasks.base import Dense
from accmpeg.tasks.matching import iou_matrix

__all__ = ["Finding", "check_dnn", "largest_difference", "misread"]

MAX_DIFFERENCE = 1e-3
"""Largest allowed difference between runtime and PyTorch, as a share of the output's range."""
MAX_DIFFERENCE_HALF = 2e-2
"""The same for a network of half precision, which PyTorch computes in single precision."""

_SLACK = 1e-3
_SIGMOID_OF_1 = 0.7311
_DENSE = 1000
"""With more candidates than this a network has one for each place, rather than some queries."""
_TOGETHER = 0.2
"""Share of the picture."""
_CHOOSING = ("end2end", "final", "detr", "rtdetr")
"""Heads of networks that choose their candidates by score."""
_SAME_OBJECTS = 0.99
"""Accuracy of one answer against the other's."""
_NEARLY = 0.8
"""IoU of two boxes of one object."""
_ENOUGH, _ALL = 10, 0.99
"""Boxes that show how they are written, and the share of them that must."""
_BEYOND = ["beyond"] * 100
_NO_LABEL = 10**6
_INVERTED = 0.1
"""Of all sure boxes: networks that regress corners may swap a few."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    value: str
    ok: bool


def check_dnn(dnn: ServerDnn, frame: VideoFrame) -> tuple[Any, list[Finding]]:
    """Runs a server DNN on a frame; returns its result and what was found.

    Raises `DnnError` where it does not run at all.
    """
    dnn.infer(frame)
    started = time.perf_counter()
    result = dnn.infer(frame)
    took_ms = 1000 * (time.perf_counter() - started)
    findings = [Finding("runs", f"{took_ms:.1f} ms, {_summary(dnn, result)}", True)]
    wrong = misread(dnn, frame)
    findings += [] if wrong is None else [Finding("meaning", wrong, False)]
    try:
        findings += _check_gradient(dnn, frame, result)
    except NoGradientError as error:
        # A network elsewhere has none by nature, and is no worse for it.
        findings.append(Finding("gradient", str(error), not get_adapter(dnn.card.adapter).runs_here))
    return result, findings


def misread(dnn: ServerDnn, frame: VideoFrame) -> str | None:
    """What shows that the network gives other numbers than its head reads, with the way out; or None.

    Shapes alone don't tell fractions from pixels, corners from centres, or logits from probabilities.
    """
    if _counts_background(dnn.card):
        return (
            f"the class '{dnn.card.classes[0]}' would be given to objects: take it out of classes, and say "
            "head.parameters.first_label = 1 in the card"
        )
    dense = dnn.dense(frame)
    if _is_taken_twice(dnn.card, dense):
        return (
            "the network gives probabilities already, and their sigmoid or softmax was taken again: say "
            "head.parameters.activation = 'none' in the card"
        )
    if dense.logits is not None and _sum_to_one(dense.logits):
        return (
            "the logits are probabilities already: say head.parameters.activation = 'none' in the card, or "
            "export the network without its softmax"
        )
    if dense.scores is None or not dense.scores.size:
        return None
    best = dense.scores.max(axis=1)
    lowest, highest = float(dense.scores.min()), float(best.max())
    if lowest < -_SLACK or highest > 1 + _SLACK:
        return (
            f"scores from {lowest:.3g} to {highest:.3g} are no probabilities: export the network with its "
            "sigmoid or softmax, or correct head.name or head.parameters in the card"
        )
    if dense.keypoints is not None and np.abs(dense.keypoints[..., 2] - 0.5).max() > 0.5 + _SLACK:
        return "the keypoints' visibilities are no probabilities: export the network with their sigmoid"
    geometry = InputGeometry.of(dnn.card.input, *dense.frame_size_px)
    if _are_together(np.asarray(dense.boxes_xyxy)[best > 0], geometry):
        return (
            "the boxes of all candidates lie in one place: if they are fractions of the input, say "
            "head.parameters.units = 'fractions' in the card; for YOLOX without its decoding (head "
            "'yolo_objectness') say head.parameters.strides = [8, 16, 32]"
        )
    if _are_corners(dnn.card, np.asarray(dense.boxes_xyxy)[best > 0], geometry):
        return (
            "all boxes would reach as far as their centres are from the top left: they are corners, so say "
            "head.parameters.columns with x1,y1,x2,y2 in place of cx,cy,w,h in the card"
        )
    stray = _stray_label(dnn, frame)
    if stray is not None:
        return (
            f"there are objects of the label {stray}, which is that of no class: correct "
            "head.parameters.first_label, or name all classes in the card"
        )
    sure = best >= max(dnn.card.score_threshold, SCORE_FLOOR)
    boxes = np.asarray(dense.boxes_xyxy)[sure]
    if not len(boxes):
        return None
    width_px, height_px = dense.frame_size_px
    left, top, right, bottom = boxes.T
    if np.ptp(boxes[:, ::2]) * geometry.scale_x < 2 and np.ptp(boxes[:, 1::2]) * geometry.scale_y < 2:
        return (
            "all boxes lie within a pixel: they are fractions of the input, so say head.parameters.units = "
            "'fractions' in the card"
        )
    if np.mean((right < left) | (bottom < top)) > _INVERTED:
        return (
            "boxes end before they begin: they are no corners, so say head.parameters.columns = 'cx,cy,w,h' "
            "in the card, or another head.name"
        )
    middle_x, middle_y = np.median(left + right) / 2, np.median(top + bottom) / 2
    if not (-width_px < middle_x < 2 * width_px and -height_px < middle_y < 2 * height_px):
        return (
            "boxes lie far outside of the picture: if they are in pixels, say head.parameters.units = "
            "'pixels' in the card, else correct head.name"
        )
    if dnn.card.nms_iou is None and _are_repeated(boxes, np.asarray(dense.scores)[sure]):
        return "most objects are reported several times: say nms_iou = 0.45 in the card"
    return None


def _counts_background(card: DnnCard) -> bool:
    """Whether the first class is a background that has a score of its own, or the place of the label 1."""
    is_background = card.classes[0].strip("_? ").lower() in ("", "background")
    shifts = card.head.name == "boxes" or card.head.parameters.get("first_label") == 1
    return is_background and shifts


def _is_taken_twice(card: DnnCard, dense: Dense) -> bool:
    """Whether the head takes a sigmoid or softmax, and of nothing but numbers between 0 and 1."""
    usual = signature(HEADS[card.head.name].make).parameters.get("activation")
    activation = None if usual is None else card.head.parameters.get("activation", usual.default)
    if activation == "softmax" and dense.scores is not None and dense.scores.size:
        # Between those of all others being 1 less, and of itself being 1 more; sure ones come near that.
        powers = np.asarray(dense.scores) * (np.e + len(card.classes))
        return bool(powers.min() > 1 - _SLACK and 0.7 < powers.max() / np.e < 1 + _SLACK)
    if activation != "sigmoid":
        return False
    found = sigmoid(dense.logits[1]) if dense.logits is not None else np.asarray(dense.scores)
    # A plain picture may give one value everywhere, whatever it is.
    return bool(found.size and found.min() >= 0.5 and found.max() <= _SIGMOID_OF_1 and np.ptp(found) > _SLACK)


def _sum_to_one(logits: NDArray[Any]) -> bool:
    return bool(logits.min() >= 0 and np.abs(logits.sum(axis=0) - 1).max() < _SLACK)


def _stray_label(dnn: ServerDnn, frame: VideoFrame) -> int | None:
    """A label of sure objects that the card has no class for; None where there is none."""
    card, usual = dnn.card, signature(HEADS[dnn.card.head.name].make).parameters.get("first_label")
    if usual is None or card.head.name == "boxes":
        return None
    first = int(card.head.parameters.get("first_label", usual.default)) - 1

    def highest(first_label: int, classes: list[str]) -> NDArray[Any]:
        """The highest score of each class, if the first had that label."""
        parameters = {**card.head.parameters, "first_label": first_label}
        head = card.head.model_copy(update={"parameters": parameters})
        other = card.model_copy(update={"head": head, "classes": classes})
        scores: Any = ServerDnn(other, dnn.network, get_head(other)).dense(frame).scores
        return np.asarray(scores.max(axis=0))

    if highest(_NO_LABEL, card.classes).max() > 0:
        return None  # the network gives no labels (RTMO): whatever it finds is of the first class
    found = highest(first, ["before", *card.classes, *_BEYOND])
    found[1 : 1 + len(card.classes)] = 0
    return first + int(found.argmax()) if found.max() >= max(card.score_threshold, SCORE_FLOOR) else None


def _are_repeated(boxes: NDArray[Any], scores: NDArray[Any]) -> bool:
    """Whether most boxes have another one of their class in nearly the same place."""
    best = np.argsort(-scores.max(axis=1))[:_DENSE]
    labels = scores[best].argmax(axis=1)
    same = (iou_matrix(boxes[best], boxes[best]) > _NEARLY) & (labels[:, None] == labels[None])
    return bool((same.sum(axis=1) > 1).mean() > 0.5)


def _are_together(boxes: NDArray[Any], geometry: InputGeometry) -> bool:
    """Whether a dense detector's candidates, which are everywhere, have their centres in one place."""
    if len(boxes) < _DENSE:
        return False
    low, high = np.percentile((boxes[:, :2] + boxes[:, 2:]) / 2, (5, 95), axis=0)
    spread_x, spread_y = high - low
    return bool(max(spread_x / geometry.frame_width, spread_y / geometry.frame_height) < _TOGETHER)


def _are_corners(card: DnnCard, boxes: NDArray[Any], geometry: InputGeometry) -> bool:
    """Whether centres and sizes are corners: then no size is less than its centre, wherever that is."""
    usual = signature(HEADS[card.head.name].make).parameters.get("columns")
    columns = "" if usual is None else str(card.head.parameters.get("columns", usual.default))
    if "cx" not in columns or len(boxes) < _ENOUGH:
        return False
    scale = np.array([geometry.scale_x, geometry.scale_y])
    sizes = (boxes[:, 2:] - boxes[:, :2]) * scale
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * scale + np.array([geometry.pad_x, geometry.pad_y])
    spread = np.ptp(centres, axis=0) / np.array([geometry.width, geometry.height])
    return bool(spread.min() > _TOGETHER and (sizes > centres - 1).all(axis=1).mean() > _ALL)


def largest_difference(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> float:
    """The largest difference of corresponding outputs, as a share of its range; infinite if shapes differ."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size:
            worst = max(worst, float(np.abs(a * 1.0 - b).max() / max(float(np.ptp(a)), 1e-12)))
    return worst


def _check_gradient(dnn: ServerDnn, frame: VideoFrame, result: Any) -> list[Finding]:
    differentiable = dnn.differentiable()
    import torch

    picture, _ = Preprocessor(dnn.card.input)(frame)
    outputs = dnn.network.run(picture[None])
    with torch.no_grad():
        tensors = differentiable.network(torch.from_numpy(picture[None]))
    is_half = any(output.dtype == np.float16 for output in outputs)
    most = MAX_DIFFERENCE_HALF if is_half else MAX_DIFFERENCE
    difference = largest_difference(outputs, [tensor.numpy() for tensor in tensors])
    found, equal = f"{difference:.1e} of the output range", difference <= most
    objects = dnn.task.object_boxes(result)
    # A network that chooses among its candidates puts those that are nearly alike in any order.
    chooses = dnn.card.head.name.startswith(_CHOOSING) and objects is not None and len(objects)
    if not equal and chooses and dnn.accuracy_of(differentiable, frame) > _SAME_OBJECTS:
        found, equal = "the same objects, among unsure ones in another order", True
    rgb = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float().requires_grad_(True)
    agreement = dnn.task.agreement(differentiable(rgb), result)
    if not agreement.requires_grad:
        raise NoGradientError("the agreement does not depend on the picture")
    (gradient,) = torch.autograd.grad(agreement, rgb)
    finite = bool(torch.isfinite(gradient).all())
    share = float((gradient != 0).float().mean())
    return [
        Finding("PyTorch equals runtime", found, equal),
        Finding("agreement with itself", f"{float(agreement.detach()):.3f}", bool(torch.isfinite(agreement))),
        Finding("gradient finite", "yes" if finite else "no", finite),
        Finding("gradient non-zero", f"at {share:.0%} of the values", finite and share > 0),
    ]


def _summary(dnn: ServerDnn, result: Any) -> str:
    if isinstance(result, sv.Detections | sv.KeyPoints):
        boxes = dnn.task.object_boxes(result)
        assert boxes is not None
        return f"{len(boxes)} object{'' if len(boxes) == 1 else 's'} at or above {dnn.card.score_threshold:g}"
    present = np.unique(result)
    return f"{len(present)} classes: " + ", ".join(dnn.card.classes[i] for i in present[:8])
