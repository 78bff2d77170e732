"""Draws of blocks and clips against closed forms, p-values and Holm's correction by hand."""

import numpy as np
import pytest

from accmpeg.evaluation.findings.resampling import block_weights, holm, over_clips, p_value, percent, span


def test_every_row_of_weights_looks_at_its_own_blocks() -> None:
    drawn = block_weights(7, 50, (1,))
    rows = drawn.weights
    assert rows[drawn.clip.whole].tolist() == [1] * 7
    assert rows[drawn.clip.even].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert rows[drawn.first.whole].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert rows[drawn.second.odd].tolist() == [0, 0, 0, 1, 0, 1, 0]
    assert (rows[drawn.clip.drawn].sum(axis=1) == 7).all()
    assert (rows[drawn.second.drawn].sum(axis=1) == 4).all()
    assert (rows[drawn.second.drawn][:, :3] == 0).all()
    assert len(rows) == 3 * (3 + 50)


def test_the_same_seed_draws_the_same() -> None:
    assert np.array_equal(block_weights(9, 20, (3, 4)).weights, block_weights(9, 20, (3, 4)).weights)
    assert not np.array_equal(block_weights(9, 20, (3, 4)).weights, block_weights(9, 20, (3, 5)).weights)


def test_clips_that_differ_only_by_chance_are_not_counted_as_chance_twice() -> None:
    generator = np.random.default_rng(0)
    clips, sigma = 40, 0.1
    whole = sigma * generator.standard_normal(clips)
    drawn = whole[:, None] + sigma * generator.standard_normal((clips, 400))
    means = over_clips(whole, drawn, np.ones(clips), 0)
    assert means.std() == pytest.approx(sigma / np.sqrt(clips), rel=0.2)


def test_clips_that_differ_truly_spread_the_mean() -> None:
    generator = np.random.default_rng(0)
    clips, tau = 40, 0.3
    whole = tau * generator.standard_normal(clips)
    drawn = whole[:, None] + 0.01 * generator.standard_normal((clips, 400))
    means = over_clips(whole, drawn, np.ones(clips), 0)
    assert means.std() == pytest.approx(whole.std(ddof=1) / np.sqrt(clips), rel=0.05)
    assert means.mean() == pytest.approx(whole.mean(), abs=0.005)


def test_a_heavy_clip_pulls_the_mean() -> None:
    whole = np.array([0.0, 0.0, 1.0])
    means = over_clips(whole, np.repeat(whole[:, None], 10, axis=1), np.array([1.0, 1.0, 98.0]), 0)
    assert np.median(means) > 0.9


def test_an_interval_is_the_middle_of_the_draws_in_percent() -> None:
    logs = np.log(np.linspace(0.5, 1.5, 1001))
    interval = span(logs)
    assert (interval.low, interval.high) == (pytest.approx(-47.5), pytest.approx(47.5))
    assert percent(float(np.log(0.5))) == pytest.approx(-50)


@pytest.mark.parametrize(
    ("logs", "expected"), [([-0.1] * 99, 0.02), ([0.1] * 50 + [-0.1] * 49, 1.0), ([0.0] * 99, 1.0)]
)
def test_p_values_count_both_sides(logs: list[float], expected: float) -> None:
    assert p_value(np.array(logs)) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # Sorted: 0.005·4, 0.01·3, 0.03·2, 0.04·1; the last may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
