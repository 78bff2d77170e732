"""The 16×16 macroblock grid: sizes, pooling, boxes, dilation and resampling.

A frame of `height_px` × `width_px` has `ceil(height_px / 16)` rows and `ceil(width_px / 16)` columns; the
last row and column may hang over the frame's edge. Every map in this package is `(rows, cols)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MACROBLOCK_PX", "MacroblockGrid", "box_mean_3x3", "combine_3x3", "dilate", "gaussian_blur"]

MACROBLOCK_PX = 16

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MacroblockGrid:
    """The macroblocks of one frame size, in pixels of the coded picture.

    >>> MacroblockGrid(1280, 720).shape
    (45, 80)
    >>> MacroblockGrid(641, 361).shape
    (23, 41)
    """

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise ValueError(f"a frame of {self.width_px}x{self.height_px} has no macroblocks")

    @property
    def rows(self) -> int:
        return -(-self.height_px // MACROBLOCK_PX)

    @property
    def cols(self) -> int:
        return -(-self.width_px // MACROBLOCK_PX)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    def sum_pixels(self, per_pixel: NDArray[np.floating]) -> FloatMap:
        """Sums a `(height_px, width_px)` map over each macroblock; returns `(rows, cols)`."""
        if per_pixel.shape != (self.height_px, self.width_px):
            raise ValueError(f"expected {(self.height_px, self.width_px)}, got {per_pixel.shape}")
        row_starts = np.arange(0, self.height_px, MACROBLOCK_PX)
        col_starts = np.arange(0, self.width_px, MACROBLOCK_PX)
        # Rows first: the second reduction then runs over a sixteenth of the picture.
        summed = np.add.reduceat(per_pixel.astype(np.float64, copy=False), row_starts, axis=0)
        return np.add.reduceat(summed, col_starts, axis=1).astype(np.float32)

    def mean_pixels(self, per_pixel: NDArray[np.floating]) -> FloatMap:
        """Means of a `(height_px, width_px)` map over the visible part of each macroblock."""
        return self.sum_pixels(per_pixel) / self.visible_pixels()

    def visible_pixels(self) -> FloatMap:
        """How many pixels of each macroblock lie inside the frame, `(rows, cols)`."""
        heights = np.minimum(MACROBLOCK_PX, self.height_px - np.arange(self.rows) * MACROBLOCK_PX)
        widths = np.minimum(MACROBLOCK_PX, self.width_px - np.arange(self.cols) * MACROBLOCK_PX)
        return np.outer(heights, widths).astype(np.float32)

    def cover_boxes(self, boxes_xyxy_px: NDArray[np.floating]) -> BoolMap:
        """Marks every macroblock that a box (x0, y0, x1, y1; pixels) touches; `(rows, cols)`."""
        covered = np.zeros(self.shape, dtype=np.bool_)
        for x0, y0, x1, y1 in np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4):
            if not (x1 > x0 and y1 > y0) or x1 <= 0 or y1 <= 0:
                continue
            first_row, first_col = max(0, int(y0 // MACROBLOCK_PX)), max(0, int(x0 // MACROBLOCK_PX))
            last_row, last_col = int(np.ceil(y1 / MACROBLOCK_PX)), int(np.ceil(x1 / MACROBLOCK_PX))
            covered[first_row:last_row, first_col:last_col] = True
        return covered

    def resample(self, values: NDArray[np.floating], extent_rows: float, extent_cols: float) -> FloatMap:
        """Bilinear samples of `values` at the centre of each macroblock.

        `values` is any `(h, w)` map of which the top-left `extent_rows` × `extent_cols` cells (may be
        fractions) show exactly this frame; the rest is padding. Returns `(rows, cols)`.
        """
        row_px = (np.arange(self.rows) + 0.5) * MACROBLOCK_PX
        col_px = (np.arange(self.cols) + 0.5) * MACROBLOCK_PX
        row_at = np.minimum(row_px / self.height_px, 1.0) * extent_rows - 0.5
        col_at = np.minimum(col_px / self.width_px, 1.0) * extent_cols - 0.5
        rows_sampled = _lerp(np.asarray(values, dtype=np.float32), row_at, axis=0)
        return _lerp(rows_sampled, col_at, axis=1)


def _lerp(values: FloatMap, at: NDArray[np.floating], axis: int) -> FloatMap:
    last = values.shape[axis] - 1
    at = np.clip(at, 0, last)
    low = np.floor(at).astype(np.intp)
    high = np.minimum(low + 1, last)
    weight = (at - low).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    blended = np.take(values, low, axis=axis) * (1 - weight) + np.take(values, high, axis=axis) * weight
    return np.asarray(blended, dtype=np.float32)


def combine_3x3(combine: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
    """`combine` (of two arrays) over each cell and its eight neighbours, edges repeated; `(rows, cols)`."""
    padded = np.pad(values, 1, mode="edge")
    tall = combine(combine(padded[:-2], padded[1:-1]), padded[2:])
    return np.asarray(combine(combine(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:]))


def dilate(mask: BoolMap, macroblocks: int) -> BoolMap:
    """Grows a `(rows, cols)` mask by `macroblocks` in all eight directions."""
    grown = np.asarray(mask, dtype=np.bool_)
    for _ in range(macroblocks):
        grown = combine_3x3(np.logical_or, grown)
    return grown


def box_mean_3x3(values: FloatMap) -> FloatMap:
    """The mean of each cell and its eight neighbours, edges repeated; `(rows, cols)`."""
    return np.asarray(combine_3x3(np.add, values) / 9, dtype=np.float32)


def gaussian_blur(values: FloatMap, sigma_macroblocks: float) -> FloatMap:
    """Separable Gaussian over a `(rows, cols)` map, edges repeated."""
    if sigma_macroblocks <= 0:
        return values
    radius = max(1, int(np.ceil(3 * sigma_macroblocks)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_macroblocks) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    padded = np.pad(values, radius, mode="edge")
    rows, cols = values.shape
    tall = sum(tap * padded[i : i + rows] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * tall[:, i : i + cols] for i, tap in enumerate(taps)), dtype=np.float32)
