"""What a policy is, and the arithmetic that both policies share: where the middle of a map lies."""

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MapHistory", "QualityPolicy", "bit_weights", "centred"]

FloatMap = NDArray[np.float32]

_LUMA_ROW_STEP = 4
_BISECTION_STEPS = 24


class QualityPolicy(Protocol):
    """Turns the scores of one frame into QP offsets; may remember earlier maps, never later ones."""

    @property
    def name(self) -> str: ...

    def qp_offsets(
        self,
        accgrad_log2: FloatMap,
        objects: FloatMap | None = None,
        bit_weights: FloatMap | None = None,
    ) -> FloatMap:
        """QP offsets `(rows, cols)` relative to the stream's base QP, whole numbers.

        `accgrad_log2` is log2 of the predicted accuracy gradient, `objects` the probability (0 to 1) that
        the server DNN reports an object there, or None. With `bit_weights` (any scale) the stream is
        rate-controlled: the offsets' mean weighted by them is near zero.
        """


class MapHistory:
    """The raw values of the last maps: the running statistics that stand in for the whole clip's."""

    def __init__(self, maps: int) -> None:
        self._maps: deque[FloatMap] = deque(maxlen=maps)

    def add(self, raw: FloatMap) -> NDArray[np.float32]:
        """Adds one map and returns all remembered values as one flat array."""
        if self._maps and self._maps[-1].shape != raw.shape:
            self._maps.clear()
        self._maps.append(raw)
        return np.concatenate([remembered.ravel() for remembered in self._maps])


def centred(
    values: NDArray[np.float32],
    lowest: float,
    highest: float,
    weights: NDArray[np.float32] | None = None,
) -> float:
    """The shift k for which the (weighted) mean of `clip(values + k, lowest, highest)` is zero.

    The mean rises with k, so bisection finds it; 0 must lie between `lowest` and `highest`.
    """
    if weights is None or not float(weights.sum()) > 0:
        weights = np.full(values.shape, 1.0, dtype=np.float32)
    share = (weights / weights.sum(dtype=np.float64)).astype(np.float32)
    low = lowest - float(values.max())
    high = highest - float(values.min())
    for _ in range(_BISECTION_STEPS):
        middle = 0.5 * (low + high)
        if float(np.dot(np.clip(values + np.float32(middle), lowest, highest), share)) < 0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def bit_weights(luma: NDArray[np.uint8], rows: int, cols: int) -> FloatMap:
    """About how the bits of a frame spread over its macroblocks, from its texture; `(rows, cols)`.

    The mean absolute horizontal difference of every fourth luma row, plus a floor for the headers that even a
    flat macroblock costs. `luma` is `(height_px, width_px)`, at least a pixel.
    """
    lines = luma[::_LUMA_ROW_STEP].astype(np.int16)
    difference = np.abs(np.diff(lines, axis=1, append=lines[:, -1:]))
    by_row = np.add.reduceat(
        difference, np.arange(0, len(lines), 16 // _LUMA_ROW_STEP), axis=0, dtype=np.float32
    )
    by_block = np.add.reduceat(by_row, np.arange(0, luma.shape[1], 16), axis=1)
    return np.asarray(by_block[:rows, :cols] / 64 + 1, dtype=np.float32)
