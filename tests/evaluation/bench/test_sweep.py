"""A sweep over real streams: resumed after a kill, unmoved by a bad clip, and never mixed with another."""

import json
import lzma
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.demo import assets_path
from accmpeg.errors import EvaluationError, UsageError, WeightsError
from accmpeg.evaluation.bench.plan import DnnSpec, footage_clips
from accmpeg.evaluation.bench.record import RECORD_NAME
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.media.source import find_footage
from accmpeg.workers import LocalWorkers
from tests.dnn.inference_servers import HttpServer, Model, remote_card
from tests.evaluation.simulated import clip_rows

CARD = assets_path() / "detector.card.toml"
MODEL = assets_path() / "accmodel.card.toml"
SETTINGS = SweepSettings(points=3, limit=9, step=2, every=3)
NAMES = ("constant-qp", "graded@dnn")
KILLED = f"""
import os, signal, sys

def kill_before_the_fourth_row(event, arguments):
    if event == "open" and str(arguments[0]).endswith({CELLS_NAME!r}) and arguments[2] & os.O_APPEND:
        if os.path.exists(arguments[0]) and sum(1 for _ in open(arguments[0], "rb")) == 3:
            os.killpg(0, signal.SIGKILL)

sys.addaudithook(kill_before_the_fourth_row)
"""
"""Loaded by the command and its workers: kills them at a row and not at a time, by which they may be done."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, render_video: Any) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in (2001, 2002):
        render_video(folder / f"street-{seed}.mp4", seed, 9)
    return folder


def sweep(
    videos: Path, card: Path, out: Path, names: tuple[str, ...] = NAMES, **options: Any
) -> list[CellRow]:
    return run_sweep(
        footage_clips(find_footage([videos])),
        DnnSpec.read_all([card], options.pop("accmodels", [MODEL])),
        [METHODS[name] for name in names],
        out,
        options.pop("settings", SETTINGS),
        **{"workers": 1, **options},
    )


def command(videos: Path, card: Path, out: Path) -> list[str]:
    """The same sweep as a user starts it."""
    return [
        *("evaluate", "--videos", str(videos), "--dnn", str(card), "--accmodel", str(MODEL)),
        *("--methods", ",".join(NAMES), "--most-points", "3", "--limit", "9", "--step", "2", "--every", "3"),
        *("--workers", "1", "--output", str(out)),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def whole(
    videos: Path, small_card: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[CellRow]]:
    out = tmp_path_factory.mktemp("sweep")
    return out, sweep(videos, small_card, out)


def test_every_clip_has_its_ceiling_and_every_method_its_points(whole: tuple[Path, list[CellRow]]) -> None:
    _, rows = whole
    # Per clip the ceiling, pristine frames at the DNN's size, and three points of each method.
    assert len(rows) == 2 * (2 + 2 * 3)
    assert {row.status for row in rows} == {"ok"}
    assert [row.clip for row in rows] == ["street-2001"] * 8 + ["street-2002"] * 8
    assert sum(row.role == "ceiling" for row in rows) == 2
    assert all(row.source_bitrate_bps > 0 for row in rows)


def test_a_finished_sweep_measures_nothing_again(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]]
) -> None:
    out, rows = whole
    before = contents(out)
    seen: list[tuple[str, int, int]] = []
    again = sweep(videos, small_card, out, progress=lambda *told: seen.append(told))
    assert again == rows
    assert contents(out) == before
    assert {what for what, _, _ in seen} == {"costs", "cells"}
    assert seen[-1] == ("cells", len(rows), len(rows))


def test_workers_without_a_clip_of_their_own_share_the_methods_of_one(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]], tmp_path: Path
) -> None:
    _, rows = whole
    shutil.copytree(whole[0] / "costs", tmp_path / "costs")  # timed once: a cell's own figures depend on them
    started: list[int] = []

    class Counting(LocalWorkers):
        def as_finished(self, tasks: Sequence[Any], *arguments: Any, **options: Any) -> None:
            started.append(len(tasks))
            super().as_finished(tasks, *arguments, **options)

    shared = sweep(videos, small_card, tmp_path, workers=Counting(4))
    assert started == [2, 2, 4], "costs, what methods have in common, then two shares of each clip"
    assert [row.model_dump() for row in shared] == [row.model_dump() for row in rows]
    sweep(videos, small_card, tmp_path, workers=Counting(4))
    assert started[3:] == [2, 4]


def test_pictures_of_the_map_are_kept(whole: tuple[Path, list[CellRow]]) -> None:
    out, _ = whole
    listings = [json.loads(file.read_text()) for file in sorted((out / "pictures").glob("*.json"))]
    assert [entry["clip"] for entry in listings] == ["street-2001", "street-2002"]
    for image in listings[0]["images"]:
        assert (out / "pictures" / image["file"]).stat().st_size > 5000


def test_a_killed_sweep_goes_on_to_the_same_rows_and_its_report(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]], tmp_path: Path
) -> None:
    """With the costs of the other sweep, since no machine takes the same time twice."""
    out = tmp_path / "out"
    shutil.copytree(whole[0] / "costs", out / "costs")
    costs = contents(out / "costs")
    arguments = command(videos, small_card, out)
    (tmp_path / "sitecustomize.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, "-m", "accmpeg", *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode == -signal.SIGKILL
    cells = out / CELLS_NAME
    kept = cells.read_bytes()
    assert kept.count(b"\n") == 3
    # A kill in the middle of a write leaves half a line.
    with cells.open("ab") as file:
        file.write(b'{"format": 2, "key": "half')
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert f"16 cells (0 failed). Report: {out / 'report.html'}" in again.output
    # Clip by clip as they were begun: the largest file first.
    assert sorted(read_rows(cells), key=lambda row: row.key) == sorted(whole[1], key=lambda row: row.key)
    assert cells.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert contents(out / "costs") == costs
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 4
    assert not re.search(r"""(src|href)=["']?(http|//)|url\(|@import""", page.replace("url(#", ""))
    assert {file.name for file in (out / "ctc").rglob("*.csv")} == {f"{name}.csv" for name in NAMES}


