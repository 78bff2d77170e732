"""Rates at equal accuracy and intervals, by closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.evaluation.metrics import bd_rate_percent, bootstrap_interval, rate_at_accuracy

SIZES, ACCURACIES = [100.0, 200.0, 400.0], [0.6, 0.8, 0.9]


@given(st.floats(0.1, 10))
def test_a_scaled_curve_has_its_scale_as_rate(factor: float) -> None:
    scaled = [size * factor for size in SIZES]
    rate = bd_rate_percent(scaled, ACCURACIES, SIZES, ACCURACIES)
    assert rate == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_order_of_points_does_not_matter() -> None:
    shuffled = bd_rate_percent([400.0, 100.0, 200.0], [0.9, 0.6, 0.8], SIZES, ACCURACIES)
    assert shuffled == pytest.approx(0.0)


def test_only_the_band_counts() -> None:
    # Twice the bytes below 0.8, the same above.
    other = [200.0, 200.0 + 1e-9, 400.0]
    rate = bd_rate_percent(other, ACCURACIES, SIZES, ACCURACIES, band=(0.8, 0.9))
    assert rate == pytest.approx(0.0, abs=1e-4)


def test_points_that_waste_bytes_are_passed_over() -> None:
    assert bd_rate_percent([*SIZES, 900.0], [*ACCURACIES, 0.85], SIZES, ACCURACIES) == pytest.approx(0.0)


def test_curves_without_common_accuracy_have_no_rate() -> None:
    assert bd_rate_percent([1.0, 2.0], [0.1, 0.2], [1.0, 2.0], [0.5, 0.6]) is None


def test_rate_at_an_accuracy() -> None:
    assert rate_at_accuracy(SIZES, ACCURACIES, 0.7) == pytest.approx(np.sqrt(100 * 200))
    assert rate_at_accuracy(SIZES, ACCURACIES, 0.95) is None


def test_bootstrap_interval_holds_the_mean_and_repeats() -> None:
    values = np.random.default_rng(4).normal(3, 1, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 / np.sqrt(200), rel=0.2)
    assert (low, high) == bootstrap_interval(values)
