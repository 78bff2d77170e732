"""Findings of simulated sweeps whose truth is known."""

import json

import numpy as np
import pytest

from accmpeg.evaluation.bench.points import next_quality
from accmpeg.evaluation.bench.rows import CellRow
from accmpeg.evaluation.findings.analysis import find
from accmpeg.evaluation.findings.findings import TARGETS, Findings
from tests.evaluation.findings.studies import CLIPS, gap_of, headline, study, sweep
from tests.evaluation.simulated import LINK, bitrate_at_bps, clip_rows, point, relative_at


def bisected(harder: float) -> list[float]:
    """The operating points that a sweep would choose on a clip."""
    measured: dict[int, float] = {}
    while (quality := next_quality(measured, 9)) is not None:
        measured[quality] = relative_at(quality + harder)
    return [float(quality) for quality in measured]


def test_a_planted_gap_is_found_within_one_point_along_the_whole_curve() -> None:
    rows = []
    for number, clip in enumerate(CLIPS):
        harder = 0.8 * number - 2
        points = bisected(harder)
        between = [quality + 1 for quality in points]
        rows += clip_rows(
            clip, {"aq-1": 1.0, "graded": 0.8}, qualities={"aq-1": points, "graded": between}, harder=harder
        )
    findings = headline(rows)
    for target in TARGETS:
        assert gap_of(findings, "graded", target).percent == pytest.approx(-20, abs=1), target
    comparison = findings.comparison("graded", "aq-1")
    assert comparison is not None
    assert comparison.bd is not None
    assert comparison.bd.percent == pytest.approx(-20, abs=1)
    assert [point.clips for point in comparison.along][:16] == [8] * 16
    assert all(point.percent == pytest.approx(-20, abs=1.5) for point in comparison.along)


def test_at_the_same_points_a_planted_gap_is_found_exactly() -> None:
    findings = headline(sweep({"aq-1": 1.0, "graded": 0.8}))
    gap = gap_of(findings, "graded")
    assert gap.percent == pytest.approx(-20, abs=0.01)
    assert [clip.percent for clip in gap.clips] == pytest.approx([-20] * 8, abs=0.01)
    (curve,) = (c for c in findings.curves if (c.clip, c.method) == (CLIPS[0], "aq-1"))
    assert curve.at[0.9] == pytest.approx(bitrate_at_bps(0.9), rel=0.03)


def test_ten_percent_of_padding_are_found_with_an_interval_clear_of_zero() -> None:
    # The same stream, so the same answers: only its bytes are a tenth more.
    plain = sweep({"aq-1": 1.0}, noise=0.05)
    padded = [
        row.model_copy(
            update={
                "method": "padded",
                "key": row.key + "p",
                "keyframe_bytes": row.keyframe_bytes * 1.1,
                "bitrate_bps": row.bitrate_bps * 1.1,
                "blocks": row.blocks.model_copy(
                    update={"bytes": [round(1.1 * size) for size in row.blocks.bytes]}
                ),
            }
        )
        for row in plain
        if row.role == "method"
    ]
    findings = headline(plain + padded, primary=["padded"])
    for target in (0.9, 0.95):
        gap = gap_of(findings, "padded", target)
        assert gap.percent == pytest.approx(10, abs=0.1)
        assert gap.interval is not None
        assert 9 < gap.interval.low <= gap.interval.high < 11
        assert not gap.no_effect
        assert gap.p_holm is not None
        assert gap.p_holm < 0.05


def test_a_method_against_its_equal_is_marked_as_no_effect() -> None:
    findings = headline(sweep({"aq-1": 1.0, "twin": 1.0}, noise=0.03), primary=["twin"])
    gap = gap_of(findings, "twin")
    assert gap.interval is not None
    assert gap.interval.low < 0 < gap.interval.high
    assert gap.interval_these_clips is not None
    assert gap.no_effect
    assert gap.null_spread_percent is not None
    assert 1 < gap.null_spread_percent < 20
    assert gap.p is not None
    assert gap.p > 0.1