def test_a_packed_sweep_goes_on_where_it_was(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]], tmp_path: Path
) -> None:
    """As results are kept in a repository."""
    shutil.copytree(whole[0] / "costs", tmp_path / "costs")
    lines = (whole[0] / CELLS_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / f"{CELLS_NAME}.xz").write_bytes(lzma.compress(b"".join(lines[:-2])))
    assert sorted(sweep(videos, small_card, tmp_path), key=str) == sorted(whole[1], key=str)


OLD = {
    "cells.jsonl": '{"key":"0","clip":"street-2001","dnn":"x","bytes":12,"accuracy":0.9}\n{"key":"1","cl',
    "run.json": '{"settings": {"points": [30, 34]}}',
    "report.html": "<p>old</p>",
}


@pytest.mark.parametrize("verb", ["evaluate", "report", "demo"])
def test_a_folder_of_the_old_format_says_to_start_anew_and_stays_as_it_is(
    verb: str, videos: Path, small_card: Path, tmp_path: Path
) -> None:
    for name, text in OLD.items():
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    arguments = {
        "evaluate": command(videos, small_card, tmp_path),
        "report": ["report", str(tmp_path)],
        "demo": ["demo", "--limit", "9", "--output", str(tmp_path)],
    }[verb]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "another version of the bench" in done.output
    assert "start anew with another --output" in done.output
    assert contents(tmp_path) == before


def test_a_folder_of_other_settings_is_not_mixed_with(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]]
) -> None:
    before = contents(whole[0])
    for other in ({"limit": 6}, {"step": 1}, {"server_ms": 20.0}):
        settings = SweepSettings(**{"points": 3, "limit": 9, "step": 2, "every": 3, **other})
        with pytest.raises(EvaluationError, match=r"other settings.*start anew with another --output"):
            sweep(videos, small_card, whole[0], settings=settings)
    assert contents(whole[0]) == before


