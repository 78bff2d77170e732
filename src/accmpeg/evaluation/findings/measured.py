"""Rows of one server DNN and reference as arrays: what every draw of blocks makes of every curve.

```
rows of a clip ─▶ counts, bytes, delays per block ─┐
                     block weights (rows, blocks) ─┴▶ S / ceiling and bitrate (rows, points) ─▶ fit ─▶ Track
```

A `Track` is a method on a clip as one quantity at each target: the bitrate that reaches it, or the mean delay
there. Its rows are those of the clip's `BlockWeights`, so that rows of two tracks belong together.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.bench.rows import CellRow, ReferenceName, by_clip
from accmpeg.evaluation.bench.score import scores
from accmpeg.evaluation.findings.curves import MIN_POINTS, Reached, fit, interpolate, reach
from accmpeg.evaluation.findings.findings import HEADLINE_TARGETS, LEVELS, MIN_CEILING
from accmpeg.evaluation.findings.resampling import BlockWeights, block_weights
from accmpeg.evaluation.link.delay import LOAD_LIMIT

__all__ = [
    "DrawnCurve",
    "MeasuredClip",
    "Track",
    "bitrate_track",
    "cell_score",
    "delay_track",
    "has_delay",
    "measure_clips",
    "why_unused",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Track:
    """A method on a clip at each target."""

    targets: tuple[float, ...]
    logs: Floats
    """Logarithm of the quantity, (rows, targets); a bound where `side` is not 0. No rows without a curve."""
    side: NDArray[np.int8]
    """As in `Reached`; 1 also where the target lies beyond what the link carries."""
    why: tuple[str, ...]
    """By target: why the whole clip has no figure, or nothing."""


@dataclass(frozen=True)
class DrawnCurve:
    """A method's points on one clip, sorted by bitrate, and their curves under all block weights."""

    rows: tuple[CellRow, ...]
    log_bitrate: Floats
    """(rows of weights, points), sorted in each row."""
    relative: Floats
    """S over the ceiling, as measured."""
    fitted: Floats
    order: NDArray[np.int64]
    """(rows of weights, points): which of `rows` stands where; bitrates may change places."""
    reached: Reached
    """At LEVELS."""


@dataclass(frozen=True)
class MeasuredClip:
    """A clip under one reference. Without a usable ceiling it has no curves."""

    clip: str
    ceiling: float | None
    weight: float
    blocks: int
    weights: BlockWeights | None
    ceilings: Floats
    """By row of weights."""
    curves: Mapping[tuple[str, str], DrawnCurve]
    """By role (method, null) and method."""
    rows: tuple[CellRow, ...]
    why_left_out: str

    def relative(self, row: CellRow, reference: ReferenceName) -> float | None:
        """S of a cell over the ceiling of the clip."""
        value = cell_score(row, reference)
        return None if value is None or not self.ceiling else value / self.ceiling


def cell_score(row: CellRow, reference: ReferenceName) -> float | None:
    """S of a whole cell; None where it was not counted against the reference, or where there is nothing."""
    counts = row.blocks.counts.get(reference)
    if not counts or row.status != "ok":
        return None
    value = float(scores(np.asarray(counts, dtype=np.float64).sum(axis=0), row.task))
    return value if np.isfinite(value) else None


def measure_clips(
    rows: Sequence[CellRow], reference: ReferenceName, *, draws: int, seed: int, halves: bool = True
) -> list[MeasuredClip]:
    """The clips of one server DNN on which anything was counted against the reference.

    `halves=False` where no best of a group is chosen.
    """
    done = [row for row in rows if row.status == "ok" and row.blocks.counts.get(reference)]
    return [
        _measure(clip, list(mine), reference, draws=draws, seed=seed, halves=halves)
        for clip, mine in by_clip(done).items()
    ]


def why_unused(row: CellRow, blocks: int | None = None) -> str:
    """Why a finished cell is no point of a curve; nothing if it is one."""
    if 0 < row.source_bitrate_bps < row.bitrate_bps:
        return (
            f"{row.bitrate_bps / 1000:,.0f} kbit/s is more than the source file's own "
            f"{row.source_bitrate_bps / 1000:,.0f}"
        )
    if row.bitrate_bps <= 0:
        return "it sent nothing"
    if blocks is not None and len(row.blocks.frames) != blocks:
        return f"it has {len(row.blocks.frames)} blocks of frames, the ceiling {blocks}: measure it again"
    return ""


