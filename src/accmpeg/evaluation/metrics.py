"""Rates at equal accuracy, and intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bd_rate_percent", "bootstrap_interval", "rate_at_accuracy"]

_SAMPLES = 2000


def bd_rate_percent(
    sizes: Sequence[float],
    accuracies: Sequence[float],
    base_sizes: Sequence[float],
    base_accuracies: Sequence[float],
    *,
    band: tuple[float, float] = (0.0, 1.0),
) -> float | None:
    """Bytes at equal accuracy against a baseline, in percent; negative is a saving (Bjøntegaard, VCEG-M33).

    The mean difference of log-size over the accuracies that both curves reach and that lie in `band`, on
    straight lines between the measured points. Returns None where the curves share no accuracy.

    >>> bd_rate_percent([50, 100], [0.5, 0.9], [100, 200], [0.5, 0.9])
    -50.0
    """
    log_size, accuracy = _rising(sizes, accuracies)
    base_log_size, base_accuracy = _rising(base_sizes, base_accuracies)
    low = max(accuracy[0], base_accuracy[0], band[0])
    high = min(accuracy[-1], base_accuracy[-1], band[1])
    if high - low < 1e-6:
        return None
    at = np.linspace(low, high, 400)
    difference = np.interp(at, accuracy, log_size) - np.interp(at, base_accuracy, base_log_size)
    return float(round(100 * np.expm1(np.trapezoid(difference, at) / (high - low)), 10))


def rate_at_accuracy(sizes: Sequence[float], accuracies: Sequence[float], accuracy: float) -> float | None:
    """The size at which a curve reaches an accuracy; None if it does not."""
    log_size, reached = _rising(sizes, accuracies)
    if not reached[0] <= accuracy <= reached[-1]:
        return None
    return float(np.exp(np.interp(accuracy, reached, log_size)))


def _rising(
    sizes: Sequence[float], accuracies: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-sizes and accuracies of the points that no smaller point reaches: what one would really use."""
    order = np.argsort(sizes)
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
