"""Accuracy gradients of server DNNs that have none: finite differences over tiles of macroblocks.

```
all low ─▶ D ─▶ agreement A₀
one tile at high quality ─▶ D ─▶ A₁      effect of the tile = |A₁ − A₀|
coarse tiles first ─▶ halve the tile with the largest effect ─▶ … until the inferences are used up
```

A tile's effect is shared among its macroblocks in proportion to their ‖H − L‖₁, the factor of the true
gradient that needs no DNN. The result is a map in the unit of AccGrad (accuracy), but coarser and smaller: it
holds changes that happened, where AccGrad is a bound that adds up magnitudes. Their ranks agree.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import supervision as sv
import torch
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.dnn.base import ServerDnn
from accmpeg.media.frames import pasted
from accmpeg.media.grid import MacroblockGrid
from accmpeg.tasks import Dense, get_task
from accmpeg.training.gradient import At

__all__ = ["black_box_gradient", "tile_gradient"]

COARSE_SHARE = 0.5
"""The part of the inferences that goes to the first, even tiling."""

BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Tile:
    row: int
    col: int
    rows: int
    cols: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.rows), slice(self.col, self.col + self.cols)

    def halves(self) -> "tuple[_Tile, _Tile]":
        if self.rows >= self.cols:
            top = self.rows // 2
            return (
                _Tile(self.row, self.col, top, self.cols),
                _Tile(self.row + top, self.col, self.rows - top, self.cols),
            )
        left = self.cols // 2
        return (
            _Tile(self.row, self.col, self.rows, left),
            _Tile(self.row, self.col + left, self.rows, self.cols - left),
        )


def black_box_gradient(
    dnn: ServerDnn,
    reference: Any,
    high: VideoFrame,
    low: VideoFrame,
    *,
    at: At = "low",
    inferences: int = 128,
) -> FloatMap:
    """AccGrad of each macroblock from at most `inferences` runs of the server DNN, `(rows, cols)`.

    `reference` is the server DNN's result on `high`. Tiles change from the quality `at` to the other one.
    Instance masks are compared by their boxes. Raises `DnnError` where the DNN fails.
    """
    base, other = (low, high) if at == "low" else (high, low)
    # The agreement of tasks with masks needs prototypes, which results no longer have.
    boxes_only = get_task("detection", score_threshold=dnn.card.score_threshold)
    task = boxes_only if dnn.task.name == "instances" else dnn.task

    def measure(from_other: BoolMap) -> float:
        result = dnn.infer(pasted(base, other, from_other))
        return float(task.agreement(_as_dense(result, len(dnn.card.classes)), reference))

    difference = high.to_ndarray(format="rgb24").astype(np.float32) - low.to_ndarray(format="rgb24")
    magnitude = MacroblockGrid(high.width, high.height).sum_pixels(np.abs(difference).sum(axis=2))
    return tile_gradient(measure, magnitude, inferences)


def _as_dense(result: Any, classes: int) -> Dense:
    """A task's result in the form that `Task.agreement` reads: certain of what was reported."""
    if isinstance(result, np.ndarray):
        return Dense(class_map=torch.from_numpy(result.astype(np.int64)))
    is_points = isinstance(result, sv.KeyPoints)
    confidence = result.detection_confidence if is_points else result.confidence
    scores = np.zeros((len(confidence) + 1, classes), np.float32)
    # The added candidate, with score zero, stands for "nothing found".
    scores[np.arange(len(confidence)), result.class_id] = confidence
    boxes = result.data["xyxy"] if is_points else result.xyxy
    points = None
    if is_points:
        visible = np.concatenate((result.xy, result.keypoint_confidence[..., None]), axis=2)
        points = torch.from_numpy(
            np.concatenate((visible, np.zeros_like(visible, shape=(1, *visible.shape[1:]))))
        )
    return Dense(
        boxes_xyxy=torch.from_numpy(np.concatenate((boxes, np.zeros((1, 4), np.float32)))),
        scores=torch.from_numpy(scores),
        keypoints=points,
    )


def tile_gradient(measure: Callable[[BoolMap], float], magnitude: FloatMap, inferences: int) -> FloatMap:
    """Spreads measured effects of tiles over macroblocks; `(rows, cols)`.

    `measure` gives the agreement of a frame whose marked macroblocks `(rows, cols)` have the other quality.
    It is called at most `inferences` times. `magnitude` is each macroblock's ‖H − L‖₁.
    """
    rows, cols = magnitude.shape
    base = measure(np.zeros((rows, cols), np.bool_))
    spent = 1

    def effect(tile: _Tile) -> float:
        mask = np.zeros((rows, cols), np.bool_)
        mask[tile.window] = True
        return abs(measure(mask) - base)

    # A heap of (−effect, order, tile); the order breaks ties, so equal effects are split first come first.
    heap: list[tuple[float, int, _Tile]] = []
    for tile in _even_tiles(rows, cols, max(1, int((inferences - 1) * COARSE_SHARE))):
        heapq.heappush(heap, (-effect(tile), len(heap), tile))
        spent += 1
    settled: list[tuple[float, int, _Tile]] = []
    while heap and spent + 2 <= inferences:
        largest = heapq.heappop(heap)
        tile = largest[2]
        if tile.rows * tile.cols == 1:
            settled.append(largest)
            continue
        for half in tile.halves():
            spent += 1
            heapq.heappush(heap, (-effect(half), spent + rows * cols, half))
    gradient = np.zeros((rows, cols), np.float32)
    for negative_effect, _, tile in heap + settled:
        share = magnitude[tile.window] / max(float(magnitude[tile.window].sum()), 1e-12)
        gradient[tile.window] = -negative_effect * share
    return gradient


def _even_tiles(rows: int, cols: int, count: int) -> list[_Tile]:
    """At most `count` near-square tiles of near-equal size that cover the map."""
    down = int(np.clip(round((count * rows / cols) ** 0.5), 1, min(rows, count)))
    across = int(np.clip(count // down, 1, cols))
    row_edges = np.linspace(0, rows, down + 1).round().astype(int).tolist()
    col_edges = np.linspace(0, cols, across + 1).round().astype(int).tolist()
    return [
        _Tile(top, left, bottom - top, right - left)
        for top, bottom in itertools.pairwise(row_edges)
        for left, right in itertools.pairwise(col_edges)
    ]