def has_delay(row: CellRow, link: str, bandwidth_bps: float | None) -> bool:
    """Whether a cell has a delay over a link: not where the camera, the server or the link is overloaded."""
    if link not in row.delays or max(row.camera_load, row.server_load) > LOAD_LIMIT:
        return False
    return bandwidth_bps is None or row.bitrate_bps <= bandwidth_bps


def _measure(
    clip: str, rows: list[CellRow], reference: ReferenceName, *, draws: int, seed: int, halves: bool
) -> MeasuredClip:
    task = rows[0].task
    top = next((row for row in rows if row.role == "ceiling"), None)
    counts = None if top is None else _counts(top, reference)
    ceiling = None if top is None else cell_score(top, reference)
    why = ""
    if top is None:
        why = "no visually lossless stream was measured, so there is no ceiling"
    elif ceiling is None:
        why = "there is nothing to find"
    elif ceiling < MIN_CEILING:
        why = f"even a visually lossless stream has S {ceiling:.2f}, less than {MIN_CEILING:g}"
    if counts is None or top is None or why:
        blocks = len(rows[0].blocks.frames)
        return MeasuredClip(clip, ceiling, 0.0, blocks, None, np.empty(0), {}, tuple(rows), why)
    # The draws of a clip depend on its name and not on which other clips there are.
    drawn = block_weights(len(counts), draws, (seed, zlib.crc32(clip.encode())), halves=halves)
    ceilings = scores(np.tensordot(drawn.weights, counts, axes=1), task)
    groups: dict[tuple[str, str], list[CellRow]] = {}
    for row in rows:
        if row.role in ("method", "null") and not why_unused(row, len(counts)):
            groups.setdefault((row.role, row.method), []).append(row)
    curves = {
        key: _curve(mine, reference, drawn, ceilings)
        for key, mine in groups.items()
        if len(mine) >= MIN_POINTS
    }
    measured_frames = (top.frames - top.warm_frames) / top.step
    weight = measured_frames if task == "segmentation" else float(counts[..., 2].sum())
    return MeasuredClip(clip, ceiling, weight, len(counts), drawn, ceilings, curves, tuple(rows), "")


def _counts(row: CellRow, reference: ReferenceName) -> Floats:
    return np.asarray(row.blocks.counts[reference], dtype=np.float64)


