"""NanoDet-Plus outputs `(C + 4·bins, N)` or `(N, C + 4·bins)`: scores, then a distribution for each side.

The scores are class logits, or with `activation = "none"` probabilities, as NanoDet's own export gives them.
Boxes are around `grid_points`. The distance to a side is stride × the expectation of 0 … bins−1 under the
softmax of its bins (generalised focal loss, Li et al., NeurIPS 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accmpeg.dnn.heads.base import (
    check_activation,
    grid_points,
    namespace,
    rows_of_candidates,
    sigmoid,
    softmax,
)
from accmpeg.dnn.heads.boxes import dense_boxes
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["NanodetHead"]


@dataclass(frozen=True, slots=True)
class NanodetHead:
    """Detection with distribution boxes."""

    classes: int
    strides: Sequence[int] = (8, 16, 32, 64)
    bins: int = 8
    activation: str = "sigmoid"
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        rows = rows_of_candidates(outputs, "nanodet", self.classes + 4 * self.bins)
        where = grid_points(rows, self.strides, geometry)
        xp = namespace(rows)
        bins = np.arange(self.bins, dtype=np.float32)
        shares = softmax(rows[:, self.classes :].reshape(-1, 4, self.bins))
        distance = (shares * (bins if xp is np else xp.as_tensor(bins, device=rows.device))).sum(-1)
        distance = distance * where[:, 2:]
        corners = xp.concatenate([where[:, :2] - distance[:, :2], where[:, :2] + distance[:, 2:]], -1)
        scores = rows[:, : self.classes]
        return dense_boxes(corners, sigmoid(scores) if self.activation == "sigmoid" else scores, geometry)
