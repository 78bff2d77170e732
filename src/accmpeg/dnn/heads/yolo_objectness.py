"""YOLOv5 and YOLOX outputs `(N, 5 + C)`: box, objectness, class probabilities.

The box is centre x, centre y, width, height in input pixels.
The score of a class is objectness × class probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import CENTRES, expect
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["YoloObjectnessHead"]


@dataclass(frozen=True, slots=True)
class YoloObjectnessHead:
    """Detection: `(N, 5 + C)`."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "yolo_objectness", [("N", 5 + self.classes)])
        rows = outputs[0]
        return dense_boxes(rows[:, :4], rows[:, 5:] * rows[:, 4:5], geometry, columns=CENTRES)
