"""`accmpeg cluster evaluate`: the same cells as on one machine, whoever dies."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from accmpeg.demo import assets_path
from accmpeg.evaluation.bench.rows import CELLS_NAME, CellRow, read_rows
from tests.cluster.conftest import accmpeg_command, lines
from tests.helpers import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, render_video: Any) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in (2001, 2002):
        render_video(folder / f"street-{seed}.mp4", seed, 9)
    return folder


def wanted(videos: Path, card: Path, out: Path) -> list[object]:
    return [
        *("--videos", videos, "--dnn", card, "--accmodel", assets_path() / "accmodel.card.toml"),
        *("--methods", "constant-qp,graded@dnn,feedback@dnn", "--most-points", 3, "--limit", 9),
        *("--step", 2, "--every", 3, "--output", out),
    ]


@pytest.fixture(scope="module")
def whole(videos: Path, small_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "sweep"
    subprocess.run(accmpeg_command("evaluate", *wanted(videos, small_card, out), "--workers", 1), check=True)
    return out


def rows(out: Path) -> list[CellRow]:
    """By key: the file has them in the order in which they were finished."""
    return sorted(read_rows(out / CELLS_NAME), key=lambda row: row.key)


def without_timings(row: CellRow) -> dict[str, Any]:
    """Without what follows from the milliseconds that stages took on the machine that measured them."""
    kept = row.model_dump(
        exclude={
            *("camera_ms", "camera_ratio", "stage_ms", "infer_ms", "camera_load", "server_load"),
            *("delays", "why_no_delay"),
        }
    )
    del kept["blocks"]["delay_ms"]
    return kept


def test_the_cells_are_those_of_one_machine_but_for_timings(
    cluster: Any, videos: Path, small_card: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    asked = accmpeg_command(
        "cluster", "evaluate", *wanted(videos, small_card, out), "--address", cluster.address
    )
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # When the server's answers reach the camera depends on timings, so what feedback makes may too.
    ours, theirs = (
        [without_timings(row) for row in rows(folder) if not row.method.startswith("feedback")]
        for folder in (out, whole)
    )
    assert ours == theirs
    assert {file.name for file in (out / "pictures").iterdir()} == {
        file.name for file in (whole / "pictures").iterdir()
    }


def test_a_node_that_is_killed_half_way_changes_nothing(
    cluster: Any, videos: Path, small_card: Path, whole: Path, tmp_path: Path
) -> None:
    """With the costs of the other sweep nothing at all differs: no machine takes the same time twice."""
    out = tmp_path / "sweep"
    shutil.copytree(whole / "costs", out / "costs")
    asked = accmpeg_command(
        "cluster", "evaluate", *wanted(videos, small_card, out), "--address", cluster.address
    )
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or lines(out / CELLS_NAME) >= 5)
        assert process.poll() is None, process.stderr
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert rows(out) == rows(whole)
    assert lines(out / CELLS_NAME) == lines(whole / CELLS_NAME)
