"""Curves by hand: fits that never fall, and where they reach a level."""

import numpy as np
import pytest

from accmpeg.evaluation.findings.curves import fit, interpolate, reach

X = np.array([[0.0, 1.0, 2.0, 3.0]])


def at(scores: list[float], level: float) -> tuple[float, int]:
    reached = reach(X[:, : len(scores)], fit(np.array([scores])), np.array([level]))
    return float(reached.log_bitrate[0, 0]), int(reached.side[0, 0])


def test_a_fall_becomes_flat_at_the_mean() -> None:
    assert fit(np.array([[0.6, 0.9, 0.8, 0.7]]))[0] == pytest.approx([0.6, 0.8, 0.8, 0.8])


def test_only_rows_that_fall_are_changed() -> None:
    rows = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.1, np.nan, 0.3]])
    fitted = fit(rows)
    assert fitted[0].tolist() == [0.1, 0.2, 0.3]
    assert fitted[1] == pytest.approx([0.2, 0.2, 0.2])
    assert np.isnan(fitted[2]).all()


@pytest.mark.parametrize(
    ("scores", "level", "expected"),
    [
        # log(0.25 / 0.2) of log(0.25 / 0.15): what is lost shrinks by a steady factor.
        ([0.8, 0.9, 1.0], 0.85, (0.4368, 0)),
        ([0.8, 0.9, 1.0], 0.9, (1.0, 0)),
        ([0.8, 0.8, 0.9], 0.8, (0.0, 0)),
        # A flat part at the level: reached where it begins.
        ([0.7, 0.9, 0.9, 1.0], 0.9, (1.0, 0)),
        # Pooled to 0.9 over both middle points.
        ([0.7, 0.95, 0.85, 1.0], 0.9, (1.0, 0)),
        ([0.7, 0.95, 0.85, 1.0], 0.91, (2.0628, 0)),
        ([0.8, 0.9, 1.2], 0.95, (1.1192, 0)),
        ([0.8, 0.9, 0.94], 0.95, (2.0, 1)),
        ([0.91, 0.95, 0.99], 0.9, (0.0, -1)),
    ],
)
def test_the_smallest_bitrate_that_reaches_a_level(
    scores: list[float], level: float, expected: tuple[float, int]
) -> None:
    log_bitrate, side = at(scores, level)
    assert (log_bitrate, side) == (pytest.approx(expected[0], abs=1e-4), expected[1])


def test_many_curves_at_once_are_those_one_by_one() -> None:
    generator = np.random.default_rng(1)
    x = np.sort(generator.uniform(0, 5, (200, 7)), axis=1)
    fitted = fit(generator.uniform(0.7, 1.0, (200, 7)))
    levels = np.linspace(0.75, 0.98, 24)
    together = reach(x, fitted, levels)
    for row in range(len(x)):
        alone = reach(x[row : row + 1], fitted[row : row + 1], levels)
        assert np.array_equal(alone.log_bitrate[0], together.log_bitrate[row])
    assert (np.diff(fitted, axis=1) >= -1e-12).all()
    assert (np.diff(together.log_bitrate, axis=1) >= -1e-12).all(), "more never takes less"


def test_a_value_is_read_between_its_neighbours_and_never_beyond_the_ends() -> None:
    values = np.array([[10.0, 20.0, 40.0, 40.0]])
    assert interpolate(X, values, np.array([[0.25, 1.5, -1.0, 8.0]]))[0].tolist() == [12.5, 30.0, 10.0, 40.0]
