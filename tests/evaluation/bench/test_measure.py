"""One clip and one server DNN: references, ceiling, points, and what fails on its own."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest

from accmpeg.demo import assets_path
from accmpeg.errors import SourceError, UsageError
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.measure import Bench
from accmpeg.evaluation.bench.plan import ClipSpec, DnnSpec, Group
from accmpeg.evaluation.bench.rows import CellRow
from accmpeg.evaluation.bench.run import run_method
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.findings.analysis import find
from accmpeg.evaluation.findings.measured import cell_score
from accmpeg.evaluation.methods import METHODS, Method
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint
from accmpeg.evaluation.settings import SweepSettings

ACCMODEL = assets_path() / "accmodel.card.toml"
SETTINGS = SweepSettings(points=4, step=2, every=5, pictures=False)
NAMES = ("aq-1", "constant-qp@dnn", "graded")


@pytest.fixture(scope="module")
def spec(clip: Clip) -> ClipSpec:
    return ClipSpec("street", "as rendered", lambda limit: replace(clip, source_bitrate_bps=2e6))


@pytest.fixture(scope="module")
def dnn(small_card: Path) -> DnnSpec:
    """The small detector, confirmed by the one that reads 640 pixels."""
    strong = assets_path() / "detector.card.toml"
    return DnnSpec.read_all([small_card], [ACCMODEL], strong)[0]


@pytest.fixture(scope="module")
def measured(
    spec: ClipSpec, dnn: DnnSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[CellRow]]:
    folder = tmp_path_factory.mktemp("bench")
    bench = Bench(Group(spec, dnn, NAMES), folder, SETTINGS)
    assert not bench.costs_are_known
    bench.rehearse()
    assert bench.costs_are_known
    return folder, list(bench.cells({}))


def of(rows: list[CellRow], method: str, role: str = "method") -> list[CellRow]:
    return [row for row in rows if row.method == method and row.role == role]


def test_a_clip_has_a_ceiling_and_every_method_its_points(measured: tuple[Path, list[CellRow]]) -> None:
    _, rows = measured
    assert {row.status for row in rows} == {"ok"}
    assert (rows[0].role, rows[0].method, rows[0].quality) == ("ceiling", "aq-1", 12)
    assert [(row.method, row.quality) for row in rows if row.role == "uncoded"] == [("aq-1", 0)]
    for name in NAMES:
        points = of(rows, name)
        assert 3 <= len(points) <= SETTINGS.points
        assert len({row.quality for row in points}) == len(points)
        by_quality = sorted(points, key=lambda row: row.quality)
        assert [row.bitrate_bps for row in by_quality] == sorted(
            (row.bitrate_bps for row in points), reverse=True
        )
        assert cell_score(by_quality[0], "own") > cell_score(by_quality[-1], "own")
    # The stream at the DNN's size begins six steps finer.
    assert [row.quality for row in of(rows, "constant-qp@dnn")][:3] == [20, 28, 36]
    assert {(row.stream_width_px, row.stream_height_px) for row in of(rows, "constant-qp@dnn")} == {
        (320, 180)
    }
    # aq-1 once more between its own points.
    qualities = sorted(row.quality for row in of(rows, "aq-1"))
    nulls = [row.quality for row in of(rows, "aq-1", "null")]
    assert nulls == [(a + b) / 2 for a, b in pairwise(qualities)]


def test_answers_are_counted_by_block_against_every_reference(measured: tuple[Path, list[CellRow]]) -> None:
    _, rows = measured
    ceiling = rows[0]
    # Twelve frames at 30 per second: four warm up, eight are one block.
    assert (ceiling.frames, ceiling.warm_frames, ceiling.blocks.frames) == (12, 4, [8])
    assert set(ceiling.blocks.counts) == {"own", "confirmed", "labels"}
    own, confirmed = (ceiling.blocks.counts[name][0][0] for name in ("own", "confirmed"))
    assert 0 < confirmed[2] < own[2]
    assert ceiling.objects == pytest.approx(own[2], abs=0.01)
    assert 0.9 < cell_score(ceiling, "own") <= 1
    (uncoded,) = (row for row in rows if row.role == "uncoded")
    assert 0.5 < cell_score(uncoded, "own") <= 1
    for row in rows:
        assert {"ap50", "f1", "recall", "labels_ap50"} <= set(row.measures)
        assert row.source_bitrate_bps == 2e6


def test_delays_are_those_of_the_stated_server_and_costs_the_rehearsal_s(
    measured: tuple[Path, list[CellRow]],
) -> None:
    folder, rows = measured
    (file,) = (folder / "costs").iterdir()
    costs = json.loads(file.read_text())
    assert set(costs) == set(NAMES)
    for row in of(rows, "graded"):
        assert row.infer_ms == costs["graded"]["infer_ms"]
        expected = costs["graded"]["stage_ms"]["camera: encode"] * 13 / 12
        assert row.stage_ms["camera: encode"] == pytest.approx(expected, rel=1e-3)
        assert row.camera_ratio == pytest.approx(row.camera_ms / costs["graded"]["plain_camera_ms"], rel=1e-3)
        for link, delay in row.delays.items():
            parts = (delay.camera_ms, delay.uplink_ms, delay.propagation_ms, delay.serve_ms, delay.wait_ms)
            assert sum(parts) == pytest.approx(delay.mean_ms, abs=0.01)
            assert delay.serve_ms >= 10
            assert delay.propagation_ms == 20
            assert row.blocks.delay_ms[link] == [pytest.approx(delay.mean_ms, abs=0.01)]
        assert row.delays.keys() | row.why_no_delay.keys() == SETTINGS.links.keys()
    both = [row.delays for row in rows if {"2 Mbit/s", "4 Mbit/s"} <= row.delays.keys()]
    assert both
    assert all(delays["2 Mbit/s"].mean_ms > delays["4 Mbit/s"].mean_ms for delays in both)


def test_cells_that_are_known_are_not_measured_again(
    measured: tuple[Path, list[CellRow]], dnn: DnnSpec
) -> None:
    folder, rows = measured

    def never(limit: int | None) -> Clip:
        raise AssertionError("the clip was opened")

    closed = Group(ClipSpec("street", "as rendered", never), dnn, NAMES)
    again = Bench(closed, folder, SETTINGS).cells({row.key: row for row in rows})
    assert list(again) == rows


def test_streams_of_one_size_are_rehearsed_at_one_quality(
    spec: ClipSpec, dnn: DnnSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coarser stream takes less CPU, which would flatter whoever is timed by it."""
    timed: set[tuple[str, float]] = set()
    really = run_method

    def noted(clip: Clip, method: Method, point: OperatingPoint, context: MethodContext) -> Session:
        timed.add((method.name, point.quality))
        return really(clip, method, point, context)

    monkeypatch.setattr("accmpeg.evaluation.bench.run.run_method", noted)
    Bench(Group(spec, dnn, ("graded", "aq-1@dnn")), tmp_path / "smaller", SETTINGS).rehearse()
    assert timed == {("aq-1", 34), ("graded", 34), ("aq-1@dnn", 28)}
    timed.clear()
    # This one reads as many pixels as the clip has: its size is the clip's.
    (large,) = DnnSpec.read_all([assets_path() / "detector.card.toml"], [], None)
    bench = Bench(Group(spec, large, ("aq-1@dnn",)), tmp_path / "alike", SETTINGS)
    bench.rehearse()
    assert timed == {("aq-1", 34), ("aq-1@dnn", 34)}
    rows = list(bench.cells({}))
    assert {row.quality for row in rows if row.role == "method"} >= {26, 34, 42}


