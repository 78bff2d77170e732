"""Quality maps on frames: one QP offset per macroblock, carried to the encoder as regions of interest.

FFmpeg's encoders read `AVRegionOfInterest` side data: rectangles with `qoffset = offset / 51`. Two ways put
it on a frame, with identical output: `av_frame_new_side_data` through ctypes (a dense map costs some tens of
microseconds) and, where that is not proven to work, the `addroi` filter, one per rectangle. Callers see
one function, `MapAttacher.attached`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from accmpeg.errors import EncoderError
from accmpeg.media import native
from accmpeg.media.frames import filter_graph
from accmpeg.media.grid import MACROBLOCK_PX, MacroblockGrid

__all__ = ["MapAttacher", "map_rectangles", "quantise_levels"]

QP_RANGE = 51
STEPS_PER_QP = 256  # qoffset is a rational: its denominator keeps fractional offsets exact to 1/256 QP

_REGION = np.dtype(
    [(name, np.uint32 if name == "self_size" else np.int32) for name in
     ("self_size", "top", "bottom", "left", "right", "qoffset_num", "qoffset_den")]
)  # fmt: skip
_SIDE_DATA_KIND = cast(int, Type.REGIONS_OF_INTEREST.value)

Rectangle = tuple[int, int, int, int, int]


class MapAttacher:
    """Puts QP-offset maps on frames of one size; keeps what a held map would have it build again.

    `levels`: how many different non-zero offsets the encoder can hold (VP9: 7), None for any number;
    `scale`: multiplies every offset, for encoders whose quantiser scale differs from H.264's.
    """

    def __init__(self, grid: MacroblockGrid, *, levels: int | None = None, scale: float = 1.0) -> None:
        self._grid = grid
        self._levels = levels
        self._scale = scale
        self._native = native.can_attach_side_data()
        self._records = _region_records(grid)
        self._held: NDArray[np.float32] | None = None
        self._graph: av.filter.Graph | None = None

    @contextmanager
    def attached(self, frame: av.VideoFrame, qp_offsets: NDArray[np.floating]) -> Iterator[av.VideoFrame]:
        """Gives a frame that carries the map; the caller's frame has no map again afterwards.

        `qp_offsets` is (rows, cols) in QP, clipped to ±51. Raises EncoderError for another shape and for
        values that are not finite.
        """
        self._hold(qp_offsets)
        if not self._native:
            yield self._through_filters(frame)
            return
        native.attach_side_data(frame, _SIDE_DATA_KIND, self._records)
        try:
            yield frame
        finally:
            native.remove_side_data(frame, _SIDE_DATA_KIND)

    def _hold(self, qp_offsets: NDArray[np.floating]) -> None:
        offsets = np.asarray(qp_offsets, dtype=np.float32)
        if offsets.shape != self._grid.shape:
            raise EncoderError(
                f"a map of shape {offsets.shape} does not fit {self._grid.width_px}x{self._grid.height_px}: "
                f"it takes {self._grid.shape} (rows, cols) of 16x16 macroblocks"
            )
        # Compared by content, not identity: a caller may write the next map into the same array.
        if self._held is not None and np.array_equal(offsets, self._held):
            return
        if not np.isfinite(offsets).all():
            raise EncoderError("a map of QP offsets holds NaN or infinite values")
        self._held = offsets.copy()
        steered = offsets * self._scale if self._scale != 1.0 else offsets
        if self._levels is not None:
            steered = quantise_levels(steered, self._levels)
        steps = np.rint(np.clip(steered, -QP_RANGE, QP_RANGE) * STEPS_PER_QP)
        self._records["qoffset_num"] = steps.ravel()
        self._graph = None

    def _through_filters(self, frame: av.VideoFrame) -> av.VideoFrame:
        if self._graph is None:
            steps = self._records["qoffset_num"].reshape(self._grid.shape)
            self._graph = _region_graph(frame, map_rectangles(steps))
        self._graph.vpush(frame)
        carried = self._graph.vpull()
        carried.time_base = frame.time_base  # a filter graph has its own
        carried.pts = frame.pts
        carried.pict_type = frame.pict_type
        return carried


def map_rectangles(steps: NDArray[np.integer]) -> list[Rectangle]:
    """Covers a (rows, cols) map by rectangles of equal value: (row, col, rows, cols, value), zeros left out.

    >>> map_rectangles(np.array([[5, 5, 0], [5, 5, 7]]))
    [(0, 0, 2, 2, 5), (1, 2, 1, 1, 7)]
    """
    done: list[Rectangle] = []
    open_runs: dict[tuple[int, int, int], int] = {}  # (col, cols, value) → first row
    for row, values in enumerate([*steps, None]):
        runs: set[tuple[int, int, int]] = set()
        if values is not None:
            edges = np.flatnonzero(np.diff(values)) + 1
            starts = [0, *edges.tolist()]
            ends = [*edges.tolist(), len(values)]
            runs = {(s, e - s, int(values[s])) for s, e in zip(starts, ends, strict=True) if values[s]}
        for run in [run for run in open_runs if run not in runs]:
            first = open_runs.pop(run)
            done.append((first, run[0], row - first, run[1], run[2]))
        for run in runs:
            open_runs.setdefault(run, row)
    return sorted(done)


def quantise_levels(values: NDArray[np.floating], levels: int) -> NDArray[np.float32]:
    """Replaces the values by zero and at most `levels` others (1-D k-means); zeros stay; same shape.

    Values are first rounded to whole steps of VP9's 0 to 63 quantiser, which is all that it can hold, and
    come back in QP-offset units half a step further from zero, because FFmpeg truncates.
    """
    per_qp = 63 / QP_RANGE
    whole = np.rint(np.asarray(values, dtype=np.float64) * per_qp)
    found, inverse, counts = np.unique(whole, return_inverse=True, return_counts=True)
    if np.count_nonzero(found) > levels:
        # Zero stays a level of its own: VP9 gives it to every block that no region covers.
        centres = np.linspace(found[0], found[-1], levels)
        for _ in range(10):
            centres = np.sort(np.append(centres, 0.0))
            nearest = np.abs(found[:, None] - centres).argmin(axis=1)
            total = np.bincount(nearest, counts, levels + 1)
            moved = np.bincount(nearest, counts * found, levels + 1) / np.maximum(total, 1e-9)
            moved = np.where(total > 0, moved, centres)
            centres = np.delete(moved, int(np.flatnonzero(centres == 0)[0]))
        centres = np.sort(np.append(centres, 0.0))
        found = np.rint(centres)[np.abs(found[:, None] - centres).argmin(axis=1)]
    stepped = np.where(found == 0, 0, found + 0.5 * np.sign(found)) / per_qp
    return stepped[inverse.reshape(whole.shape)].astype(np.float32)


def _region_records(grid: MacroblockGrid) -> NDArray[np.void]:
    top, left = np.indices(grid.shape).reshape(2, -1) * MACROBLOCK_PX
    records = np.zeros(grid.rows * grid.cols, dtype=_REGION)
    records["self_size"] = _REGION.itemsize
    records["top"], records["left"] = top, left
    records["bottom"] = np.minimum(top + MACROBLOCK_PX, grid.height_px)
    records["right"] = np.minimum(left + MACROBLOCK_PX, grid.width_px)
    records["qoffset_den"] = QP_RANGE * STEPS_PER_QP
    return records


def _region_graph(frame: av.VideoFrame, rectangles: list[Rectangle]) -> av.filter.Graph:
    filters = []
    for row, col, rows, cols, steps in rectangles:
        x, y, width, height = (MACROBLOCK_PX * n for n in (col, row, cols, rows))
        filters.append(("addroi", f"{x}:{y}:{width}:{height}:{steps}/{QP_RANGE * STEPS_PER_QP}"))
    return filter_graph(frame, filters)
