"""What a reader has to know before believing a figure, in plain words; never a silent number."""

from collections.abc import Iterable, Sequence

import numpy as np

from accmpeg.evaluation.analysis import WHOLE, DnnAnalysis, diverges
from accmpeg.evaluation.rates import MIN_RANGE
from accmpeg.evaluation.rows import CellRow

__all__ = ["missing_figures", "problems"]


def problems(analysis: DnnAnalysis) -> Sequence[str]:
    """Failed cells, clips that can't be compared on, overloaded links, accuracies that are noise."""
    return [
        *_failures(analysis),
        *(f"{clip}: the server DNN finds nothing on the source; left out" for clip in analysis.empty_clips),
        *_saturations(analysis),
        *_thin_pools(analysis),
        *_overloads(analysis),
        *_noise(analysis),
        *_mixtures(analysis),
    ]


def missing_figures(analysis: DnnAnalysis) -> Sequence[str]:
    """Why there is no figure, for each method and clip that has none, in bytes."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for base, rates in analysis.bytes_rates.items():
        for method, rate in rates.items():
            for clip in rate.clips:
                if clip.percent is None:
                    reasons.setdefault((clip.clip, method, clip.note), []).append(base)
    return [
        f"{clip}, {method} against {' and '.join(bases)}: {note}"
        for (clip, method, note), bases in reasons.items()
    ]


def _failures(analysis: DnnAnalysis) -> Iterable[str]:
    groups: dict[tuple[str, str, str, str], list[CellRow]] = {}
    for row in analysis.rows:
        if row.status == "failed":
            key = (row.clip, row.method, row.role, row.reason or "no reason was given")
            groups.setdefault(key, []).append(row)
    for (clip, method, role, reason), rows in groups.items():
        points = ", ".join(str(row.quality) for row in rows)
        which = "" if role == "method" else f" ({role.replace('_', ' ')})"
        yield f"{clip}, {method}{which}: failed at quality {points}: {reason}"


def _saturations(analysis: DnnAnalysis) -> Iterable[str]:
    for clip in analysis.clips:
        for names, setting in _by_setting(analysis, clip):
            curve = analysis.curves.get((clip, setting or ""))
            if curve is None:
                yield f"{clip}: the baseline {names} has no measured point"
                continue
            reached = curve.by_bytes.accuracies
            low, high = np.clip([min(reached), max(reached)], *analysis.band)
            if high - low < MIN_RANGE:
                kind = "saturated" if low > analysis.band[0] else "hardly in the band"
                yield (
                    f"{clip}: {kind}: the baseline {names} moves by {high - low:.3f} of accuracy in the "
                    f"band ({min(reached):.3f} to {max(reached):.3f} in all), too little to compare on"
                )


def _by_setting(analysis: DnnAnalysis, clip: str) -> Iterable[tuple[str, str | None]]:
    """Baselines by what they stand for on a clip, so that nothing is said twice."""
    settings: dict[str | None, list[str]] = {}
    for base in analysis.baselines:
        settings.setdefault(analysis.setting(base, clip), []).append(base)
    return [(" and ".join(bases), setting) for setting, bases in settings.items()]


def _thin_pools(analysis: DnnAnalysis) -> Iterable[str]:
    places: dict[str, list[str]] = {}
    for method in analysis.methods:
        if method in analysis.pooled or not analysis.clips:
            continue
        counts = {
            clip: len(curve.rows) if (curve := analysis.curves.get((clip, method))) else 0
            for clip in analysis.clips
        }
        thin = [clip for clip, count in counts.items() if count < max(counts.values())]
        where = f"on {', '.join(thin)}" if thin else "on every clip"
        places.setdefault(where, []).append(method)
    for where, methods in places.items():
        yield f"{', '.join(methods)}: points are missing {where}, so there is no pooled curve"


def _overloads(analysis: DnnAnalysis) -> Iterable[str]:
    rows = [row for curve in analysis.curves.values() for row in curve.rows]
    for link, bandwidth_bps in analysis.bandwidths_bps.items():
        if bandwidth_bps is None:
            yield f"{link}: its bandwidth is not known, so streams that overload it were not looked for"
            continue
        over = [row for row in rows if diverges(row, bandwidth_bps)]
        if over:
            yield (
                f"{link}: {len(over)} of {len(rows)} operating points send more than the link carries; their "
                "delay grows for as long as the clip lasts, so all delay figures leave them out"
            )


def _noise(analysis: DnnAnalysis) -> Iterable[str]:
    if analysis.band == WHOLE:
        return
    for clip, floor in analysis.noise_floor.items():
        if floor < analysis.band[1]:
            yield (
                f"{clip}: a stream finer than all compared ones reaches only {floor:.3f}; "
                "differences above that are noise"
            )


def _mixtures(analysis: DnnAnalysis) -> Iterable[str]:
    done = {row.clip: row for row in analysis.rows if row.status == "ok"}
    sizes = sorted({f"{row.width_px}×{row.height_px}" for row in done.values()})
    rates = sorted({f"{row.frame_rate:.4g}" for row in done.values()}, key=float)
    steps = sorted({row.step for row in done.values()})
    if len(sizes) > 1:
        yield f"the clips differ in size ({', '.join(sizes)}); pooled curves mix them"
    if len(rates) > 1:
        yield f"the clips differ in frame rate ({', '.join(rates)} per second)"
    if len(steps) > 1:
        yield f"accuracy is measured on every {', '.join(map(str, steps))}-th frame, by clip"