def test_the_alternating_null_has_the_spread_of_the_estimate() -> None:
    """Over many studies of two equal methods, nulls and estimates scatter alike, both about zero."""
    estimates, nulls = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        rows = [
            row
            for clip in CLIPS
            for row in clip_rows(clip, {"aq-1": 1.0, "twin": 1.0}, generator=generator, noise=0.02)
        ]
        gap = gap_of(headline(rows, draws=2), "twin")
        estimates += [clip.percent or 0.0 for clip in gap.clips]
        nulls += [clip.null_percent or 0.0 for clip in gap.clips]
    assert np.std(nulls) == pytest.approx(np.std(estimates), rel=0.35)
    assert abs(np.mean(nulls)) < 3


def test_a_method_between_its_own_points_is_compared_with_itself() -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS)
    second = [
        row.model_copy(update={"role": "null", "key": row.key + "n"})
        for row in sweep({"aq-1": 1.0}, CLIPS, qualities={"aq-1": (38.5, 35.5, 32.5, 29.5, 26, 21)})
        if row.role == "method"
    ]
    findings = headline(rows + second)
    gap = gap_of(findings, "aq-1", rule="null")
    assert gap.percent == pytest.approx(0, abs=3)
    assert gap.clips_within_percent == pytest.approx(abs(gap.percent or 0.0))
    assert gap.reached == 8
    assert len([curve for curve in findings.curves if curve.clip == CLIPS[0]]) == 1, "no operating points"
    delay = gap_of(findings, "aq-1", rule="null", link=LINK)
    assert delay.percent == pytest.approx(0, abs=3)


def test_every_object_counts_once_and_every_clip_once_beside_it() -> None:
    rows = [
        *clip_rows("crowd", {"aq-1": 1.0, "graded": 0.5}, objects=90),
        *clip_rows("lane", {"aq-1": 1.0, "graded": 2.0}, objects=10),
        *clip_rows("lane-2", {"aq-1": 1.0, "graded": 1.0}, objects=10),
    ]
    gap = gap_of(headline(rows), "graded")
    assert gap.percent == pytest.approx(100 * (0.5 ** (90 / 110) * 2 ** (10 / 110) - 1), abs=0.1)
    assert gap.macro_percent == pytest.approx(0, abs=0.1)
    assert gap.median_percent == pytest.approx(0, abs=0.1)
    assert (gap.worst_clip, gap.worst_percent) == ("lane", pytest.approx(100, abs=0.1))
    assert [clip.weight for clip in gap.clips] == [1080, 120, 120]


def test_there_is_no_interval_below_eight_clips() -> None:
    for clips, having in ((CLIPS[:7], False), (CLIPS, True)):
        findings = headline(sweep({"aq-1": 1.0, "graded": 0.8}, clips), primary=["graded"])
        gap = gap_of(findings, "graded")
        shown = (gap.interval, gap.interval_these_clips, gap.macro_interval, gap.p, gap.p_holm)
        assert [each is not None for each in shown] == [having] * 5
        assert gap.percent == pytest.approx(-20, abs=0.1)


def test_segmentation_weighs_classes_by_frequency_and_clips_by_frames() -> None:
    def classes(row: CellRow) -> CellRow:
        # A second class that every stream gets wrong and that the reference hardly has.
        counts = [[[i, p, r], [0.0, r / 99, r / 99]] for ((i, p, r),) in row.blocks.counts["own"]]
        return row.model_copy(
            update={
                "task": "segmentation",
                "blocks": row.blocks.model_copy(update={"counts": {"own": counts}}),
            }
        )

    rows = [classes(row) for row in clip_rows("a", {"aq-1": 1.0, "graded": 0.8})]
    rows += [classes(row) for row in clip_rows("b", {"aq-1": 1.0, "graded": 0.8}, blocks=24, objects=5)]
    findings = headline(rows)
    # I = 0.95, P = R = 1: IoU 0.95 / 1.05 of 99 % of the pixels.
    assert findings.clips[0].ceiling == pytest.approx(0.99 * 0.95 / 1.05)
    assert [clip.weight for clip in findings.clips] == [120, 240]
    assert gap_of(findings, "graded").percent == pytest.approx(-20, abs=0.1)


