"""Rates at equal accuracy, and intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interpolation",
    "bd_rate_percent",
    "bootstrap_interval",
    "common_range",
    "rate_at_accuracy",
    "useful_points",
]

Interpolation = Literal["linear", "pchip"]
"""How log-size runs between two measured points.

`linear`, the default, invents nothing between the points of a noisy accuracy curve. `pchip` is the monotone
piecewise cubic of the spreadsheets of the MPEG and JVET common test conditions, for figures held against
theirs. Both pass through every useful point. Bjøntegaard's first proposal, one cubic through all points
(VCEG-M33), is not offered: it overshoots on curves as uneven as these.
"""

_SAMPLES = 2000


def bd_rate_percent(
    sizes: Sequence[float],
    accuracies: Sequence[float],
    base_sizes: Sequence[float],
    base_accuracies: Sequence[float],
    *,
    band: tuple[float, float] = (0.0, 1.0),
    interpolation: Interpolation = "linear",
) -> float | None:
    """Bytes (or delay) at equal accuracy against a baseline, in percent; negative is a saving.

    Bjøntegaard's mean difference of log-size over the accuracies that both curves reach and that lie in
    `band`, on the points that no smaller point reaches. Returns None where the curves share no accuracy.

    >>> bd_rate_percent([50, 100], [0.5, 0.9], [100, 200], [0.5, 0.9])
    -50.0
    """
    curve, base = useful_points(sizes, accuracies), useful_points(base_sizes, base_accuracies)
    low, high = common_range(curve[1], base[1], band)
    if high - low < 1e-6:
        return None
    difference = _area(*curve, low, high, interpolation) - _area(*base, low, high, interpolation)
    return float(round(100 * np.expm1(difference / (high - low)), 10))


def common_range(
    accuracies: NDArray[np.float64], base_accuracies: NDArray[np.float64], band: tuple[float, float]
) -> tuple[float, float]:
    """The accuracies that both rising curves reach within the band; upside down where there are none."""
    low = max(float(accuracies[0]), float(base_accuracies[0]), band[0])
    high = min(float(accuracies[-1]), float(base_accuracies[-1]), band[1])
    return low, high


def rate_at_accuracy(sizes: Sequence[float], accuracies: Sequence[float], accuracy: float) -> float | None:
    """The size at which a curve reaches an accuracy; None if it does not."""
    log_size, reached = useful_points(sizes, accuracies)
    if not reached[0] <= accuracy <= reached[-1]:
        return None
    return float(np.exp(np.interp(accuracy, reached, log_size)))


def useful_points(
    sizes: Sequence[float], accuracies: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-sizes and accuracies, both rising, of the points that no smaller point reaches: those of use."""
    order = sorted(range(len(sizes)), key=lambda index: (sizes[index], -accuracies[index]))
    kept_sizes: list[float] = []
    kept: list[float] = []
    for index in order:
        if not kept or accuracies[index] > kept[-1]:
            kept_sizes.append(float(np.log(sizes[index])))
            kept.append(float(accuracies[index]))
    return np.asarray(kept_sizes), np.asarray(kept)


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean, by resampling the values."""
    data = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(data), (_SAMPLES, len(data)))
    low, high = np.percentile(data[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _area(
    log_size: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    low: float,
    high: float,
    interpolation: Interpolation,
) -> float:
    """The integral of log-size over the accuracies from `low` to `high`, exact for the interpolation."""
    if interpolation == "pchip":
        from scipy.interpolate import PchipInterpolator

        return float(PchipInterpolator(accuracy, log_size).integrate(low, high))
    inside = accuracy[(accuracy > low) & (accuracy < high)]
    at = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(np.interp(at, accuracy, log_size), at))
