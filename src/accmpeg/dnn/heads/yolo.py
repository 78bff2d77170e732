"""YOLOv8-type outputs: one row per quantity, one column per anchor, or the other way round; no objectness.

Rows 0 to 3 are centre x, centre y, width, height in input pixels, then one probability per class, then three
values per keypoint (x, y, visibility) or the mask coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import CENTRES, expect, frame_points, prototypes_in
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["YoloHead", "YoloPoseHead", "YoloSegHead"]


@dataclass(frozen=True, slots=True)
class YoloHead:
    """Detection: `(4 + C, N)`."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        rows = _of_anchors(outputs, "yolo", 4 + self.classes)
        return dense_boxes(rows[:, :4], rows[:, 4:], geometry, columns=CENTRES)


@dataclass(frozen=True, slots=True)
class YoloPoseHead:
    """Keypoints: `(4 + C + 3·K, N)`."""

    classes: int
    keypoints: int
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        rows = _of_anchors(outputs, "yolo_pose", 4 + self.classes + 3 * self.keypoints)
        points = rows[:, 4 + self.classes :].reshape(-1, self.keypoints, 3)
        scores = rows[:, 4 : 4 + self.classes]
        return dense_boxes(rows[:, :4], scores, geometry, frame_points(points, geometry), columns=CENTRES)


@dataclass(frozen=True, slots=True)
class YoloSegHead:
    """Instance masks: `(4 + C + M, N)` and prototypes `(M, height/4, width/4)`."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "yolo_seg", [(4 + self.classes + prototypes_in(outputs), "N"), ("M", "h", "w")])
        rows = outputs[0].T
        return dense_boxes(
            rows[:, :4],
            rows[:, 4 : 4 + self.classes],
            geometry,
            columns=CENTRES,
            mask_coefficients=rows[:, 4 + self.classes :],
            prototypes=geometry.crop(outputs[1]),
        )


def _of_anchors(outputs: Sequence[Array], head: str, quantities: int) -> Array:
    """The one output as a row per anchor; some exporters write it that way round already."""
    if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] == quantities:
        return outputs[0]
    expect(outputs, head, [(quantities, "N")])
    return outputs[0].T
