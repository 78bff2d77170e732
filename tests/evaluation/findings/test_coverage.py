"""Do 95 % intervals hold the truth 95 times in 100? Simulated studies, through the whole analysis."""

from collections import Counter

import numpy as np
import pytest

from accmpeg.evaluation.findings.analysis import find
from tests.evaluation.simulated import clip_rows

TRUE_PERCENT = -10.0
TARGETS = (0.85, 0.9, 0.95)


def coverage(studies: int, clips: int, *, scatter: float, noise: float, draws: int) -> dict[str, float]:
    """How often the intervals hold the truth, by what they are of.

    `scatter`: standard deviation of the clips' own log ratios; `noise`: of S on one block. Clips hold from
    few objects to many.
    """
    held: Counter[str] = Counter()
    for seed in range(studies):
        generator = np.random.default_rng((7, seed))
        rows, ratios, weights = [], [], []
        for number in range(clips):
            ratio = np.log1p(TRUE_PERCENT / 100) + scatter * generator.standard_normal()
            mine = clip_rows(
                f"street-{number}",
                {"aq-1": 1.0, "graded": float(np.exp(ratio))},
                generator=generator,
                noise=noise,
                objects=30 * float(np.exp(0.5 * generator.standard_normal())),
                harder=float(generator.uniform(-1, 1)),
                delay_ms=None,
            )
            rows += mine
            ratios.append(ratio)
            weights.append(sum(block[0][2] for block in mine[0].blocks.counts["own"]))
        here = 100 * np.expm1(np.average(ratios, weights=weights))
        found = find(rows, references=["own"], baselines=["aq-1"], draws=draws, seed=seed)
        comparison = found.dnns[0].headline.comparison("graded", "aq-1")
        assert comparison is not None
        for gap in (*comparison.gaps, comparison.bd):
            assert gap is not None
            name = "BD-rate" if gap.target is None else f"{gap.target:g}"
            for kind, interval, truth in (
                ("", gap.interval, TRUE_PERCENT),
                (", macro", gap.macro_interval, TRUE_PERCENT),
                (", these clips", gap.interval_these_clips, here),
            ):
                if interval is not None:
                    held[name + kind] += interval.low <= truth <= interval.high
    return {name: count / studies for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_95_percent_intervals_hold_the_truth_in_90_to_98_percent_of_500_studies() -> None:
    shares = coverage(500, 12, scatter=0.12, noise=0.02, draws=100)
    for target in ("0.85", "0.9", "0.95", "BD-rate"):
        assert 0.90 <= shares[target] <= 0.98, shares
        assert 0.90 <= shares[f"{target}, macro"] <= 0.98, shares


def test_intervals_hold_the_truth_most_of_the_time() -> None:
    shares = coverage(12, 8, scatter=0.12, noise=0.02, draws=20)
    assert min(shares["0.9"], shares["0.95"], shares["BD-rate, these clips"]) >= 0.75, shares