def test_each_reference_has_its_own_findings_and_the_first_is_the_headline() -> None:
    rows = clip_rows("a", {"aq-1": 1.0}, references=("own", "labels")) + clip_rows("b", {"aq-1": 1.0})
    dnn = study(rows, references=["confirmed", "labels", "own"])
    assert [each.reference for each in dnn.references] == ["labels", "own"]
    assert dnn.headline.counted == ("a",)
    assert "without the reference “labels”: b" in dnn.headline.notes
    assert dnn.points[-1].relative.keys() == {"own"}


def test_uncoded_frames_stand_beside_the_ceiling() -> None:
    uncoded = point("a", "aq-1", 0, 0.97, 1.0).model_copy(
        update={"role": "uncoded", "bitrate_bps": 0.0, "key": "u"}
    )
    dnn = study([*clip_rows("a", {"aq-1": 1.0}), uncoded])
    assert dnn.headline.clips[0].uncoded == {"aq-1": pytest.approx(0.97)}
    assert len(dnn.headline.curves[0].bitrate_bps) == 7
    assert dnn.points[-1].why_unused == ""


def test_a_seed_gives_the_same_findings_and_another_gives_others() -> None:
    rows = sweep({"aq-1": 1.0, "graded": 0.9, "constant-qp": 1.1}, noise=0.03)

    def found(seed: int) -> Findings:
        return find(rows, references=["own"], draws=30, seed=seed)

    assert found(1).to_json() == found(1).to_json()
    mine, others = (gap_of(found(seed).dnns[0].headline, "graded") for seed in (1, 2))
    assert mine.percent == others.percent
    assert mine.interval != others.interval
    # Other clips, or another order of methods, do not change a clip's own draws.
    again = find(rows[::-1], references=["own"], draws=30, seed=1).dnns[0].headline
    assert gap_of(again, "graded").percent == pytest.approx(mine.percent)


def test_findings_are_one_json_document() -> None:
    document = json.loads(find(sweep({"aq-1": 1.0, "graded": 0.8}, CLIPS[:2]), references=["own"]).to_json())
    reference = document["dnns"][0]["references"][0]
    assert reference["comparisons"][0]["gaps"][2]["target"] == 0.9
    assert reference["comparisons"][0]["gaps"][2]["percent"] == pytest.approx(-20, abs=0.1)
    assert reference["comparisons"][0]["gaps"][2]["interval"] is None


def test_blocks_without_objects_or_delays_do_no_harm() -> None:
    rows = []
    for row in sweep({"aq-1": 1.0, "constant-qp": 0.9, "graded": 0.8}):
        counts = row.blocks.counts["own"]
        blocks = row.blocks.model_copy(
            update={
                "counts": {"own": [block if n == 7 else [[0.0, 0.0, 0.0]] for n, block in enumerate(counts)]},
                "delay_ms": {LINK: [40.0 if n == 7 else None for n in range(12)]},
            }
        )
        rows.append(row.model_copy(update={"blocks": blocks, "keyframe_bytes": 0.0}))
    findings = headline(rows)
    gap = gap_of(findings, "graded")
    assert gap.percent == pytest.approx(-20, abs=0.1)
    assert (gap.null_percent, gap.null_spread_percent, gap.no_effect) == (None, None, False)
    assert gap.interval is not None
    halves = findings.comparison("graded", "best-stock", rule="halves")
    assert halves is not None
    assert halves.gaps[2].clips[0].why == "no member reaches 90% on the first half"
