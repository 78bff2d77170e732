"""A sweep over real streams: resumed after a kill, unmoved by a bad clip or a method that crashes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.demo import assets_path
from accmpeg.demo.footage import render_clip
from accmpeg.errors import EvaluationError, UsageError, WeightsError
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.plan import DnnSpec, SweepSettings, footage_clips
from accmpeg.evaluation.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.sweep import run_sweep
from accmpeg.media.source import find_footage

CARD = assets_path() / "detector.card.toml"
MODEL = assets_path() / "accmodel.card.toml"
SETTINGS = SweepSettings(points=(30, 40), limit=4, step=2, every=2)
NAMES = ("constant-qp", "aq-1@dnn", "graded")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in (2001, 2002):
        render_clip(seed, 4, folder)
    return folder


def sweep(videos: Path, out: Path, names: tuple[str, ...] = NAMES, **options: object) -> list[CellRow]:
    return run_sweep(
        footage_clips(find_footage([videos])),
        DnnSpec.read_all([CARD], [MODEL]),
        [METHODS[name] for name in names],
        out,
        SETTINGS,
        workers=1,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CellRow]]:
    out = tmp_path_factory.mktemp("sweep")
    return out, sweep(videos, out)


def test_every_cell_of_the_plan_is_measured(whole: tuple[Path, list[CellRow]]) -> None:
    _, rows = whole
    # Per clip: 3 methods × 2 points, a null point of constant QP, and its noise floor.
    assert len(rows) == 2 * (3 * 2 + 1 + 1)
    assert {row.status for row in rows} == {"ok"}
    by_method = {(row.clip, row.method, row.role, row.quality): row for row in rows}
    assert {quality for _, method, _, quality in by_method if method == "aq-1@dnn"} == {24, 34}
    floor = [row for row in rows if row.role == "noise_floor"]
    assert [(row.method, row.quality) for row in floor] == [("constant-qp", 29)] * 2
    for row in rows:
        assert row.bytes == row.uplink_bytes > 0
        assert row.objects is not None
        assert row.objects > 0
        assert 0 <= (row.accuracy or 0) <= 1
        assert set(row.delay_p50_ms) == set(row.paper_delay_s) == set(SETTINGS.links)
        # Twice the bandwidth never makes a result later.
        delays = [row.delay_mean_ms[name] for name in SETTINGS.links]
        assert delays == sorted(delays, reverse=True)
        assert row.camera_ms > 0
    finer, coarser = (
        [row.bytes for row in rows if row.quality == quality and row.role == "method"] for quality in (30, 40)
    )
    assert sum(finer) > sum(coarser)


def test_a_finished_sweep_measures_nothing_again(videos: Path, whole: tuple[Path, list[CellRow]]) -> None:
    out, rows = whole
    before = (out / CELLS_NAME).read_bytes()
    seen: list[tuple[int, int]] = []
    assert sweep(videos, out, progress=lambda done, total: seen.append((done, total))) == rows
    assert (out / CELLS_NAME).read_bytes() == before
    assert seen == [(len(rows), len(rows))]


def test_pictures_of_the_graded_map_are_kept(whole: tuple[Path, list[CellRow]]) -> None:
    out, _ = whole
    listings = [json.loads(file.read_text()) for file in sorted((out / "pictures").glob("*.json"))]
    assert [entry["clip"] for entry in listings] == ["street-2001", "street-2002"]
    for image in listings[0]["images"]:
        assert (out / "pictures" / image["file"]).stat().st_size > 5000


def test_a_killed_sweep_goes_on_to_the_same_figures(
    videos: Path, whole: tuple[Path, list[CellRow]], tmp_path: Path
) -> None:
    command = [
        *(sys.executable, "-m", "accmpeg", "evaluate", "--videos", str(videos), "--dnn", str(CARD)),
        *("--accmodel", str(MODEL), "--methods", ",".join(NAMES), "--points", "30,40", "--limit", "4"),
        *("--step", "2", "--every", "2", "--workers", "1", "--out", str(tmp_path / "out")),
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    cells = tmp_path / "out" / CELLS_NAME
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not cells.exists() or cells.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = read_rows(cells)
    assert 3 <= len(kept) < 16
    # A kill in the middle of a write leaves half a line.
    with cells.open("ab") as file:
        file.write(b'{"key": "half')
    rows = sweep(videos, tmp_path / "out")
    assert [row.figures() for row in rows] == [row.figures() for row in whole[1]]
    lines = cells.read_bytes().splitlines()
    assert len(lines) == len(rows)
    assert [json.loads(line)["key"] for line in lines[: len(kept)]] == [row.key for row in kept]


def test_a_sweep_of_which_nothing_came_fails_with_each_reason_once(videos: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--videos", str(videos), "--dnn", str(CARD), "--methods", "graded"]
    command += ["--points", "30,40", "--limit", "2", "--workers", "1", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.output.count("needs an AccModel: give one with --accmodel") == 1
    assert "4 cells (4 failed)" in done.output
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "file")])
    assert refused.exit_code == 2
    assert "is a file: give a folder" in refused.output


def test_a_bad_clip_fails_alone(videos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    good = next(videos.glob("*2001*"))
    (mixed / good.name).write_bytes(good.read_bytes())
    (mixed / "broken.mp4").write_bytes(good.read_bytes()[:300])
    rows = sweep(mixed, tmp_path / "out", ("constant-qp",))
    failed = [row for row in rows if row.status == "failed"]
    assert {row.clip for row in failed} == {"broken"}
    assert all("SourceError" in (row.reason or "") and row.accuracy is None for row in failed)
    assert {row.clip for row in rows if row.status == "ok"} == {good.stem}


def test_a_method_that_crashes_is_marked_and_the_sweep_goes_on(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clips = footage_clips(find_footage([videos]))[:1]
    # Without an AccModel the graded map can't be made.
    dnns = DnnSpec.read_all([CARD], [])
    methods = [METHODS["graded"], METHODS["constant-qp"]]
    rows = run_sweep(clips, dnns, methods, out, SETTINGS, workers=1)
    assert [row.status for row in rows if row.method == "graded"] == ["failed", "failed"]
    assert all("--accmodel" in (row.reason or "") for row in rows if row.method == "graded")
    assert {row.status for row in rows if row.method == "constant-qp"} == {"ok"}
    # A failure stands until it is asked to be tried again.
    run_sweep(clips, dnns, methods, out, SETTINGS, workers=1)
    assert len(read_rows(out / CELLS_NAME)) == len(rows)
    run_sweep(clips, dnns, methods, out, SETTINGS, workers=1, retry_failed=True)
    assert len(read_rows(out / CELLS_NAME)) == len(rows) + 2


def test_an_accmodel_of_another_dnn_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.card.toml"
    text = MODEL.read_text()
    own = DnnSpec.read_all([CARD], [MODEL])[0].card.sha256 or ""
    assert own in text
    other.write_text(text.replace(own, "ab" * 32))
    with pytest.raises(UsageError, match="which no --dnn names"):
        DnnSpec.read_all([CARD], [other])


def test_damaged_results_are_named(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / CELLS_NAME).write_text('{"clip": 3}\n')
    with pytest.raises(EvaluationError, match="line 1"):
        sweep(videos, out)


def test_rows_load_as_a_table(whole: tuple[Path, list[CellRow]]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_json(whole[0] / CELLS_NAME, lines=True)
    assert len(table) == len(whole[1])
    assert table.groupby("method")["bytes"].mean().min() > 0


def test_weights_that_are_not_the_card_s_stop_a_sweep_before_it_begins(tmp_path: Path) -> None:
    shutil.copy(CARD, tmp_path)
    (tmp_path / "detector.onnx").write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="is not the file"):
        DnnSpec.read_all([tmp_path / CARD.name], [])
