"""One method against a baseline at equal accuracy: a figure per clip or the plain reason why there is none.

```
points of the method ──┐                      ┌▶ percent        common accuracies in the band, wide enough
                       ├▶ compare (one clip) ─┤
points of the baseline ┘                      └▶ note, verdict  too few points, no common accuracy, saturated
rates of all clips ─▶ Rate: geometric mean with interval, mean, median, worst clip; who won without a figure
points of all clips ─▶ PooledRate: one curve of mean accuracies and mean log-sizes, one figure, an interval
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.metrics import (
    Interpolation,
    bd_rate_percent,
    bootstrap_interval,
    common_range,
    useful_points,
)

__all__ = [
    "MIN_POINTS",
    "MIN_RANGE",
    "ClipRate",
    "Points",
    "PooledRate",
    "Rate",
    "compare",
    "compare_pooled",
]

MIN_POINTS = 3
"""Fewer different operating points make no curve."""

MIN_RANGE = 0.02
"""A BD-rate over fewer accuracies is a ratio of noise: such a clip is called saturated."""

Unit = Literal["bytes", "ms"]
_RESAMPLES = 500
_Rising = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Points:
    """Operating points of one method on one clip: sizes (bytes or mean delay in ms) and accuracies."""

    sizes: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def distinct(self) -> int:
        return len(set(zip(self.sizes, self.accuracies, strict=True)))


@dataclass(frozen=True)
class ClipRate:
    """Size at equal accuracy on one clip, in percent; without it `note` says why, `verdict` who won."""

    clip: str
    percent: float | None = None
    note: str = ""
    verdict: Literal["", "better", "worse"] = ""
    baseline: str = ""
    """The setting that the baseline stands for on this clip."""


@dataclass(frozen=True)
class Rate:
    """A method against a baseline over clips. All figures are percent; None without any clip that has one."""

    clips: tuple[ClipRate, ...]

    @property
    def values(self) -> list[float]:
        return [clip.percent for clip in self.clips if clip.percent is not None]

    @property
    def better(self) -> int:
        """Clips without a figure on which only the method reaches what it reaches."""
        return sum(clip.verdict == "better" for clip in self.clips)

    @property
    def worse(self) -> int:
        """Clips without a figure on which only the baseline reaches what it reaches."""
        return sum(clip.verdict == "worse" for clip in self.clips)

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def median(self) -> float | None:
        return float(np.median(self.values)) if self.values else None

    @property
    def geometric_mean(self) -> float | None:
        """Of the ratios: halving on one clip and doubling on another is no change."""
        return float(100 * np.expm1(np.mean(self._logs()))) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap 95 % interval over clips of the geometric mean; None for fewer than three clips."""
        if len(self.values) < 3:
            return None
        low, high = bootstrap_interval(self._logs())
        return 100 * float(np.expm1(low)), 100 * float(np.expm1(high))

    @property
    def worst(self) -> ClipRate | None:
        having = [clip for clip in self.clips if clip.percent is not None]
        return max(having, key=lambda clip: clip.percent or 0.0) if having else None

    def _logs(self) -> list[float]:
        return [float(np.log1p(value / 100)) for value in self.values]


def compare(
    clip: str,
    points: Points,
    base: Points,
    *,
    band: tuple[float, float],
    unit: Unit = "bytes",
    interpolation: Interpolation = "linear",
    baseline: str = "",
) -> ClipRate:
    """The rate on one clip, or why there is none. `baseline` names what the points of the base come from.

    >>> points, base = Points((50, 60, 75), (0.7, 0.8, 0.9)), Points((100, 120, 150), (0.7, 0.8, 0.9))
    >>> compare("street", points, base, band=(0.7, 0.9)).percent
    -50.0
    """
    for who, some in (("", points), ("the baseline ", base)):
        if some.distinct < MIN_POINTS:
            count = {0: "no operating point", 1: "only 1 operating point"}.get(
                some.distinct, f"only {some.distinct} different operating points"
            )
            return ClipRate(clip, note=f"{who}has {count}, {MIN_POINTS} are needed", baseline=baseline)
    curve, other = useful_points(points.sizes, points.accuracies), useful_points(base.sizes, base.accuracies)
    within = np.clip(other[1], *band)
    low, high = common_range(curve[1], other[1], band)
    if high < low:
        note, verdict = _apart(curve, other, band, unit)
        return ClipRate(clip, note=note, verdict=verdict, baseline=baseline)
    if within[-1] - within[0] < MIN_RANGE:
        return ClipRate(
            clip,
            note=f"saturated: the baseline covers only {within[-1] - within[0]:.3f} of accuracy in the band",
            baseline=baseline,
        )
    if high - low < MIN_RANGE:
        return ClipRate(
            clip,
            note=f"the curves share only {high - low:.3f} of accuracy in the band ({low:.3f} to {high:.3f})",
            baseline=baseline,
        )
    percent = bd_rate_percent(
        points.sizes, points.accuracies, base.sizes, base.accuracies, band=band, interpolation=interpolation
    )
    return ClipRate(clip, percent, baseline=baseline)


