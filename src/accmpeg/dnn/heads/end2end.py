"""End-to-end detectors: one row per detection that the network has chosen itself, in input pixels.

YOLOv10, YOLO26 and Ultralytics exports with `nms=True` give `(N, 6)`: x1, y1, x2, y2, score, class; with
keypoints or mask coefficients behind them. Others order the same columns differently, which `columns` says:
YOLOv7's end-to-end export is "batch,x1,y1,x2,y2,class,score", PaddleDetection's "class,score,x1,y1,x2,y2",
that of SSD in OpenVINO's model zoo, `(1, N, 7)` for a picture, "batch,class,score,x1,y1,x2,y2" in fractions.
The gradient flows through scores, boxes and visibilities; the class carries none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from accmpeg.dnn.heads.base import (
    CENTRES,
    CORNERS,
    box_names,
    expect,
    frame_points,
    namespace,
    prototypes_in,
)
from accmpeg.dnn.heads.boxes import dense_boxes, scatter_scores
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import CardError
from accmpeg.tasks.base import Array, Dense

__all__ = ["End2EndHead", "End2EndPoseHead", "End2EndSegHead"]

COLUMNS = "x1,y1,x2,y2,score,class"


@dataclass(frozen=True, slots=True)
class End2EndHead:
    """Detection: `(N, 6)`, or as many columns as `columns` names; those it need not know are passed over."""

    classes: int
    columns: str = COLUMNS
    first_label: int = 0
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        box_names(self.columns, ("score", "class"))

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        names = box_names(self.columns, ("score", "class"))
        outputs = [output[0] if output.ndim == 3 and output.shape[0] == 1 else output for output in outputs]
        expect(outputs, "end2end", [("N", len(names))])
        score, label = (outputs[0][:, names.index(name)] for name in ("score", "class"))
        scores = scatter_scores(score, label, self.first_label, self.classes)
        return dense_boxes(outputs[0], scores, geometry, columns=names)


@dataclass(frozen=True, slots=True)
class End2EndPoseHead:
    """Keypoints: `(N, 6 + 3·K)`, or `(N, 6 + 2·K)` of a network without visibilities.

    `columns` names them in another order, `points` being those of all keypoints; without `class` there is
    one. `points` says what a keypoint's numbers are: MoveNet's are "y,x,visibility".
    """

    classes: int
    keypoints: int
    columns: str = f"{COLUMNS},points"
    points: str = "x,y,visibility"
    first_label: int = 0
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        box_names(self.columns, ("score", "points"))
        if self.points not in ("x,y,visibility", "y,x,visibility"):
            raise CardError(
                f"head.parameters.points is 'x,y,visibility' or 'y,x,visibility', not '{self.points}'"
            )

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        names = box_names(self.columns, ("score", "points"))
        fixed, first = len(names) - 1, names.index("points")
        without = len(outputs) == 1 and outputs[0].shape[1:] == (fixed + 2 * self.keypoints,)
        values = 2 if without else 3
        expect(outputs, "end2end_pose", [("N", fixed + values * self.keypoints)])
        rows, last = outputs[0], first + values * self.keypoints
        points = rows[:, first:last].reshape(-1, self.keypoints, values)
        if self.points.startswith("y"):
            points = points[..., [1, 0, *range(2, values)]]
        column = {name: rows[:, i if i < first else i - 1 + last - first] for i, name in enumerate(names)}
        label = column.get("class", column["score"] * 0 + self.first_label)
        scores = scatter_scores(column["score"], label, self.first_label, self.classes)
        box = [name for name in names if name in (*CORNERS, *CENTRES)]
        boxes = namespace(rows).stack([column[name] for name in box], -1)
        return dense_boxes(boxes, scores, geometry, frame_points(points, geometry), columns=box)


@dataclass(frozen=True, slots=True)
class End2EndSegHead:
    """Instance masks: `(N, 6 + M)` and prototypes `(M, height/4, width/4)`."""

    classes: int
    first_label: int = 0
    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "end2end_seg", [("N", 6 + prototypes_in(outputs)), ("M", "h", "w")])
        rows = outputs[0]
        scores = scatter_scores(rows[:, 4], rows[:, 5], self.first_label, self.classes)
        return dense_boxes(
            rows[:, :4],
            scores,
            geometry,
            mask_coefficients=rows[:, 6:],
            prototypes=geometry.crop(outputs[1]),
        )
