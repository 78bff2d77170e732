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

METHODS = ["aq-1", "constant-qp", "aq-1@dnn", "b2@dnn", "graded", "graded@dnn", "b2-graded@dnn"]
MODELS = (
    *("--dnn", assets_path() / "detector.card.toml"),
    *("--accmodel", assets_path() / "accmodel.card.toml"),
)


def pictures_of(report: Path) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', report.read_text())
    return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1) for data in encoded]


# `make demo` runs it too.
@pytest.mark.slow
def test_the_embedded_demo_and_the_same_again(accmpeg: Callable, tmp_path: Path) -> None:
    done = accmpeg("demo", "--output", "report", "--limit", 15, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["synthetic"] is True
    rows = {row["method"]: row for row in document["rows"]}
    assert list(rows) == METHODS
    # At the source's size, where the embedded models were made to save bytes.
    assert rows["graded"]["percent_90"] < 0
    assert rows["aq-1"]["camera_ratio"] == 1
    assert rows["graded"]["camera_ratio"] > rows["graded@dnn"]["camera_ratio"]
    for row in rows.values():
        if row["kbps_90"] and row["kbps_95"]:
            assert row["kbps_90"] <= row["kbps_95"]
    report = tmp_path / "report" / "report.html"
    pictures = pictures_of(report)
    assert len(pictures) == 4
    assert all(picture.shape[1] == 640 for picture in pictures)
    # What is there is not measured again, and the table says the same as the document.
    cells = (tmp_path / "report" / "cells.jsonl").read_bytes()
    again = accmpeg("demo", "--output", "report", "--limit", 15)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "report" / "cells.jsonl").read_bytes() == cells
    assert "synthetic" in again.stdout
    (line,) = (line for line in again.stdout.splitlines() if line.startswith("graded "))
    assert f"{rows['graded']['kbps_90']:,.0f}" in line.split()


def test_the_demo_on_an_own_video(accmpeg: Callable, tmp_path: Path) -> None:
    made = accmpeg("encode", "scene", "-o", "own.mp4", "--policy", "none", "--limit", 12, "--crf", 16)
    assert made.returncode == 0, made.stderr
    done = accmpeg("demo", "--video", "own.mp4", *MODELS, "--limit", 9)
    assert done.returncode == 0, done.stderr
    assert "b2-graded@dnn" in done.stdout
    assert "synthetic" not in done.stdout
    assert (tmp_path / "accmpeg-demo" / "report.html").exists()
    assert "cells" in done.stderr.splitlines()[-1]  # progress, without a terminal too
    # A table of two clips would be neither's.
    another = accmpeg("demo", "--limit", 9)
    assert another.returncode == 2
    assert (
        "accmpeg-demo holds the comparison of own with accmpeg-demo-detector: give another" in another.stderr
    )


def test_an_own_video_needs_its_models(accmpeg: Callable) -> None:
    done = accmpeg("demo", "--video", "own.mp4")
    assert done.returncode == 2
    assert "--dnn" in done.stderr


def test_an_own_video_that_is_no_video_is_said_in_one_line(accmpeg: Callable, tmp_path: Path) -> None:
    (tmp_path / "own.mp4").write_bytes(b"no video")
    done = accmpeg("demo", "--video", "own.mp4", *MODELS)
    assert done.returncode == 1
    assert "own.mp4" in done.stderr or "own" in done.stderr
    assert "Traceback" not in done.stderr
