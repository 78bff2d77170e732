"""Delays and the camera's cost at a target."""

import pytest

from tests.evaluation.findings.studies import CLIPS, gap_of, headline, study, sweep
from tests.evaluation.simulated import LINK


def test_delay_is_read_where_the_curve_reaches_the_target() -> None:
    findings = headline(sweep({"aq-1": 1.0, "graded": 0.5}), links_bps={LINK: 4e6})
    where = findings.operating_point("aq-1", 0.9)
    assert where is not None
    assert where.bitrate_bps is not None
    delay = where.delays[LINK]
    # The link's delay is 40 ms and a millisecond for each 10 kbit/s.
    assert delay.mean_ms == pytest.approx(40 + where.bitrate_bps / 10_000, rel=0.02)
    parts = delay.camera_ms + delay.uplink_ms + delay.propagation_ms + delay.serve_ms + delay.wait_ms
    assert parts == pytest.approx(delay.mean_ms)
    assert delay.p95_ms == pytest.approx(delay.mean_ms + 20)
    assert delay.age_mean_ms == pytest.approx(delay.mean_ms + 15)
    other = findings.operating_point("graded", 0.9)
    assert other is not None
    gap = gap_of(findings, "graded", link=LINK)
    expected = 100 * (other.delays[LINK].mean_ms / delay.mean_ms - 1)
    assert gap.percent == pytest.approx(expected, abs=0.1)
    assert gap.interval is not None


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"server_load": 0.95}, "the server is busy for more than 90% of the time"),
        ({"camera_load": 1.3}, "the camera is busy for more than 90% of the time"),
        ({}, f"{LINK}: 7 of 7 cells send more than it carries"),
    ],
)
def test_an_overloaded_cell_has_no_delay_and_says_so(over: dict[str, float], said: str) -> None:
    rows = sweep({"aq-1": 1.0}, CLIPS[:1], **over)
    dnn = study(rows, links_bps={LINK: 4e6 if over else 1e5})
    where = dnn.headline.operating_point("aq-1", 0.9)
    assert where is not None
    assert where.delays == {}
    assert where.why_no_delay[LINK] == (f"street-0: aq-1 has no delay over {LINK} at any point (overload)",)
    assert any(said in note for note in dnn.notes)
    assert all(not point.delays for point in dnn.points if point.role == "method")


def test_a_target_beyond_what_the_link_carries_has_no_delay() -> None:
    findings = headline(sweep({"aq-1": 1.0, "small": 0.4}, CLIPS[:1]), links_bps={LINK: 1.2e6})
    gap = gap_of(findings, "small", 0.95, link=LINK)
    assert gap.percent is None
    assert gap.clips[0].why.startswith(f"small has no delay over {LINK} at 95%")
    small = findings.operating_point("small", 0.9)
    assert small is not None
    assert LINK in small.delays


def test_camera_cost_is_the_median_over_points_and_clips() -> None:
    rows = [
        *sweep({"aq-1": 1.0}, CLIPS[:3], camera_ratio=1.0, camera_ms=6.0),
        *(
            row.model_copy(update={"camera_ratio": ratio, "camera_ms": 6 * ratio})
            for clip, ratio in zip(CLIPS, (1.1, 1.2, 3.0), strict=False)
            for row in sweep({"graded": 1.0}, [clip])
            if row.role == "method"
        ),
    ]
    plain, graded = study(rows).camera
    assert (plain.ratio, graded.ratio, graded.ms) == (1.0, 1.2, pytest.approx(7.2))
    assert graded.clips == dict(zip(CLIPS, (1.1, 1.2, 3.0), strict=False))
