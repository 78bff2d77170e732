"""From a sweep's rows to gains: what each setting's bytes are to an untouched x264's, and how sure that is.

```
rows of the parts ─▶ curves under drawn blocks ─▶ log bytes at the kept share ─▶ − those of the plain stream
                                                                              ─▶ mean over parts, covariance
```
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.bench.rows import CellRow, ReferenceName
from accmpeg.evaluation.findings.findings import LEVELS
from accmpeg.evaluation.findings.measured import MeasuredClip, measure_clips, why_unused
from accmpeg.evaluation.methods.whole_stream import StreamSetting

__all__ = ["DRAWS", "Gains", "KneeCurve", "Seen", "measure_gains", "site_curve"]

DRAWS, SEED = 200, 0
NOISE_FLOOR = 0.02
"""Nothing is measured better than to two per cent: the smallest spread of a stream against itself."""
NEVER_REACHED = 0.3
"""Added to the log bytes at the finest point where a setting does not reach the share: a bound, made dear."""

FEW_OBJECTS = 0.5
"""A frame; a score of fewer moves by steps."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """One setting as measured: everything that the table of the outcome says of it."""

    setting: StreamSetting
    gain: float
    """Log of its bytes over the plain stream's, mean over the parts."""
    sd: float
    bitrate_bps: float
    """At the kept share, geometric mean over the parts."""
    crf: float
    camera_ratio: float
    """Camera CPU over the plain stream's."""
    delay_ms: float
    interval: tuple[float, float]
    """95 % of the drawn gains, for this footage."""
    reached: bool


@dataclass(frozen=True)
class Gains:
    """What was measured at one share of the ceiling; `noise` is the covariance of `seen`'s gains."""

    keep: float
    seen: tuple[Seen, ...]
    noise: Floats
    parts: int
    why: str = ""
    """Why nothing can be said, where nothing can, and the way out."""

    def of(self, setting: StreamSetting) -> Seen | None:
        return next((each for each in self.seen if each.setting == setting), None)


@dataclass(frozen=True)
class KneeCurve:
    """S over the ceiling against bitrate, of the plain stream: (bit/s, share), and true accuracy if known."""

    bitrate_bps: Floats
    share: Floats
    true_share: Floats | None
    source_bitrate_bps: float
    knee_bps: float | None
    """From here on twice the bits bring less than a hundredth of the ceiling."""


def measure_gains(rows: Sequence[CellRow], reference: ReferenceName, keep: float) -> Gains:
    """Gains of all whole streams among the rows, at a share of the ceiling that LEVELS has.

    A part on which the plain stream does not reach the share, or has no usable ceiling, is left out.
    """
    level = LEVELS.index(keep)
    clips = measure_clips(rows, reference, draws=DRAWS, seed=SEED, halves=False)
    plain = StreamSetting().name
    usable = [clip for clip in clips if _log_bytes(clip, plain, level) is not None]
    if not usable:
        return Gains(keep, (), np.empty((0, 0)), 0, _why_nothing(rows, clips, reference, keep))
    names = list(dict.fromkeys(name for clip in usable for role, name in clip.curves if role == "method"))
    weights = np.asarray([clip.weight or 1.0 for clip in usable])
    weights = weights / weights.sum()
    seen, drawn = [], []
    for name in names:
        found = [_gain(clip, name, plain, level) for clip in usable]
        if not all(found):
            continue  # measured on some of the parts only: a later round has them all
        gains = np.stack([each[0] for each in found if each])
        mine = weights @ gains
        drawn.append(mine[1:])
        seen.append(_seen(name, mine, [each[1] for each in found if each], usable, level))
    # Every round was timed against an x264 of its own; as that is the plain stream, it is exactly 1 here.
    plain_ratio = next(each.camera_ratio for each in seen if each.setting == StreamSetting()) or 1.0
    seen = [replace(each, camera_ratio=each.camera_ratio / plain_ratio) for each in seen]
    noise = np.atleast_2d(np.cov(np.stack(drawn))) if drawn else np.empty((0, 0))
    return Gains(keep, tuple(seen), noise + np.eye(len(seen)) * NOISE_FLOOR**2, len(usable))


def _why_nothing(
    rows: Sequence[CellRow], clips: Sequence[MeasuredClip], reference: ReferenceName, keep: float
) -> str:
    """In one line, with what helps."""
    longer = "give longer footage with more objects"
    failed = next((row.reason for row in rows if row.status == "failed" and row.reason), None)
    if not clips:
        return failed or f"no answer was counted on it: {longer}"
    left_out = sorted({clip.why_left_out for clip in clips if clip.why_left_out})
    if left_out:
        return f"{'; '.join(left_out)}: {longer}, or a lower score_threshold in the server DNN's card"
    plain = [
        (row, share)
        for clip in clips
        for row in clip.rows
        if row.role == "method"
        and row.method == StreamSetting().name
        and (share := clip.relative(row, reference)) is not None
    ]
    used = [share for row, share in plain if not why_unused(row)]
    best = f"keeps {max(used):.0%} of the ceiling at most" if used else "has no point that counts"
    finer = [row for row, _ in plain if why_unused(row)]
    why, helps = f"an untouched x264 {best}, and {keep:.0%} are asked for", [longer]
    if finer:
        own_kbps = max(row.source_bitrate_bps for row in finer) / 1000
        why = f"below the footage's own {own_kbps:,.0f} kbit/s {why}"
        helps.insert(0, "record it at a higher bitrate")
    objects = [
        row.objects * row.step / max(1, row.frames - row.warm_frames) for row, _ in plain if row.objects
    ]
    if objects and max(objects) < FEW_OBJECTS:
        why += f"; it shows {max(objects):.1g} objects a frame, so few that chance decides"
    return f"{why}: {', '.join(helps)}, or lower --keep"


