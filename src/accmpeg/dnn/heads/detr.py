"""DETR-type outputs: class logits `(N, C)` and boxes `(N, 4)`, fractions of the input; no suppression.

With `activation = "sigmoid"` every class has its own probability (Deformable DETR and later); with "softmax"
the last of C + 1 logits is "no object" (DETR, Carion et al., 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from accmpeg.dnn.heads.base import boxes_from_centres, expect, namespace, sigmoid, softmax
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import CardError
from accmpeg.tasks.base import Array, Dense

__all__ = ["DetrHead"]


@dataclass(frozen=True, slots=True)
class DetrHead:
    """Detection by queries: outputs logits, boxes."""

    classes: int
    activation: str = "sigmoid"

    def __post_init__(self) -> None:
        if self.activation not in ("sigmoid", "softmax"):
            raise CardError(f"head.parameters.activation is 'sigmoid' or 'softmax', not '{self.activation}'")

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        softmaxed = self.activation == "softmax"
        expect(outputs, "detr", [(None, self.classes + softmaxed), (None, 4)])
        logits, fractions = outputs
        centres = namespace(fractions).stack(
            [
                fractions[:, 0] * geometry.width,
                fractions[:, 1] * geometry.height,
                fractions[:, 2] * geometry.width,
                fractions[:, 3] * geometry.height,
            ],
            -1,
        )
        return Dense(
            boxes_xyxy=boxes_from_centres(centres, geometry),
            scores=softmax(logits)[:, : self.classes] if softmaxed else sigmoid(logits),
            frame_size_px=(geometry.frame_width, geometry.frame_height),
        )
