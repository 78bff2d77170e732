"""DETR-type outputs: class logits `(N, C)` and boxes `(N, 4)`; no suppression.

`detr` reads the two; `rtdetr` reads both in one output `(N, 4 + C)` whose scores are probabilities already,
as Ultralytics exports RT-DETR. Boxes are centre x, centre y, width, height,
or what `columns` says.

With `activation = "sigmoid"` every class has its own probability (Deformable DETR and later); with "softmax"
the last of C + 1 logits is "no object" (DETR, Carion et al., 2020); "none" is for probabilities, with or
without that column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import CENTRES, box_names, check_activation, expect, sigmoid, softmax
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = ["DetrHead", "RtDetrHead"]


@dataclass(frozen=True, slots=True)
class DetrHead:
    """Detection by queries: outputs logits, boxes."""

    classes: int
    activation: str = "sigmoid"
    columns: str = ",".join(CENTRES)
    ranks: ClassVar[tuple[int, ...]] = (2, 2)

    def __post_init__(self) -> None:
        check_activation(self.activation, ("sigmoid", "softmax", "none"))
        box_names(self.columns)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        softmaxed = self.activation == "softmax"
        if self.activation == "none" and _has_no_object(outputs, self.classes):
            outputs = [outputs[0][:, : self.classes], *outputs[1:]]
        if not softmaxed and [output.shape[1:] for output in outputs] == [(self.classes + 1,), (4,)]:
            raise DnnError(
                f"the network gave {self.classes + 1} logits for {self.classes} classes: where the last is "
                "'no object' (DETR, YOLOS) say head.parameters.activation = 'softmax' in the card, else name "
                "all its classes"
            )
        expect(outputs, "detr", [("N", self.classes + softmaxed), ("N", 4)])
        logits, boxes = outputs
        scores = softmax(logits)[:, : self.classes] if softmaxed else logits
        scores = sigmoid(scores) if self.activation == "sigmoid" else scores
        return dense_boxes(boxes, scores, geometry, columns=box_names(self.columns))


def _has_no_object(outputs: Sequence[Array], classes: int) -> bool:
    """Whether the first output is a softmax of one more column than there are classes."""
    if not outputs or outputs[0].shape[1:] != (classes + 1,):
        return False
    return float(abs(outputs[0].sum(-1) - 1).max()) < 1e-2 if len(outputs[0]) else True


@dataclass(frozen=True, slots=True)
class RtDetrHead:
    """Detection by queries: one output of boxes and class probabilities; `activation` "sigmoid" is for scores
    that still are logits."""

    classes: int
    activation: str = "none"
    columns: str = ",".join(CENTRES)
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        check_activation(self.activation)
        box_names(self.columns)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "rtdetr", [("N", 4 + self.classes)])
        boxes, scores = outputs[0][:, :4], outputs[0][:, 4:]
        scores = sigmoid(scores) if self.activation == "sigmoid" else scores
        return dense_boxes(boxes, scores, geometry, columns=box_names(self.columns))
