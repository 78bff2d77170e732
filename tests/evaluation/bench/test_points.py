"""Where a sweep measures next, for any curve of scores."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from accmpeg.evaluation.bench.points import BAND, COARSE, between, next_quality

FINEST, COARSEST = 10, 51


def walk(score_at: list[float], count: int, shift: int = 0) -> list[int]:
    """All qualities that a method is measured at, in their order; `score_at` by quality."""
    measured: dict[int, float] = {}
    while (quality := next_quality(measured, count, shift=shift)) is not None:
        assert FINEST <= quality <= COARSEST
        assert quality not in measured
        measured[quality] = score_at[quality]
    return list(measured)


scores = st.lists(st.floats(0, 1.05), min_size=COARSEST + 1, max_size=COARSEST + 1)
falling = scores.map(lambda values: sorted(values, reverse=True))


@given(scores, st.integers(3, 12), st.integers(-20, 20))
def test_any_curve_ends_within_the_count_and_never_repeats(
    values: list[float], count: int, shift: int
) -> None:
    points = walk(values, count, shift)
    assert len(points) <= count
    assert sorted(points[: len(COARSE)]) == sorted(
        {min(COARSEST, max(FINEST, level + shift)) for level in COARSE} | set(points[: len(COARSE)])
    )


@given(falling, st.integers(3, 12))
def test_the_next_point_depends_on_what_is_measured_and_not_on_the_order(
    values: list[float], count: int
) -> None:
    points = walk(values, count)
    for done in range(len(COARSE), len(points)):
        known = {quality: values[quality] for quality in sorted(points[:done], reverse=True)}
        assert next_quality(known, count) == points[done]


@given(st.floats(20, 48), st.floats(1.5, 6))
def test_enough_points_span_the_band_of_a_smooth_curve_and_close_its_gaps(
    middle: float, width: float
) -> None:
    def score(quality: float) -> float:
        return 1 / (1 + math.exp((quality - middle) / width))

    points = sorted(walk([score(quality) for quality in range(COARSEST + 1)], 20))
    assert score(points[0]) >= BAND[1] or points[0] == FINEST
    assert score(points[-1]) <= BAND[0] or points[-1] == COARSEST
    inside = [quality for quality in points if BAND[0] < score(quality) < BAND[1]]
    # With twenty points there is none left between two neighbours that the band lies between.
    assert all(b - a <= 2 for a, b in pairwise(inside))


def test_coarse_points_first_then_the_middle_of_the_widest_gap_by_hand() -> None:
    assert [next_quality(dict.fromkeys(COARSE[:done], 0.9), 7) for done in range(3)] == list(COARSE)
    # From 0.99 to 0.95 the band holds 0.03, from 0.95 to 0.75 it holds 0.15.
    assert next_quality({26: 0.99, 34: 0.95, 42: 0.75}, 7) == 38
    assert next_quality({26: 0.99, 34: 0.95, 42: 0.75}, 3) is None
    # Beyond the coarse ones where they do not reach: coarser first, by six.
    assert next_quality({26: 0.99, 34: 0.95, 42: 0.85}, 7) == 48
    assert next_quality({26: 0.95, 34: 0.90, 42: 0.75}, 7) == 20
    # Not finer where finer no longer helps.
    assert next_quality({20: 0.951, 26: 0.95, 34: 0.90, 42: 0.75}, 7) == 38


def test_nothing_to_find_ends_soon() -> None:
    assert len(walk([0.0] * 52, 12)) <= 4
    assert len(walk([1.0] * 52, 12)) <= 6


@given(st.sets(st.integers(FINEST, COARSEST), min_size=2))
def test_a_null_point_lies_between_each_two_neighbours(measured: set[int]) -> None:
    points = sorted(measured)
    found = between(list(measured))
    assert len(found) == len(points) - 1
    assert all(a < quality < b for a, quality, b in zip(points, found, points[1:], strict=False))
