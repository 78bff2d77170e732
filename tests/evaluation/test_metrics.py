"""Rates at equal accuracy and intervals, by closed forms."""

import bjontegaard
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accmpeg.evaluation.metrics import (
    Interpolation,
    bd_rate_percent,
    bootstrap_interval,
    rate_at_accuracy,
)

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


# Four operating points per encoder, from the readme of the bjontegaard package.
RATE_ANCHOR, PSNR_ANCHOR = [9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851]
RATE_TEST, PSNR_TEST = [9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987]


def test_bd_rate_equals_the_librarys_on_textbook_curves() -> None:
    expected = bjontegaard.bd_rate(RATE_ANCHOR, PSNR_ANCHOR, RATE_TEST, PSNR_TEST, method="pchip")
    rate = bd_rate_percent(
        RATE_TEST, PSNR_TEST, RATE_ANCHOR, PSNR_ANCHOR, band=(0, 100), interpolation="pchip"
    )
    assert rate == pytest.approx(expected, abs=1e-6)
    linear = bd_rate_percent(RATE_TEST, PSNR_TEST, RATE_ANCHOR, PSNR_ANCHOR, band=(0, 100))
    assert linear == pytest.approx(expected, abs=0.3), "the default differs by its interpolation only"


@st.composite
def curves(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """A rising curve of three to six points with accuracies between 0 and 1."""
    count = draw(st.integers(3, 6))
    steps = draw(st.lists(st.floats(0.02, 0.15), min_size=count, max_size=count))
    growth = draw(st.lists(st.floats(1.05, 3), min_size=count, max_size=count))
    return list(100 * np.cumprod(growth)), list(np.cumsum(steps))


@pytest.mark.filterwarnings("ignore:Insufficient curve overlap")
@pytest.mark.filterwarnings("ignore:Curves do not overlap")
@settings(deadline=None, max_examples=50)
@given(curves(), curves())
def test_bd_rate_equals_the_librarys_on_any_rising_curves(
    one: tuple[list[float], list[float]], other: tuple[list[float], list[float]]
) -> None:
    rate = bd_rate_percent(*one, *other, interpolation="pchip")
    if rate is None:
        return
    expected = bjontegaard.bd_rate(*other, *one, method="pchip", require_matching_points=False, min_overlap=0)
    assert np.log1p(rate / 100) == pytest.approx(np.log1p(expected / 100), abs=1e-6)


@pytest.mark.parametrize("interpolation", ["linear", "pchip"])
@given(one=curves(), other=curves())
@settings(deadline=None, max_examples=50)
def test_swapping_the_curves_inverts_the_ratio(
    interpolation: Interpolation,
    one: tuple[list[float], list[float]],
    other: tuple[list[float], list[float]],
) -> None:
    there = bd_rate_percent(*one, *other, interpolation=interpolation)
    back = bd_rate_percent(*other, *one, interpolation=interpolation)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1, rel=1e-6)


def test_linear_bd_rate_is_exact_between_the_points() -> None:
    # log2 of the ratio falls from 1 to 0 over 0.5 to 0.7, then stays: its mean over 0.5 to 0.9 is 1/4.
    rate = bd_rate_percent([200, 200 + 1e-9, 400], [0.5, 0.7, 0.9], [100, 200, 400], [0.5, 0.7, 0.9])
    assert rate == pytest.approx(100 * (2**0.25 - 1), abs=1e-6)
