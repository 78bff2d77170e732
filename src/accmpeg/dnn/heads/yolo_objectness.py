"""YOLOv5 and YOLOX outputs `(N, 5 + C)`: box, objectness, class probabilities; YOLOv5-seg's with masks.

The box is centre x, centre y, width, height in input pixels. YOLOX's own export leaves it undecoded: with
`strides` the centre is counted in strides from its grid point, and the sizes are logarithms of strides.
The score of a class is objectness × class probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import CENTRES, expect, grid_points, namespace, prototypes_in
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["YoloObjectnessHead", "YoloObjectnessSegHead"]

MAX_LOG_SIZE = 20
"""Sizes beyond it are no pixels of any picture, and would overflow."""


@dataclass(frozen=True, slots=True)
class YoloObjectnessHead:
    """Detection: `(N, 5 + C)`."""

    classes: int
    strides: Sequence[int] = ()
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "yolo_objectness", [("N", 5 + self.classes)])
        rows = outputs[0]
        boxes = rows[:, :4]
        if self.strides:
            where, xp = grid_points(rows, self.strides, geometry), namespace(rows)
            sizes = xp.exp(xp.clip(boxes[:, 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE))
            boxes = xp.concatenate([boxes[:, :2] * where[:, 2:] + where[:, :2], sizes * where[:, 2:]], -1)
        return dense_boxes(boxes, rows[:, 5:] * rows[:, 4:5], geometry, columns=CENTRES)


@dataclass(frozen=True, slots=True)
class YoloObjectnessSegHead:
    """Instance masks: `(N, 5 + C + M)` and prototypes `(M, height/4, width/4)`."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        first = 5 + self.classes
        expect(outputs, "yolo_objectness_seg", [("N", first + prototypes_in(outputs)), ("M", "h", "w")])
        rows = outputs[0]
        return dense_boxes(
            rows[:, :4],
            rows[:, 5:first] * rows[:, 4:5],
            geometry,
            columns=CENTRES,
            mask_coefficients=rows[:, first:],
            prototypes=geometry.crop(outputs[1]),
        )
