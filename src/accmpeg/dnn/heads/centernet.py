"""CenterNet outputs (Zhou et al., 2019): a heat map per class, sizes and offsets of the boxes' centres.

An object's centre is at (cell + offset)·stride and its size is size·stride, the stride being that of the heat
map. In place of the paper's peaks, the card's `nms_iou` leaves one box of those that neighbouring cells give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accmpeg.dnn.heads.base import CENTRES, check_activation, expect, namespace, sigmoid
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["CenterNetHead"]


@dataclass(frozen=True, slots=True)
class CenterNetHead:
    """Detection: outputs heat map `(C, h, w)`, sizes `(2, h, w)` and offsets `(2, h, w)`, each x, y."""

    classes: int
    activation: str = "sigmoid"
    ranks: ClassVar[tuple[int, ...]] = (3, 3, 3)

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "centernet", [(self.classes, "h", "w"), (2, "h", "w"), (2, "h", "w")])
        heat, sizes, offsets = (output.reshape(output.shape[0], -1).T for output in outputs)
        rows, cols = outputs[0].shape[1:]
        y, x = np.mgrid[:rows, :cols].astype(np.float32).reshape(2, -1)
        xp, cells = namespace(heat), np.stack([x, y], -1)
        here = cells if xp is np else xp.as_tensor(cells, device=heat.device)
        boxes = xp.concatenate([here + offsets, sizes], -1) * (geometry.width / cols)
        return dense_boxes(
            boxes, sigmoid(heat) if self.activation == "sigmoid" else heat, geometry, columns=CENTRES
        )
