"""`accmpeg demo`: the table, the report and its pictures."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from accmpeg.demo import assets_path


@pytest.fixture(scope="module")
def pictures_of() -> Callable[[Path], list[np.ndarray]]:
    def read(report: Path) -> list[np.ndarray]:
        encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', report.read_text())
        return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1) for data in encoded]

    return read


def test_the_embedded_demo(accmpeg: Callable, tmp_path: Path, pictures_of: Callable) -> None:
    done = accmpeg("demo", "--out", "report", "--limit", 30, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = document["rows"]
    assert [row["method"] for row in rows if row["ours"]] == [
        "AccMPEG, graded map",
        "AccMPEG, graded map, DNN's size",
    ]
    assert document["synthetic"] is True
    # No x264 stream has fewer bytes than AccMPEG's.
    ours, others = ([row["bytes"] for row in rows if row["ours"] == mine] for mine in (True, False))
    assert max(ours) <= min(others)
    assert max(others) < 1.6 * min(ours)
    assert all(0 <= row["accuracy_vs_labels"] <= 1 for row in rows)
    report = tmp_path / "report" / "report.html"
    assert "synthetic" in report.read_text()
    pictures = pictures_of(report)
    assert len(pictures) == 3 * (1 + len(rows) + 2)
    assert all(picture.shape[1] == 640 for picture in pictures)


def test_the_demo_on_an_own_video(accmpeg: Callable, tmp_path: Path) -> None:
    made = accmpeg("encode", "scene", "-o", "own.mp4", "--policy", "none", "--limit", 20, "--crf", 16)
    assert made.returncode == 0, made.stderr
    models = (
        "--dnn",
        assets_path() / "detector.card.toml",
        "--accmodel",
        assets_path() / "accmodel.card.toml",
    )
    done = accmpeg("demo", "--video", "own.mp4", *models, "--step", 5)
    assert done.returncode == 0, done.stderr
    assert "AccMPEG, graded map" in done.stdout
    assert "synthetic" not in (tmp_path / "accmpeg-demo" / "report.html").read_text()


def test_an_own_video_needs_its_models(accmpeg: Callable) -> None:
    done = accmpeg("demo", "--video", "own.mp4")
    assert done.returncode == 2
    assert "--dnn" in done.stderr
