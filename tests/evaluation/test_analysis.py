"""Rates of made-up sweeps whose answers are known by hand, and everything that has to be said in words."""

import pytest
from made import LINK, curve, row

from accmpeg.errors import UsageError
from accmpeg.evaluation.analysis import DnnAnalysis, analyse, link_bandwidth_bps
from accmpeg.evaluation.problems import missing_figures, problems
from accmpeg.evaluation.rows import CellRow


def analysis_of(rows: list[CellRow], **more: object) -> DnnAnalysis:
    return analyse(rows, **{"baselines": ["aq-1"], **more})[0]  # type: ignore[arg-type]


def test_half_the_bytes_on_every_clip_is_minus_fifty_percent() -> None:
    rows = [r for clip in "abc" for r in curve(clip, "aq-1") + curve(clip, "graded", 0.5)]
    rate = analysis_of(rows).bytes_rates["aq-1"]["graded"]
    assert rate.values == pytest.approx([-50, -50, -50])
    assert rate.geometric_mean == pytest.approx(-50)
    assert rate.interval == pytest.approx((-50, -50))
    pooled = analysis_of(rows).pooled_rates["aq-1"]["graded"]
    assert pooled is not None
    assert pooled.percent == pytest.approx(-50)


def test_one_curve_of_all_clips_has_an_interval_from_resampling_them() -> None:
    factors = {"a": 0.25, "b": 0.5, "c": 1.0}
    rows = [r for clip, by in factors.items() for r in curve(clip, "aq-1") + curve(clip, "graded", by)]
    pooled = analysis_of(rows).pooled_rates["aq-1"]["graded"]
    assert pooled is not None
    # All clips have the same accuracies, so log-bytes are simply averaged: the cube root of an eighth.
    assert pooled.percent == pytest.approx(-50)
    assert pooled.interval == pytest.approx((-75, 0))
    assert pooled.clips == 3
    # A clip on which a point is missing is left out for both.
    fewer = [row for row in rows if (row.clip, row.method) != ("c", "graded") or row.quality != 36]
    left = analysis_of(fewer).pooled_rates["aq-1"]["graded"]
    assert left is not None
    assert (left.clips, left.interval) == (2, None)
    assert left.percent == pytest.approx(100 * (0.125**0.5 - 1))


def test_detection_is_compared_by_f1_too() -> None:
    rows = [
        made.model_copy(update={"measures": {"f1": f1}})
        for method, scale in (("aq-1", 1.0), ("graded", 0.25))
        for made, f1 in zip(curve("a", method, scale), (0.6, 0.7, 0.8), strict=True)
    ]
    by_accuracy, by_f1 = analyse(rows, baselines=["aq-1"])
    assert [by_accuracy.accuracy_name, by_f1.accuracy_name] == ["AP@0.5", "F1"]
    assert by_f1.label != by_accuracy.label
    # 0.6 to 0.8 lies outside the band of AP, and F1 has none.
    assert by_f1.bytes_rates["aq-1"]["graded"].values == pytest.approx([-75])
    people = [row.model_copy(update={"task": "keypoints"}) for row in rows]
    assert len(analyse(people, baselines=["aq-1"])) == 1


def test_the_geometric_mean_of_half_and_double_is_no_change() -> None:
    rows = curve("a", "aq-1") + curve("a", "graded", 0.5) + curve("b", "aq-1") + curve("b", "graded", 2)
    rate = analysis_of(rows).bytes_rates["aq-1"]["graded"]
    assert rate.geometric_mean == pytest.approx(0, abs=1e-9)
    assert (rate.mean, rate.median) == (pytest.approx(25), pytest.approx(25))
    assert rate.worst is not None
    assert (rate.worst.clip, rate.worst.percent) == ("b", pytest.approx(100))
    assert rate.interval is None, "two clips make no interval"


def test_delay_at_equal_accuracy_is_compared_like_bytes() -> None:
    slow = curve("a", "aq-1")
    fast = [
        r.model_copy(update={"method": "graded", "delay_mean_ms": {LINK: r.delay_mean_ms[LINK] / 4}})
        for r in slow
    ]
    rates = analysis_of(slow + fast).delay_rates[LINK]["aq-1"]
    assert rates["graded"].values == pytest.approx([-75])


