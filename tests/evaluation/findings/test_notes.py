"""What is left out, fails, or is never reached: all of it is said."""

import json

import pytest

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.rows import CellRow
from accmpeg.evaluation.findings.analysis import find
from tests.evaluation.findings.studies import CLIPS, gap_of, headline, study, sweep
from tests.evaluation.simulated import clip_rows


def test_a_clip_whose_ceiling_is_below_a_half_is_named_and_left_out() -> None:
    rows = [
        *clip_rows("fog", {"aq-1": 1.0, "graded": 3.0}, ceiling=0.45),
        *clip_rows("street", {"aq-1": 1.0, "graded": 0.8}),
    ]
    findings = headline(rows)
    assert findings.counted == ("street",)
    assert findings.clips[0].why_left_out == "even a visually lossless stream has S 0.45, less than 0.5"
    assert any(note.startswith("fog: left out: even a visually lossless") for note in findings.notes)
    gap = gap_of(findings, "graded")
    assert (gap.percent, len(gap.clips)) == (pytest.approx(-20, abs=0.1), 1)


def test_a_clip_without_a_ceiling_or_without_objects_is_left_out() -> None:
    missing = [row for row in clip_rows("a", {"aq-1": 1.0}) if row.role != "ceiling"]
    nothing = [
        row.model_copy(
            update={"blocks": row.blocks.model_copy(update={"counts": {"own": [[[0.0, 0.0, 0.0]]] * 12}})}
        )
        for row in clip_rows("sky", {"aq-1": 1.0})
    ]
    clips = headline([*missing, *nothing, *clip_rows("b", {"aq-1": 1.0})]).clips
    assert [clip.why_left_out for clip in clips] == [
        "no visually lossless stream was measured, so there is no ceiling",
        "there is nothing to find",
        "",
    ]


def test_a_target_that_one_side_never_reaches_is_a_sentence() -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS[:2])
    rows += [
        r for r in sweep({"low": 0.8}, CLIPS[:1], qualities={"low": (44, 40, 37, 34)}) if r.role == "method"
    ]
    rows += [r for r in sweep({"low": 0.8}, CLIPS[1:2]) if r.role == "method"]
    findings = headline(rows)
    gap = gap_of(findings, "low", 0.9)
    assert (gap.reached, gap.clips[0].percent, gap.clips[1].percent) == (1, None, pytest.approx(-20, abs=0.1))
    assert gap.clips[0].why == "low never reaches 90% (at most 86.9%)"
    assert "street-0: low never reaches 90% (at most 86.9%)" in findings.notes
    where = findings.operating_point("low", 0.9)
    assert where is not None
    assert where.bitrate_clips == 1
    assert gap_of(findings, "low", 0.85).reached == 2


def test_a_target_below_the_smallest_point_has_no_figure() -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS[:1])
    rows += [
        r for r in sweep({"fine": 1.0}, CLIPS[:1], qualities={"fine": (34, 31, 28, 24)}) if r.role == "method"
    ]
    gap = gap_of(headline(rows), "fine", 0.85)
    assert gap.percent is None
    assert gap.clips[0].why.startswith("fine is above 85% at its smallest point (86.9%, ")


def test_two_points_make_no_curve() -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS[:1])
    rows += [r for r in sweep({"thin": 1.0}, CLIPS[:1], qualities={"thin": (34, 24)}) if r.role == "method"]
    assert gap_of(headline(rows), "thin").clips[0].why == "thin has no curve: it needs 3 usable points"


def test_points_above_the_sources_own_bitrate_are_marked_and_left_out() -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS[:1], source_bitrate_bps=2_500_000.0)
    dnn = study(rows)
    marked = [point for point in dnn.points if point.why_unused]
    assert [(point.quality, point.role) for point in marked] == [(24, "method"), (18, "method")]
    assert "more than the source file's own 2,500" in marked[0].why_unused
    assert len(dnn.headline.curves[0].bitrate_bps) == 5
    assert any("2 cells have a bitrate above the source file's own 2,500 kbit/s" in n for n in dnn.notes)


def test_failures_mixtures_and_what_was_not_measured_are_said() -> None:
    rows = [
        *clip_rows("a", {"aq-1": 1.0}),
        *clip_rows("b", {"aq-1": 1.0}, width_px=640, frame_rate=25.0),
        *(
            CellRow(
                key=f"f{quality}",
                status="failed",
                reason="no AccModel",
                clip="a",
                dnn="tiny",
                task="detection",
                method="graded",
                quality=quality,
            )
            for quality in (40, 30.5)
        ),
    ]
    notes = study(rows, baselines=["aq-1", "b2@dnn"], primary=["boxes"]).notes
    assert "a, graded: failed at quality 40, 30.5: no AccModel" in notes
    assert "baselines that were not measured: b2@dnn" in notes
    assert "no primary comparison of boxes with aq-1: boxes was not measured" in notes
    assert "the clips differ in size (320×180, 640×180)" in notes
    assert "the clips differ in frame rate (25, 30 per second)" in notes


def test_a_sweep_in_which_everything_failed_still_has_findings() -> None:
    failed = CellRow(
        key="f",
        status="failed",
        reason="gone",
        clip="a",
        dnn="tiny",
        task="detection",
        method="aq-1",
        quality=30,
    )
    dnn = study([failed])
    assert dnn.headline.clips == ()
    assert "a, aq-1: failed at quality 30: gone" in dnn.notes
    json.loads(find([failed]).to_json())


def test_an_unknown_baseline_is_bad_use() -> None:
    with pytest.raises(
        UsageError, match="no method of this sweep is called av1: choose the baseline from aq-1"
    ):
        find(clip_rows("a", {"aq-1": 1.0}), baselines=["av1"])