def test_what_can_t_be_measured_fails_alone_until_it_is_tried_again(
    videos: Path, small_card: Path, tmp_path: Path
) -> None:
    mixed, out = tmp_path / "mixed", tmp_path / "out"
    mixed.mkdir()
    good = next(videos.glob("*2001*"))
    (mixed / good.name).write_bytes(good.read_bytes())
    (mixed / "broken.mp4").write_bytes(good.read_bytes()[:300])
    # Without an AccModel the graded map can't be made either.
    rows = sweep(mixed, small_card, out, accmodels=[])
    broken = [row for row in rows if row.clip == "broken"]
    assert {row.status for row in broken} == {"failed"}
    assert all("SourceError" in (row.reason or "") for row in broken)
    fine = {(row.method, row.status) for row in rows if row.clip == good.stem and row.role == "method"}
    assert fine == {("constant-qp", "ok"), ("graded@dnn", "failed")}
    # What was missing is given: the failures are gone, the rest stays as it was.
    again = sweep(mixed, small_card, out, retry_failed=True)
    assert {(row.clip, row.status) for row in again} == {("broken", "failed"), (good.stem, "ok")}
    kept = [row for row in rows if row.status == "ok"]
    assert [row for row in again if row in kept] == kept


def test_a_sweep_of_which_nothing_came_exits_with_each_reason_once(small_card: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    arguments = command(tmp_path / "broken.mp4", small_card, tmp_path / "out")
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_a_disk_that_fills_up_ends_the_sweep_with_its_reason(
    videos: Path, small_card: Path, tmp_path: Path
) -> None:
    """A limit on the size of files acts as a full disk does: a part of a write, and then an error."""
    limit = 9_000
    done = subprocess.run(
        [sys.executable, "-m", "accmpeg", *command(videos, small_card, tmp_path / "out"), "--no-pictures"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "300"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "can't write to" in done.stderr
    assert "File too large" in done.stderr
    assert "finished cells are kept" in done.stderr
    assert "Traceback" not in done.stderr
    # With room again it goes on; what was finished was whole.
    rows = read_rows(tmp_path / "out" / CELLS_NAME)
    assert all(row.status == "ok" for row in rows)


def test_a_measured_server_and_its_cores_are_used_and_recorded(
    videos: Path, small_card: Path, tmp_path: Path
) -> None:
    arguments = command(next(videos.glob("*2001*")), small_card, tmp_path / "out")
    arguments[arguments.index("--methods") + 1] = "constant-qp@dnn"
    arguments += ["--server-ms", "measured", "--server-cores", "3", "--primary", "constant-qp@dnn:aq-1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / RECORD_NAME).read_text())
    assert record["settings"]["server_cores"] == 3
    assert record["primary"] == ["constant-qp@dnn:aq-1"]
    for row in read_rows(tmp_path / "out" / CELLS_NAME):
        if row.role == "method":
            assert row.infer_ms > 0
            for delay in row.delays.values():
                assert delay.serve_ms >= row.infer_ms


def test_a_comparison_named_when_its_figures_are_there_is_refused(
    videos: Path, small_card: Path, whole: tuple[Path, list[CellRow]]
) -> None:
    before = contents(whole[0])
    asked = [*command(videos, small_card, whole[0]), "--primary", "graded@dnn:constant-qp"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1
    assert "what is named afterwards proves nothing" in " ".join(done.output.split())
    assert contents(whole[0]) == before


def test_a_sweep_stops_where_its_inference_server_is_away(videos: Path, tmp_path: Path) -> None:
    with HttpServer(Model()) as there:
        card = remote_card(tmp_path, there.address)
        asked = [*command(videos, card, tmp_path / "out"), "--methods", "aq-1", "--server-cores", "2"]
        asked = [argument for argument in asked if argument not in ("--accmodel", str(MODEL))]
        timed = CliRunner().invoke(app, [*asked, "--server-ms", "measured"])
        assert timed.exit_code == 2
        assert "does not run here" in timed.output
    away = CliRunner().invoke(app, asked)
    assert away.exit_code == 1
    assert "nothing listens at" in away.output
    assert read_rows(tmp_path / "out" / CELLS_NAME) == []


@pytest.mark.parametrize("value", ["fast", "0", "-3", "nan"])
def test_a_server_that_makes_no_sense_is_refused(
    value: str, videos: Path, small_card: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [*command(videos, small_card, out), "--server-ms", value])
    assert done.exit_code == 2
    assert "--server-ms" in done.output
    assert not out.exists()


def test_labels_of_other_names_than_the_dnn_s_are_told(
    videos: Path, small_card: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for video in videos.iterdir():
        images = [{"id": frame, "file_name": f"{frame}.jpg", "frame_index": frame} for frame in range(9)]
        document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "Unicorn"}]}
        (labels / f"{video.stem}.json").write_text(json.dumps(document))
    asked = [*command(videos, small_card, tmp_path / "out"), "--methods", "aq-1", "--labels", str(labels)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0
    assert "warning: --labels judge nothing of" in done.output


def test_an_out_that_is_a_file_is_refused(videos: Path, small_card: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(app, command(videos, small_card, tmp_path / "file"))
    assert refused.exit_code == 2
    assert "is a file: give a folder" in refused.output


def test_a_reference_that_can_t_confirm_is_refused_before_anything_is_measured(
    videos: Path, small_card: Path, tmp_path: Path
) -> None:
    no_boxes = tmp_path / "classes.card.toml"
    no_boxes.write_text(small_card.read_text().replace('task = "detection"', 'task = "segmentation"'))
    broken = tmp_path / "broken.card.toml"
    broken.write_text("name = 3")
    lost = tmp_path / "lost.card.toml"
    lost.write_text(CARD.read_text())
    out = tmp_path / "out"
    for card, said in (
        (no_boxes, "reports no boxes, so it can't confirm any"),
        (broken, "broken.card.toml"),
        (lost, "correct 'model' in its card"),
    ):
        done = CliRunner().invoke(app, [*command(videos, small_card, out), "--reference", str(card)])
        assert done.exit_code in (1, 2)
        assert said in done.output
        assert len(done.output.splitlines()) == 1
    assert not out.exists()


def test_an_accmodel_of_another_dnn_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.card.toml"
    text = MODEL.read_text()
    own = DnnSpec.read_all([CARD], [MODEL])[0].card.sha256 or ""
    assert own in text
    other.write_text(text.replace(own, "ab" * 32))
    with pytest.raises(UsageError, match="which no --dnn names"):
        DnnSpec.read_all([CARD], [other])


def test_damaged_results_are_named(videos: Path, small_card: Path, tmp_path: Path) -> None:
    (tmp_path / CELLS_NAME).write_text('{"format": 2, "clip": 3}\n')
    with pytest.raises(EvaluationError, match=r"line 1 of .*: delete that line"):
        sweep(videos, small_card, tmp_path)


def test_weights_that_are_not_the_card_s_stop_a_sweep_before_it_begins(tmp_path: Path) -> None:
    shutil.copy(CARD, tmp_path)
    (tmp_path / "detector.onnx").write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="is not the file"):
        DnnSpec.read_all([tmp_path / CARD.name], [])


def test_a_null_point_that_failed_is_told_though_the_next_one_did_not(tmp_path: Path) -> None:
    """A method's next point follows from its last, so a later success means that it was got over."""
    rows = clip_rows("street", {"aq-1": 1.0}, qualities={"aq-1": [34, 30]})[1:]
    failed, fine = (row.model_copy(update={"role": "null"}) for row in rows)
    failed = failed.model_copy(update={"status": "failed", "reason": "no room"})
    (tmp_path / CELLS_NAME).write_text(failed.to_line() + fine.to_line())
    assert read_rows(tmp_path / CELLS_NAME) == [failed, fine]