def test_costs_that_cells_have_used_stand(
    measured: tuple[Path, list[CellRow]],
    spec: ClipSpec,
    dnn: DnnSpec,
    tmp_path: Path,
) -> None:
    bench = Bench(Group(spec, dnn, ("aq-1",)), tmp_path, SETTINGS)
    bench.rehearse()
    (file,) = (tmp_path / "costs").iterdir()
    before = json.loads(file.read_text())["aq-1"]
    wider = Bench(Group(spec, dnn, ("aq-1", "constant-qp")), tmp_path, SETTINGS)
    assert not wider.costs_are_known
    wider.rehearse()
    after = json.loads(file.read_text())
    assert after["aq-1"] == before
    assert set(after) == {"aq-1", "constant-qp"}


@pytest.mark.parametrize(("pass_ms", "overloaded"), [(5.0, False), (200.0, True)])
def test_a_measured_server_that_can_t_keep_up_has_no_delay_and_says_so(
    measured: tuple[Path, list[CellRow]],
    spec: ClipSpec,
    dnn: DnnSpec,
    tmp_path: Path,
    pass_ms: float,
    overloaded: bool,
) -> None:
    folder, _ = measured
    settings = replace(SETTINGS, server_cores=2, points=3)
    (file,) = (folder / "costs").iterdir()
    costs = json.loads(file.read_text())
    for each in costs.values():
        each["infer_ms"] = pass_ms
    (tmp_path / "costs").mkdir()
    (tmp_path / "costs" / file.name).write_text(json.dumps(costs))
    rows = list(Bench(Group(spec, dnn, ("constant-qp@dnn",)), tmp_path, settings).cells({}))
    for row in of(rows, "constant-qp@dnn"):
        # 30 frames a second on two cores.
        assert row.server_load == pytest.approx(30 * pass_ms / 1000 / 2, rel=0.15)
        if overloaded:
            assert row.delays == {}
            assert all("server DNN has a load of" in why for why in row.why_no_delay.values())
        else:
            assert all(delay.serve_ms >= pass_ms for delay in row.delays.values())
            assert "4 Mbit/s" in row.delays


