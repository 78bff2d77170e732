"""Comparisons named beforehand, and those with the best of several settings."""

import numpy as np
import pytest

from accmpeg.evaluation.findings.analysis import primary_pairs
from tests.evaluation.findings.studies import gap_of, headline, sweep
from tests.evaluation.simulated import clip_rows


def test_primary_comparisons_alone_have_p_values_corrected_together() -> None:
    rows = sweep({"aq-1": 1.0, "graded": 0.8, "boxes": 0.99, "other": 0.7}, noise=0.02)
    findings = headline(rows, primary=["graded", "boxes:aq-1"])
    primary = [c for c in findings.comparisons if c.primary]
    assert {c.method for c in primary} == {"graded", "boxes"}
    tested = [gap for c in primary for gap in c.gaps if gap.p is not None]
    assert sorted(gap.target for gap in tested if gap.target) == [0.9, 0.9, 0.95, 0.95]
    assert all(gap.p_holm is not None and gap.p is not None and gap.p_holm >= gap.p for gap in tested)
    smallest = min(tested, key=lambda gap: gap.p or 1.0)
    assert smallest.p_holm == pytest.approx(4 * (smallest.p or 0.0))
    assert all(gap.p is None for c in findings.comparisons if not c.primary for gap in c.gaps)


def test_a_primary_pair_may_name_any_baseline() -> None:
    methods = ["aq-1", "graded", "glimpse:change=1", "glimpse:change=2"]
    assert primary_pairs(["graded:glimpse:change=1", "best-glimpse"], methods, ["aq-1"]) == (
        ("graded", "glimpse:change=1"),
        ("best-glimpse", "aq-1"),
    )
    findings = headline(sweep({"aq-1": 1.0, "graded": 0.8, "boxes": 1.6}), primary=["graded:boxes"])
    comparison = findings.comparison("graded", "boxes")
    assert comparison is not None
    assert comparison.primary
    assert comparison.gaps[2].percent == pytest.approx(-50, abs=0.1)


def test_the_best_of_four_equal_settings_gains_nothing_over_one_of_them() -> None:
    names = [f"tied:knob={number}" for number in range(4)]
    rows = sweep(dict.fromkeys(("aq-1", *names), 1.0), tuple(f"c{n}" for n in range(24)), noise=0.02)
    findings = headline(rows, draws=20)
    for rule in ("halves", "others"):
        gap = gap_of(findings, "best-tied", rule=rule)
        assert gap.percent == pytest.approx(0, abs=3), rule
        assert gap.null_percent is not None
        assert {clip.method for clip in gap.clips} <= set(names)
    # Picked with hindsight the same settings seem to gain: what the two rules are there to prevent.
    each = [gap_of(findings, name) for name in names]
    lucky = [min(gap.clips[number].percent or 0.0 for gap in each) for number in range(24)]
    assert np.mean(lucky) < -4


def test_the_best_stock_setting_is_chosen_clip_by_clip_and_elsewhere() -> None:
    shares = [{"aq-1": 1.0, "constant-qp": 0.5}] * 3 + [{"aq-1": 1.0, "constant-qp": 1.25}]
    rows = [
        row
        for number, share in enumerate(shares)
        for row in clip_rows(f"c{number}", {**share, "graded": 0.5})
    ]
    findings = headline(rows)
    by_rule = {c.rule: c.gap(0.9) for c in findings.best_of if c.method == "graded" and c.link is None}
    halves, others = by_rule["halves"], by_rule["others"]
    assert halves is not None
    assert [clip.baseline for clip in halves.clips] == ["constant-qp"] * 3 + ["aq-1"]
    assert [clip.percent for clip in halves.clips] == pytest.approx([0, 0, 0, -50], abs=0.1)
    assert others is not None
    assert [clip.baseline for clip in others.clips] == ["constant-qp"] * 4
    assert others.clips[3].percent == pytest.approx(-60, abs=0.1)


def test_a_setting_that_fails_elsewhere_is_not_chosen() -> None:
    rows = []
    for number in range(3):
        rows += clip_rows(
            f"c{number}",
            {"aq-1": 1.0, "constant-qp": 0.5, "graded": 1.0},
            qualities={"constant-qp": (45, 40, 37)} if number else {},
        )
    comparison = headline(rows).comparison("graded", "best-stock", rule="others")
    assert comparison is not None
    gap = comparison.gap(0.9)
    assert gap is not None
    assert [clip.baseline for clip in gap.clips] == ["aq-1"] * 3
