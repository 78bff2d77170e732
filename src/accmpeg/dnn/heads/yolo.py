"""YOLOv8-type outputs: one row per quantity, one column per anchor, or the other way round; no objectness.

Rows 0 to 3 are centre x, centre y, width, height in input pixels, then one probability per class, then three
values per keypoint (x, y, visibility) or the mask coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import (
    CENTRES,
    box_names,
    expect,
    frame_points,
    prototypes_in,
    rows_of_candidates,
)
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["YoloHead", "YoloPoseHead", "YoloSegHead"]


@dataclass(frozen=True, slots=True)
class YoloHead:
    """Detection: `(4 + C, N)`; `columns` says what the first four are."""

    classes: int
    columns: str = ",".join(CENTRES)
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        box_names(self.columns)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        rows = rows_of_candidates(outputs, "yolo", 4 + self.classes)
        return dense_boxes(rows[:, :4], rows[:, 4:], geometry, columns=box_names(self.columns))


@dataclass(frozen=True, slots=True)
class YoloPoseHead:
    """Keypoints: `(4 + C + 3·K, N)`, or `(4 + C + 2·K, N)` of a network without visibilities."""

    classes: int
    keypoints: int
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        without = 4 + self.classes + 2 * self.keypoints
        values = 2 if len(outputs) == 1 and without in outputs[0].shape else 3
        rows = rows_of_candidates(outputs, "yolo_pose", 4 + self.classes + values * self.keypoints)
        points = rows[:, 4 + self.classes :].reshape(-1, self.keypoints, values)
        scores = rows[:, 4 : 4 + self.classes]
        return dense_boxes(rows[:, :4], scores, geometry, frame_points(points, geometry), columns=CENTRES)


@dataclass(frozen=True, slots=True)
class YoloSegHead:
    """Instance masks: `(4 + C + M, N)` and prototypes `(M, height/4, width/4)`."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        quantities = 4 + self.classes + prototypes_in(outputs)
        if len(outputs) == 2 and outputs[0].shape[1:] == (quantities,):  # a row per anchor
            outputs = [outputs[0].T, outputs[1]]
        expect(outputs, "yolo_seg", [(quantities, "N"), ("M", "h", "w")])
        rows = outputs[0].T
        return dense_boxes(
            rows[:, :4],
            rows[:, 4 : 4 + self.classes],
            geometry,
            columns=CENTRES,
            mask_coefficients=rows[:, 4 + self.classes :],
            prototypes=geometry.crop(outputs[1]),
        )