@dataclass(frozen=True)
class PooledRate:
    """Size at equal mean accuracy over clips, in percent, with its bootstrap 95 % interval over clips.

    Steadier than the mean of the clips' own rates: a clip of few objects has a jagged curve of its own, but
    moves the mean curve little.
    """

    percent: float
    interval: tuple[float, float] | None
    clips: int


def compare_pooled(
    points: Sequence[Points],
    bases: Sequence[Points],
    *,
    band: tuple[float, float],
    interpolation: Interpolation = "linear",
) -> PooledRate | None:
    """The rate between two mean curves; both sequences have an entry per clip, points from coarse to fine.

    At each operating point accuracies are averaged over clips, and so are log-sizes, so that every clip
    counts alike. Clips on which a point is missing are left out; None if none is left, or if the mean curves
    have too few points or too little accuracy in common. The interval resamples clips, the same ones for
    both curves.
    """
    most, base_most = (max((p.distinct for p in some), default=0) for some in (points, bases))
    whole = [
        (own, base)
        for own, base in zip(points, bases, strict=True)
        if len(own.sizes) == most and len(base.sizes) == base_most
    ]
    if not whole or min(most, base_most) < MIN_POINTS:
        return None
    tables = [
        (np.log([p.sizes for p in some]), np.asarray([p.accuracies for p in some]))
        for some in zip(*whole, strict=True)
    ]
    count = len(whole)

    def rate(weights: NDArray[np.float64]) -> float | None:
        (log_sizes, accuracies), (base_log_sizes, base_accuracies) = (
            (weights @ sizes, weights @ reached) for sizes, reached in tables
        )
        curve = useful_points(np.exp(log_sizes).tolist(), accuracies.tolist())
        base = useful_points(np.exp(base_log_sizes).tolist(), base_accuracies.tolist())
        low, high = common_range(curve[1], base[1], band)
        if high - low < MIN_RANGE:
            return None
        return bd_rate_percent(
            np.exp(log_sizes).tolist(),
            accuracies.tolist(),
            np.exp(base_log_sizes).tolist(),
            base_accuracies.tolist(),
            band=band,
            interpolation=interpolation,
        )

    percent = rate(np.full(count, 1 / count))
    if percent is None:
        return None
    if count < 3:
        return PooledRate(percent, None, count)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES) / count
    resampled = [value for weights in drawn if (value := rate(weights)) is not None]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return PooledRate(percent, (float(low), float(high)), count)


def _apart(
    curve: _Rising, base: _Rising, band: tuple[float, float], unit: Unit
) -> tuple[str, Literal["", "better", "worse"]]:
    """Says of two rising curves without common accuracy in the band who is better there."""
    (sizes, reached), (base_sizes, base_reached) = curve, base
    if max(reached[-1], base_reached[-1]) < band[0]:
        return (
            f"neither reaches the band: {reached[-1]:.3f} at best, the baseline {base_reached[-1]:.3f}",
            "",
        )
    if reached[-1] < max(base_reached[0], band[0]):
        at = int(np.searchsorted(base_reached, max(base_reached[0], band[0])))
        return (
            f"the baseline reaches {base_reached[at]:.3f} at {_shown(base_sizes[at], unit)}, "
            f"this never (at most {reached[-1]:.3f})",
            "worse",
        )
    if base_reached[-1] < max(reached[0], band[0]):
        at = int(np.searchsorted(reached, max(reached[0], band[0])))
        return (
            f"reaches {reached[at]:.3f} at {_shown(sizes[at], unit)}, "
            f"the baseline never (at most {base_reached[-1]:.3f})",
            "better",
        )
    above = []
    if reached[0] > band[1]:
        above.append(f"above the band at its smallest ({reached[0]:.3f} at {_shown(sizes[0], unit)})")
    if base_reached[0] > band[1]:
        above.append(
            f"the baseline is above it at its smallest "
            f"({base_reached[0]:.3f} at {_shown(base_sizes[0], unit)})"
        )
    return "; ".join(above), ""


def _shown(log_size: float, unit: Unit) -> str:
    size = float(np.exp(log_size))
    if unit == "ms":
        return f"{size:,.0f} ms"
    return f"{size / 1e3:.3g} kB" if size < 1e6 else f"{size / 1e6:.3g} MB"
