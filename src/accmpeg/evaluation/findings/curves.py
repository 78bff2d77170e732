"""Accuracy over bitrate as a curve that never falls, and the bitrate at which it reaches a target.

```
S / ceiling ──sorted by log bitrate──▶ isotonic fit ──▶ smallest bitrate that reaches each level
```

More bits can't really make a DNN's answers worse, but measured points do fall here and there, by noise. The
fit is the closest curve that never falls (`scipy.optimize.isotonic_regression`, all points weighing alike):
where points fall, it is flat at their mean. From one point to the next what is lost, l = 1.05 − s, shrinks by
the same factor with each doubling of the bitrate, so that a level is reached at

    x = x₀ + (x₁ − x₀) · log(l₀ / l) / log(l₀ / l₁)        s₀ < level ≤ s₁, the first such pair

A straight line in s would lie below such a curve everywhere between two points, by up to 5 % of the bitrate
with points as a sweep chooses them; in log l it is 1 to 2 %. (1.05 and not 1: some streams score above the
ceiling by chance.) A level that equals a flat part is reached where that part begins: the smallest bitrate.
All functions take many curves at once, one in each row: the draws of a bootstrap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_POINTS", "Reached", "fit", "interpolate", "reach"]

MIN_POINTS = 3
"""Fewer points make no curve."""

Floats = NDArray[np.float64]

_ALL, _LEAST_LOST = 1.05, 0.005


@dataclass(frozen=True)
class Reached:
    """Where curves reach levels; both arrays are (curves, levels)."""

    log_bitrate: Floats
    """Where a level is out of the curve's range, the end of the curve that is nearest to it: a bound. NaN
    where the curve has a NaN."""
    side: NDArray[np.int8]
    """0: reached between two points. 1: never reached. −1: exceeded at the smallest point already."""


def fit(scores: Floats) -> Floats:
    """The isotonic fit of each row of (curves, points), points sorted by bitrate; a NaN spoils its row.

    >>> fit(np.array([[0.5, 0.8, 0.7, 0.9]])).round(3).tolist()
    [[0.5, 0.75, 0.75, 0.9]]
    """
    from scipy.optimize import isotonic_regression

    fitted = np.array(scores, dtype=np.float64)
    falling = (np.diff(fitted, axis=1) < 0).any(axis=1) & np.isfinite(fitted).all(axis=1)
    for row in np.flatnonzero(falling):
        fitted[row] = isotonic_regression(fitted[row]).x
    fitted[~np.isfinite(fitted).all(axis=1)] = np.nan
    return fitted


def reach(log_bitrate: Floats, fitted: Floats, levels: Floats) -> Reached:
    """The smallest log bitrate at which each fitted curve, (curves, points), reaches each of the levels.

    >>> at = reach(np.array([[0.0, 1.0, 2.0]]), np.array([[0.8, 0.9, 0.9]]), np.array([0.7, 0.85, 0.9, 0.95]))
    >>> at.log_bitrate.round(3).tolist(), at.side.tolist()
    ([[0.0, 0.437, 1.0, 2.0]], [[-1, 0, 0, 1]])
    """
    last = fitted.shape[1] - 1
    # Half a billionth of slack: a mean over a flat part may lie a rounding error below the level it is at.
    above = fitted[:, None, :] >= levels[None, :, None] - 5e-10
    never, first = ~above.any(axis=2), above.argmax(axis=2)
    exceeded = (first == 0) & ~never & (fitted[:, :1] > levels[None, :] + 5e-10)
    high = np.where(never, last, first)
    low = np.maximum(high - 1, 0)
    x0, x1 = np.take_along_axis(log_bitrate, low, 1), np.take_along_axis(log_bitrate, high, 1)
    kept = -_log_lost(fitted)
    k0, k1 = np.take_along_axis(kept, low, 1), np.take_along_axis(kept, high, 1)
    rise = k1 - k0
    share = np.clip((-_log_lost(levels)[None, :] - k0) / np.where(rise > 0, rise, 1.0), 0.0, 1.0)
    at = np.where(never | (first == 0), x1, x0 + share * (x1 - x0))
    at = np.where(np.isfinite(fitted).all(axis=1, keepdims=True), at, np.nan)
    side = np.where(never, 1, np.where(exceeded, -1, 0)).astype(np.int8)
    return Reached(at, side)


def _log_lost(scores: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(_ALL - scores, _LEAST_LOST)))


def interpolate(log_bitrate: Floats, values: Floats, at: Floats) -> Floats:
    """Values of points, (curves, points) sorted by bitrate, read at (curves, levels); clamped to the ends.

    >>> interpolate(np.array([[0.0, 1.0, 3.0]]), np.array([[10.0, 20.0, 40.0]]), np.array([[0.5, 2.0, 9.0]]))
    array([[15., 30., 40.]])
    """
    if values.shape[1] == 1:
        return np.broadcast_to(values, at.shape).copy()
    below = (log_bitrate[:, None, :] <= at[:, :, None]).sum(axis=2) - 1
    low = np.clip(below, 0, values.shape[1] - 2)
    x0, x1 = np.take_along_axis(log_bitrate, low, 1), np.take_along_axis(log_bitrate, low + 1, 1)
    width = x1 - x0
    share = np.clip((at - x0) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    v0, v1 = np.take_along_axis(values, low, 1), np.take_along_axis(values, low + 1, 1)
    return np.asarray(v0 + share * (v1 - v0))
