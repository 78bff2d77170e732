"""NanoDet-Plus outputs `(C + 4·bins, N)`: class logits, then a distribution for each side of the box.

Points run by stride, row-major, with ceil(size / stride) of them along each axis, centred on
(column·stride, row·stride). The distance to a side is stride × the expectation of 0 … bins−1 under the
softmax of its bins (generalised focal loss, Li et al., NeurIPS 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accmpeg.dnn.heads.base import expect, namespace, sigmoid, softmax
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = ["NanodetHead"]


@dataclass(frozen=True, slots=True)
class NanodetHead:
    """Detection with distribution boxes."""

    classes: int
    strides: Sequence[int] = (8, 16, 32, 64)
    bins: int = 8
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "nanodet", [(self.classes + 4 * self.bins, "N")])
        rows = outputs[0]
        points = self._points(geometry)
        if len(points) != rows.shape[1]:
            raise DnnError(
                f"the network gave {rows.shape[1]} points for {geometry.width}x{geometry.height}, strides "
                f"{list(self.strides)} make {len(points)}: correct head.parameters.strides in the card"
            )
        xp = namespace(rows)
        where = points if xp is np else xp.as_tensor(points, device=rows.device)
        bins = np.arange(self.bins, dtype=np.float32)
        shares = softmax(rows[self.classes :].T.reshape(-1, 4, self.bins))
        distance = (shares * (bins if xp is np else xp.as_tensor(bins, device=rows.device))).sum(-1)
        distance = distance * where[:, 2:]
        corners = xp.concatenate([where[:, :2] - distance[:, :2], where[:, :2] + distance[:, 2:]], -1)
        return dense_boxes(corners, sigmoid(rows[: self.classes]).T, geometry)

    def _points(self, geometry: InputGeometry) -> NDArray[np.float32]:
        """x, y and stride of every point, `(N, 3)`, input pixels."""
        levels = []
        for stride in self.strides:
            rows, cols = -(-geometry.height // stride), -(-geometry.width // stride)
            y, x = np.mgrid[:rows, :cols].astype(np.float32) * np.float32(stride)
            levels.append(np.stack([x.ravel(), y.ravel(), np.full(rows * cols, stride, np.float32)], -1))
        return np.concatenate(levels)
