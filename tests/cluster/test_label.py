"""`accmpeg cluster label`: the same files as on one machine, whoever dies."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cluster import greedy
from tests.cluster.conftest import accmpeg_command, contents, lines
from tests.helpers import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory, render_video: Any) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for seed in (2001, 2002, 2003):
        render_video(folder / f"street-{seed}.mp4", seed, 12)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def whole(footage: Path, small_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "labels"
    subprocess.run(accmpeg_command("label", *wanted(footage, small_card, out), "--workers", 2), check=True)
    return out


def wanted(footage: Path, card: Path, out: Path) -> list[object]:
    return [footage, "--dnn", card, "-o", out, "--every", 1]


def test_the_files_are_those_of_one_machine(
    cluster: Any, footage: Path, small_card: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    done = subprocess.run(
        accmpeg_command("cluster", "label", *wanted(footage, small_card, out), "--address", cluster.address),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "36 labels" in done.stdout
    assert contents(out) == contents(whole)


def test_a_node_that_is_killed_half_way_changes_nothing(
    cluster: Any, footage: Path, small_card: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    asked = accmpeg_command(
        "cluster", "label", *wanted(footage, small_card, out), "--address", cluster.address, "--json"
    )
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or lines(out / "journal.jsonl") >= 8)
        assert process.poll() is None, process.stderr
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert json.loads(said)["new"] == 36
    assert contents(out) == contents(whole)


@pytest.mark.timeout(600)
def test_a_frame_that_takes_too_much_memory_is_named_and_the_rest_kept(
    little_memory: None, cluster: Any, small_card: Path, render_video: Any, tmp_path: Path
) -> None:
    """Ray's memory monitor kills the worker each time; what it lacks is then there, and a rerun goes on."""
    cluster.remove_node(next(iter(cluster.worker_nodes)))  # one is enough
    street, white = render_video(tmp_path / "street.mp4", 2001, 6), tmp_path / "white.png"
    out, greedy_file = tmp_path / "labels", tmp_path / "greedy"
    Image.fromarray(np.full((360, 640, 3), 255, np.uint8)).save(white)
    greedy_file.touch()
    card = greedy.write_card(tmp_path, small_card, greedy_file)
    options = ["--black-box", 8, "--address", cluster.address, "--json"]
    asked = accmpeg_command("cluster", "label", street, *wanted(white, card, out), *options)
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 1
    *progress, line = done.stderr.strip().splitlines()
    assert all(each.startswith("label ") for each in progress), done.stderr
    assert line.startswith(f"error: frame 0 of {white}: its worker ran out of memory, 4 times")
    assert line.endswith("and run this again")
    assert lines(out / "journal.jsonl") == 6
    greedy_file.unlink()
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["new"], lines(out / "journal.jsonl")) == (1, 7)