def _curve(
    rows: list[CellRow], reference: ReferenceName, drawn: BlockWeights, ceilings: Floats
) -> DrawnCurve:
    rows = sorted(rows, key=lambda row: row.bitrate_bps)
    counts = np.stack([_counts(row, reference) for row in rows], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = scores(np.tensordot(drawn.weights, counts, axes=1), rows[0].task) / ceilings[:, None]
        log_bitrate = np.log(np.stack([_bitrates(row, drawn.weights) for row in rows], axis=1))
    # Blocks without objects or bytes, drawn alone, make no curve.
    undefined = ~(np.isfinite(relative) & np.isfinite(log_bitrate)).all(axis=1)
    relative[undefined], log_bitrate[undefined] = np.nan, 0.0
    order = np.argsort(log_bitrate, axis=1, kind="stable")
    log_bitrate = np.take_along_axis(log_bitrate, order, 1)
    relative = np.take_along_axis(relative, order, 1)
    fitted = fit(relative)
    return DrawnCurve(
        tuple(rows),
        log_bitrate,
        relative,
        fitted,
        order,
        reach(log_bitrate, fitted, np.asarray(LEVELS)),
    )


def _bitrates(row: CellRow, weights: Floats) -> Floats:
    """(keyframe / GOP + mean of the other frames) · 8 · frame rate, for each row of block weights."""
    frames = weights @ np.asarray(row.blocks.frames, dtype=np.float64)
    sent = weights @ np.asarray(row.blocks.bytes, dtype=np.float64)
    others = sent / np.maximum(frames, 1)
    return np.asarray((row.keyframe_bytes / row.gop_frames + others) * 8 * row.frame_rate)


def bitrate_track(name: str, curve: DrawnCurve | None) -> Track:
    """The log bitrate at LEVELS."""
    if curve is None:
        return _nothing(LEVELS, f"{name} has no curve: it needs {MIN_POINTS} usable points")
    whole = curve.fitted[0]
    why = []
    for level, side in zip(LEVELS, curve.reached.side[0], strict=True):
        if side > 0:
            # Rounded down: "never reaches 98%, at most 98.0%" would puzzle.
            most = np.floor(1000 * whole[-1]) / 1000
            why.append(f"{name} never reaches {level:.0%} (at most {most:.1%})")
        elif side < 0:
            kbps = np.exp(curve.log_bitrate[0, 0]) / 1000
            smallest = f"{whole[0]:.1%}, {kbps:,.0f} kbit/s"
            why.append(f"{name} is above {level:.0%} at its smallest point ({smallest})")
        else:
            why.append("")
    return Track(LEVELS, curve.reached.log_bitrate, curve.reached.side, tuple(why))


def delay_track(
    name: str, curve: DrawnCurve | None, drawn: BlockWeights | None, link: str, bandwidth_bps: float | None
) -> Track:
    """The log mean delay over a link at HEADLINE_TARGETS, where the fitted curve reaches them."""
    if curve is None or drawn is None:
        return _nothing(HEADLINE_TARGETS, f"{name} has no curve: it needs {MIN_POINTS} usable points")
    index = [LEVELS.index(target) for target in HEADLINE_TARGETS]
    at, side = curve.reached.log_bitrate[:, index], curve.reached.side[:, index]
    valid = [has_delay(row, link, bandwidth_bps) for row in curve.rows]
    if not any(valid):
        return _nothing(HEADLINE_TARGETS, f"{name} has no delay over {link} at any point (overload)")
    delays = np.stack(
        [
            _delays(row, link, drawn.weights) if ok else np.full(len(drawn.weights), np.nan)
            for row, ok in zip(curve.rows, valid, strict=True)
        ],
        axis=1,
    )
    delays = np.take_along_axis(delays, curve.order, 1)
    # Points without a delay are moved to the ends and given their neighbour's, so that reading beyond the
    # carried points gives a bound; `beyond` says that it is one.
    carried = np.isfinite(delays)
    place = np.argsort(~carried, axis=1, kind="stable")
    x = np.take_along_axis(np.where(carried, curve.log_bitrate, np.inf), place, 1)
    delays = np.take_along_axis(delays, place, 1)
    counts = np.maximum(carried.sum(axis=1), 1)
    column = np.minimum(np.arange(x.shape[1])[None, :], counts[:, None] - 1)
    x, delays = np.take_along_axis(x, column, 1), np.take_along_axis(delays, column, 1)
    x = np.where(np.isfinite(x), x, 0.0)
    read = interpolate(x, delays, at)
    beyond = (at > x[:, -1:] + 1e-9) | (at < x[:, :1] - 1e-9)
    why = []
    for number, target in enumerate(HEADLINE_TARGETS):
        if side[0, number]:
            why.append(bitrate_track(name, curve).why[index[number]])
        elif beyond[0, number] or not np.isfinite(read[0, number]):
            kbps = np.exp(at[0, number]) / 1000
            why.append(
                f"{name} has no delay over {link} at {target:.0%}: {kbps:,.0f} kbit/s lie beyond the points "
                "without overload"
            )
        else:
            why.append("")
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(read)
    return Track(HEADLINE_TARGETS, logs, np.where(beyond, np.int8(1), side), tuple(why))


def _delays(row: CellRow, link: str, weights: Floats) -> Floats:
    """Mean delay for each row of block weights; the cell's own mean where its blocks were not kept."""
    blocks = row.blocks.delay_ms.get(link)
    if not blocks or len(blocks) != weights.shape[1]:
        return np.full(len(weights), row.delays[link].mean_ms)
    values = np.asarray([np.nan if value is None else value for value in blocks], dtype=np.float64)
    known = np.isfinite(values)
    frames = weights * known * _block_frames(row, len(blocks))
    total = frames.sum(axis=1)
    mean = (frames @ np.where(known, values, 0.0)) / np.maximum(total, 1e-9)
    return np.where(total > 0, mean, np.nan)


def _block_frames(row: CellRow, blocks: int) -> Floats:
    """Captured frames of each block, keyframes too: ten, and what is left in the last one."""
    whole = np.full(blocks, 10.0)
    rest = row.frames - row.warm_frames - 10 * (blocks - 1)
    if 0 < rest <= 10:
        whole[-1] = rest
    return whole


def _nothing(targets: tuple[float, ...], why: str) -> Track:
    empty = np.empty((0, len(targets)))
    return Track(targets, empty, empty.astype(np.int8), (why,) * len(targets))