def test_points_that_overload_a_link_are_left_out_of_its_delays_and_said() -> None:
    # 400 kB in four seconds are 800 kbit/s; 800 kB are 1.6 Mbit/s.
    accuracies = (0.86, 0.88, 0.9, 0.95)
    analysis = analysis_of(curve("a", "aq-1", accuracies=accuracies))
    points = analysis.curves["a", "aq-1"].by_delay(LINK, 1e6)
    assert points.accuracies == (0.86, 0.88, 0.9)
    assert any(LINK in line and "1 of 4 operating points" in line for line in problems(analysis))


def test_downlink_bytes_do_not_overload_the_uplink() -> None:
    rows = [r.model_copy(update={"uplink_bytes": 1000}) for r in curve("a", "aq-1", 10)]
    assert len(analysis_of(rows).curves["a", "aq-1"].by_delay(LINK, 1e6).sizes) == 3


@pytest.mark.parametrize(
    ("mine", "note", "verdict"),
    [
        ((0.95, 0.955, 0.96), "reaches 0.950 at 100 kB, the baseline never (at most 0.900)", "better"),
        ((0.5, 0.6, 0.7), "the baseline reaches 0.860 at 100 kB, this never (at most 0.700)", "worse"),
        ((0.87, 0.88), "has only 2 different operating points, 3 are needed", ""),
        ((0.87, 0.87, 0.872), "the curves share only 0.002 of accuracy in the band (0.870 to 0.872)", ""),
    ],
)
def test_a_rate_that_can_not_be_is_a_sentence(mine: tuple[float, ...], note: str, verdict: str) -> None:
    rows = curve("a", "aq-1", accuracies=(0.86, 0.88, 0.9)) + curve("a", "graded", accuracies=mine)
    analysis = analysis_of(rows)
    (clip,) = analysis.bytes_rates["aq-1"]["graded"].clips
    assert (clip.percent, clip.note, clip.verdict) == (None, note, verdict)
    assert f"a, graded against aq-1: {note}" in missing_figures(analysis)


def test_a_saturated_clip_has_no_figure_and_is_named() -> None:
    accuracies = (0.950, 0.955, 0.960)
    analysis = analysis_of(
        curve("a", "aq-1", accuracies=accuracies) + curve("a", "graded", accuracies=(0.8, 0.9, 0.96))
    )
    (clip,) = analysis.bytes_rates["aq-1"]["graded"].clips
    assert clip.percent is None
    assert clip.note == "saturated: the baseline covers only 0.010 of accuracy in the band"
    assert any(
        line.startswith("a: saturated: the baseline aq-1 moves by 0.010") for line in problems(analysis)
    )


def test_a_clip_without_objects_is_left_out_and_said() -> None:
    empty = curve("sky", "aq-1", accuracies=(1.0, 1.0, 1.0), objects=0)
    analysis = analysis_of(curve("a", "aq-1") + empty)
    assert analysis.clips == ("a",)
    assert len(analysis.bytes_rates["aq-1"]["aq-1"].clips) == 1
    assert "sky: the server DNN finds nothing on the source; left out" in problems(analysis)


def test_failed_cells_are_listed_with_their_reason_and_count_as_missing() -> None:
    broken = [
        row("a", "graded", q, 0, None, status="failed", reason="no AccModel", objects=None) for q in (40, 36)
    ]
    analysis = analysis_of(curve("a", "aq-1") + broken)
    assert "a, graded: failed at quality 40, 36: no AccModel" in problems(analysis)
    assert "graded: points are missing on every clip, so there is no pooled curve" in problems(analysis)
    (clip,) = analysis.bytes_rates["aq-1"]["graded"].clips
    assert clip.note == "has no operating point, 3 are needed"


def test_best_stock_is_picked_per_clip() -> None:
    rows = [
        *curve("a", "aq-0", 0.8),
        *curve("a", "aq-1"),
        *curve("a", "aq-1@dnn", 0.5),
        *curve("b", "aq-0", 1.2),
        *curve("b", "aq-1"),
        *curve("a", "graded", 0.4),
        *curve("b", "graded", 0.5),
    ]
    analysis = analysis_of(rows, baselines=["best-stock", "best-stock-any-size"])
    assert [analysis.setting("best-stock", clip) for clip in "ab"] == ["aq-0", "aq-1"]
    assert analysis.setting("best-stock-any-size", "a") == "aq-1@dnn"
    assert analysis.bytes_rates["best-stock"]["graded"].values == pytest.approx([-50, -50])
    assert analysis.bytes_rates["best-stock-any-size"]["graded"].values == pytest.approx([-20, -50])
    assert "best-stock" in analysis.pooled


