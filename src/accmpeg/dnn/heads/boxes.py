"""Outputs that already are boxes in input pixels: every candidate's scores, or a network's final detections.

`boxes` reads boxes `(N, 4)` (corners x1, y1, x2, y2) and scores `(N, C)` or `(C, N)`, before any suppression.
`final` reads boxes `(N, 4)`, scores `(N,)` and labels `(N,)`, as networks give them that suppress duplicates
themselves, or boxes with scores `(N, 5)` and labels (MMDetection), for one class also without labels;
`final_keypoints` reads keypoints `(N, K, 3)` (x, y in input pixels, visibility 0 to 1) as well, and needs no
labels.
The gradient flows through scores, boxes and visibilities; labels carry none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accmpeg.dnn.heads.base import CORNERS, box_names, expect, frame_boxes, frame_points, namespace
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = ["BoxesHead", "FinalHead", "FinalKeypointsHead", "dense_boxes", "scatter_scores"]


@dataclass(frozen=True, slots=True)
class BoxesHead:
    """Detection by candidates: outputs boxes, scores.

    `columns` says what the boxes' four numbers are. Scores before the column `first_label`, such as a
    background's, are left out.
    """

    classes: int
    first_label: int = 0
    columns: str = ",".join(CORNERS)
    ranks: ClassVar[tuple[int, ...]] = (2, 2)

    def __post_init__(self) -> None:
        box_names(self.columns)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        columns = self.first_label + self.classes
        if len(outputs) == 2 and outputs[1].shape[1:] != (columns,) == outputs[1].shape[:1]:
            outputs = [outputs[0], outputs[1].T]  # PP-YOLOE's
        if len(outputs) == 2 and outputs[0].shape[1:] == (1, 4):
            outputs = [outputs[0][:, 0], outputs[1]]  # YOLOv4's
        expect(outputs, "boxes", [("N", 4), ("N", columns)])
        boxes, scores = outputs[0], outputs[1][:, self.first_label :]
        return dense_boxes(boxes, scores, geometry, columns=box_names(self.columns))


@dataclass(frozen=True, slots=True)
class FinalHead:
    """Final detections: outputs boxes, scores, labels; `first_label` is the label of the first class.

    Detections of a label that is no class of the card get no score.
    """

    classes: int
    first_label: int = 0
    columns: str = ",".join(CORNERS)
    ranks: ClassVar[tuple[int, ...]] = (2, 1, 1)

    def __post_init__(self) -> None:
        box_names(self.columns)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        outputs = _apart(outputs)
        if len(outputs) == 2 and outputs[1].ndim == 1 and self.classes == 1:
            outputs = [*outputs, outputs[1] * 0 + self.first_label]
        expect(outputs, "final", [("N", 4), ("N",), ("N",)])
        boxes, scores, labels = outputs
        scattered = scatter_scores(scores, labels, self.first_label, self.classes)
        return dense_boxes(boxes, scattered, geometry, columns=box_names(self.columns))


@dataclass(frozen=True, slots=True)
class FinalKeypointsHead:
    """Final keypoint detections: outputs boxes, scores, labels, keypoints."""

    classes: int
    keypoints: int
    first_label: int = 0
    ranks: ClassVar[tuple[int, ...]] = (2, 1, 1, 3)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        outputs = _apart(outputs)
        if len(outputs) == 3 and outputs[2].ndim == 3:  # RTMO's, without labels
            outputs = [*outputs[:2], outputs[1] * 0 + self.first_label, outputs[2]]
        expect(outputs, "final_keypoints", [("N", 4), ("N",), ("N",), ("N", self.keypoints, 3)])
        boxes, scores, labels, points = outputs
        scattered = scatter_scores(scores, labels, self.first_label, self.classes)
        return dense_boxes(boxes, scattered, geometry, frame_points(points, geometry))


def _apart(outputs: Sequence[Array]) -> Sequence[Array]:
    """Boxes that have their scores beside them, `(N, 5)`, as two outputs."""
    if outputs and outputs[0].ndim == 2 and outputs[0].shape[1] == 5:
        return [outputs[0][:, :4], outputs[0][:, 4], *outputs[1:]]
    return outputs


def dense_boxes(
    boxes: Array,
    scores: Array,
    geometry: InputGeometry,
    keypoints: Array | None = None,
    *,
    columns: Sequence[str] = CORNERS,
    mask_coefficients: Array | None = None,
    prototypes: Array | None = None,
) -> Dense:
    """`Dense` of boxes, whose columns are called so, and scores `(N, C)`; the rest is the frame's already."""
    return Dense(
        boxes_xyxy=frame_boxes(boxes, columns, geometry),
        scores=scores,
        keypoints=keypoints,
        mask_coefficients=mask_coefficients,
        prototypes=prototypes,
        frame_size_px=(geometry.frame_width, geometry.frame_height),
    )


def scatter_scores(scores: Array, labels: Array, first_label: int, classes: int) -> Array:
    """Each score in the column of its label, 0 elsewhere: `(N, C)`."""
    if "int" in str(scores.dtype):  # torchvision's own order is boxes, labels, scores
        scores, labels = labels, scores
    if isinstance(labels, np.ndarray) and (broken := labels[labels != np.rint(labels)]).size:
        raise DnnError(
            f"the network gave labels such as {float(broken[0]):.3g}, which are no whole numbers: correct "
            "head.name, head.outputs or head.parameters.columns in the card"
        )
    columns = [scores * (labels == first_label + class_id) for class_id in range(classes)]
    return namespace(scores).stack(columns, -1)