def _log_bytes(clip: MeasuredClip, name: str, level: int) -> tuple[Floats, bool] | None:
    """Log bitrate at the level, whole clip first and then the draws; whether it is reached."""
    curve = clip.curves.get(("method", name))
    if curve is None or clip.weights is None:
        return None
    rows = np.concatenate(
        [[clip.weights.clip.whole], np.arange(len(clip.weights.weights))[clip.weights.clip.drawn]]
    )
    logs, side = curve.reached.log_bitrate[rows, level], curve.reached.side[rows, level]
    if side[0] > 0 and name == StreamSetting().name:
        return None
    # A draw without objects has no curve: it says what the whole part says.
    logs = np.where(np.isfinite(logs), logs, logs[0])
    return logs + NEVER_REACHED * (side > 0), bool(side[0] <= 0)


def _gain(clip: MeasuredClip, name: str, plain: str, level: int) -> tuple[Floats, bool] | None:
    own, base = _log_bytes(clip, name, level), _log_bytes(clip, plain, level)
    return None if own is None or base is None else (own[0] - base[0], own[1])


def _seen(
    name: str, gains: Floats, reached: Sequence[bool], clips: Sequence[MeasuredClip], level: int
) -> Seen:
    logs, crfs, rows, timed = [], [], [], list[CellRow]()
    # Strength and margin of a map take no CPU, nor do keyframes that are left out: the timing of each, to ten
    # per cent, must not decide.
    setting = StreamSetting.of_name(name)
    untuned = replace(setting, map_strength=1.0, map_margin=StreamSetting.map_margin)
    if replace(setting, gop_frames=StreamSetting.gop_frames) == StreamSetting():
        untuned = StreamSetting()
    for clip in clips:
        curve = clip.curves["method", name]
        at = float(curve.reached.log_bitrate[0, level])
        logs.append(at)
        bitrates = np.log([row.bitrate_bps for row in curve.rows])
        crfs.append(float(np.interp(at, bitrates, [row.quality for row in curve.rows])))
        rows += list(curve.rows)
        timed += list(clip.curves.get(("method", untuned.name), curve).rows)
    delays = [delay.mean_ms for row in rows for delay in row.delays.values()]
    low, high = np.percentile(gains[1:], [2.5, 97.5])
    return Seen(
        setting=setting,
        gain=float(gains[0]),
        sd=float(np.hypot(gains[1:].std(), NOISE_FLOOR)),
        bitrate_bps=float(np.exp(np.mean(logs))),
        crf=float(np.mean(crfs)),
        camera_ratio=median(row.camera_ratio for row in timed),
        delay_ms=median(delays) if delays else math.nan,
        interval=(float(low), float(high)),
        reached=all(reached),
    )


def site_curve(rows: Sequence[CellRow], reference: ReferenceName) -> KneeCurve | None:
    """The plain stream's curve over all parts together: geometric mean of bitrates at the levels of S."""
    clips = measure_clips(rows, reference, draws=1, seed=SEED, halves=False)
    curves = [
        (clip, clip.curves["method", StreamSetting().name])
        for clip in clips
        if ("method", StreamSetting().name) in clip.curves
    ]
    if not curves:
        return None
    grid = np.linspace(
        max(curve.log_bitrate[0, 0] for _, curve in curves),
        min(curve.log_bitrate[0, -1] for _, curve in curves),
        40,
    )
    if grid[-1] <= grid[0]:
        return None
    weights = np.asarray([clip.weight or 1.0 for clip, _ in curves])
    share = np.average(
        [np.interp(grid, curve.log_bitrate[0], curve.fitted[0]) for _, curve in curves],
        axis=0,
        weights=weights,
    )
    doubled = np.interp(np.minimum(grid + math.log(2), grid[-1]), grid, share) - share
    reachable = grid + math.log(2) <= grid[-1]
    flat = np.flatnonzero(reachable & (doubled < 0.01))
    source = max(row.source_bitrate_bps for clip, _ in curves for row in clip.rows)
    knee = float(np.exp(grid[flat[0]])) if len(flat) else None
    return KneeCurve(np.exp(grid), share, _true_share(curves, grid), source, knee)


def _true_share(curves: Sequence[tuple[MeasuredClip, object]], grid: Floats) -> Floats | None:
    """AP (or the task's measure) against true labels, over that of the ceiling, where labels are given."""
    found = []
    for clip, _ in curves:
        top = next((row for row in clip.rows if row.role == "ceiling"), None)
        mine = sorted(
            (math.log(row.bitrate_bps), row.label_accuracy)
            for row in clip.rows
            if row.method == StreamSetting().name and row.label_accuracy is not None and row.bitrate_bps > 0
        )
        if top is None or not top.label_accuracy or len(mine) < 2:
            return None
        x, y = np.asarray(mine).T
        found.append(np.interp(grid, x, y / top.label_accuracy))
    return np.mean(found, axis=0) if found else None