def test_best_stock_is_not_picked_by_a_sliver_of_common_accuracy() -> None:
    # aq-0 seems to need half the bytes, over a hundredth of accuracy.
    rows = curve("a", "aq-1") + curve("a", "aq-0", 0.25, (0.94, 0.97, 0.98))
    assert analysis_of(rows).setting("best-stock", "a") == "aq-1"


def test_best_stock_is_the_only_one_that_reaches_the_band() -> None:
    rows = curve("a", "aq-1", accuracies=(0.7, 0.75, 0.8)) + curve("a", "aq-2", 2)
    assert analysis_of(rows).setting("best-stock", "a") == "aq-2"


def test_null_comparison_and_noise_floor() -> None:
    second = curve("a", "aq-1", 1.1, role="null")
    floor = row("a", "aq-1", 31, 500_000, 0.955, role="noise_floor")
    analysis = analysis_of([*curve("a", "aq-1"), *second, floor])
    assert analysis.null["aq-1"].values == pytest.approx([10])
    assert analysis.noise_floor == {"a": 0.955}
    assert any("reaches only 0.955" in line for line in problems(analysis))
    assert len(analysis.curves["a", "aq-1"].rows) == 3, "neither counts as an operating point"


def test_pooled_points_weigh_clips_by_time_for_bytes_and_equally_for_accuracy() -> None:
    short = [
        r.model_copy(update={"frames": 25, "bitrate_bps": r.bytes * 8.0})
        for r in curve("b", "aq-1", 1, (0.8, 0.84, 0.9))
    ]
    points = analysis_of(curve("a", "aq-1") + short).pooled["aq-1"]
    assert points[0].bitrate_bps == pytest.approx((100_000 + 100_000) * 8 / (4 + 1))
    assert points[0].accuracy == pytest.approx((0.86 + 0.8) / 2)
    assert points[0].accuracy_interval == pytest.approx((0.8, 0.86))


def test_camera_cost_is_held_against_the_same_size_and_the_same_bytes() -> None:
    rows = [
        *curve("a", "aq-1", camera_ms=6.0),
        *curve("a", "aq-1@dnn", camera_ms=2.0),
        *curve("a", "graded", camera_ms=7.2),
        *curve("a", "graded@dnn", camera_ms=3.0),
    ]
    camera = analysis_of(rows).camera
    assert (camera["graded"].value, camera["graded"].base) == (pytest.approx(1.2), "aq-1")
    assert (camera["graded@dnn"].value, camera["graded@dnn"].base) == (pytest.approx(1.5), "aq-1@dnn")


def test_mixed_clips_are_said() -> None:
    rows = curve("a", "aq-1") + curve("b", "aq-1", width_px=640, height_px=360, frame_rate=30.0)
    said = " ".join(problems(analysis_of(rows)))
    assert "differ in size (320×180, 640×360)" in said
    assert "differ in frame rate (25, 30 per second)" in said


def test_segmentation_is_compared_over_all_accuracies_unless_told() -> None:
    rows = [
        r.model_copy(update={"task": "segmentation"})
        for r in curve("a", "aq-1", 1, (0.3, 0.4, 0.5)) + curve("a", "graded", 0.5, (0.3, 0.4, 0.5))
    ]
    assert analysis_of(rows).bytes_rates["aq-1"]["graded"].values == pytest.approx([-50])
    banded = analysis_of(rows, bands={"segmentation": (0.6, 0.9)})
    assert banded.bytes_rates["aq-1"]["graded"].clips[0].note.startswith("neither reaches the band")


def test_an_unknown_baseline_or_a_senseless_band_is_bad_use() -> None:
    with pytest.raises(UsageError, match="no method of this sweep is called 'av1'"):
        analyse(curve("a", "aq-1"), baselines=["av1"])
    with pytest.raises(UsageError, match=r"0\.9 to 0\.8"):
        analyse(curve("a", "aq-1"), bands={"detection": (0.9, 0.8)})


def test_a_links_bandwidth_comes_from_its_settings_or_its_name() -> None:
    assert link_bandwidth_bps("trace", {"bandwidth_bps": 7e5}) == 7e5
    assert link_bandwidth_bps("trace", {"bandwidth_bps": None}) is None
    assert link_bandwidth_bps("800 kbit/s", None) == 8e5