def test_a_method_that_breaks_fails_alone_with_its_reason(
    spec: ClipSpec, dnn: DnnSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def push(self, index: int, frame: av.VideoFrame) -> None:
            raise ConnectionError("no route\nto my licence server")

        def finish(self) -> None:
            pass

    broken = Method("broken", "plugin", "this test", lambda *_: Broken())
    monkeypatch.setitem(METHODS, "broken", broken)
    without = replace(dnn, accmodel_file=None, accmodel=None, stronger=None)
    group = Group(spec, without, ("broken", "graded@dnn", "constant-qp@dnn"))
    rows = list(Bench(group, tmp_path, replace(SETTINGS, points=3)).cells({}))
    (failed,) = of(rows, "broken")
    assert (failed.status, failed.reason) == ("failed", "ConnectionError: no route to my licence server")
    (missing,) = of(rows, "graded@dnn")
    assert "needs an AccModel: give one with --accmodel" in (missing.reason or "")
    assert [row.status for row in of(rows, "constant-qp@dnn")] == ["ok"] * 3
    notes = find(rows).dnns[0].notes
    assert "street, broken: failed at quality 26: ConnectionError: no route to my licence server" in notes


def test_a_clip_that_can_t_be_read_is_said_once_for_each_method(dnn: DnnSpec, tmp_path: Path) -> None:
    def broken(limit: int | None) -> Clip:
        raise SourceError("moov atom not found")

    rows = list(Bench(Group(ClipSpec("bad", "0", broken), dnn, NAMES), tmp_path, SETTINGS).cells({}))
    assert [(row.role, row.method, row.quality) for row in rows] == [
        ("ceiling", "aq-1", 12),
        ("method", "aq-1", 26),
        ("method", "constant-qp@dnn", 20),
        ("method", "graded", 26),
    ]
    assert all(row.status == "failed" and "moov atom" in (row.reason or "") for row in rows)


def test_a_clip_of_nothing_is_measured_and_left_out(
    clip: Clip, dnn: DnnSpec, tmp_path: Path, grey: Callable[[int], av.VideoFrame]
) -> None:
    empty = replace(clip, frames=[grey(index) for index in range(12)], labels=None)
    group = Group(ClipSpec("fog", "grey", lambda limit: empty), dnn, ("constant-qp@dnn",))
    rows = list(Bench(group, tmp_path, SETTINGS).cells({}))
    assert {row.status for row in rows} == {"ok"}
    findings = find(rows, baselines=["constant-qp@dnn"]).dnns[0].headline
    assert findings.counted == ()
    assert "fog: left out: there is nothing to find" in findings.notes


@pytest.fixture
def grey(clip: Clip) -> Callable[[int], av.VideoFrame]:
    def make(index: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(clip.frames[0].to_ndarray() * 0 + 128, format="yuv420p")
        frame.pts, frame.time_base = index, clip.time_base
        return frame

    return make


def test_operating_points_may_be_given(spec: ClipSpec, dnn: DnnSpec, tmp_path: Path) -> None:
    names = ("constant-qp", "constant-qp@dnn")
    settings = replace(SETTINGS, qualities=(30, 38))
    rows = list(Bench(Group(spec, dnn, names), tmp_path, settings).cells({}))
    assert [row.quality for row in of(rows, "constant-qp")] == [30, 38]
    assert [row.quality for row in of(rows, "constant-qp@dnn")] == [24, 32]
    assert all(row.accuracy == row.measures["ap50"] for row in rows)
    assert all(row.label_accuracy == row.measures["labels_ap50"] for row in rows)
    with pytest.raises(UsageError, match="1 to 51"):
        replace(SETTINGS, qualities=(0,))
