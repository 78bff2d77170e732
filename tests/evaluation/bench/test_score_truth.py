"""benchmarks/score_truth.py: what it reads off its points, by hand, and one short run on a made clip."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from accmpeg.demo import assets_path
from accmpeg.demo.scene import CLASS_NAMES, SceneSource, SceneSpec, true_detections

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "score_truth.py"


@pytest.fixture(scope="module")
def score_truth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_truth", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["score_truth"] = module
    spec.loader.exec_module(module)
    return module


def point(stream: str, crf: float | None, bitrate_bps: float | None, true: float, s: float) -> dict[str, Any]:
    measures = dict.fromkeys(("ap", "ap_pooled", "recall"), true)
    return {
        "clip": "street",
        "dnn": "tiny",
        "stream": stream,
        "crf": crf,
        "bitrate_bps": bitrate_bps,
        "true": measures,
        "s": {"own": s, "confirmed": None, "labels": None},
    }


POINTS = [
    point("source", None, None, 0.8, 1.0),
    point("source", 12, 8e6, 0.8, 0.98),
    point("source", 30, 1e6, 0.8, 0.96 * 0.98),
    point("source", 40, 1e5, 0.8 * 0.9, 0.86 * 0.98),
    point("dnn", None, None, 0.8, 0.9),
    point("dnn", 30, 4e5, 0.8 * 1.01, 0.95 * 0.98),
    point("dnn", 40, 4e4, 0.8 * 0.96, 0.85 * 0.98),
    point("dnn", 42, 3e4, 0.8 * 0.97, 0.83 * 0.98),
]


def test_s_is_read_where_the_true_loss_stands(score_truth: ModuleType) -> None:
    source, small = score_truth.at_loss(POINTS, "ap")
    assert (source["stream"], small["stream"]) == ("source", "dnn")
    # From 0.9 to 1 of the truth in a straight line over log-bitrate, S from 0.86 to 0.96.
    np.testing.assert_allclose(source["s"], [0.95, 0.93, 0.91])
    np.testing.assert_allclose(source["bitrate_bps"], 10 ** np.asarray([5.9, 5.7, 5.5]))
    # 0.97 at fewer bits than 0.96: both stand at 0.965, so a loss of 5 % is never seen.
    assert small["s"][2] is None
    share = (0.99 - 0.965) / (1.01 - 0.965)
    assert small["s"][0] == pytest.approx(0.85 + share * 0.1)


def test_the_table_tells_the_range_between_streams(score_truth: ModuleType) -> None:
    lines = score_truth.table(score_truth.at_loss(POINTS, "ap"), "ap")
    assert "| street | tiny | source | 0.950, 0.930, 0.910 | – | – |" in lines
    (line,) = [line for line in lines if line.startswith("| own | 1% |")]
    apart = 0.95 - (0.85 + 0.025 / 0.045 * 0.1)
    assert line.endswith(f"| {apart:.3f} | {apart:.3f} |")


@pytest.mark.slow
def test_a_short_run_goes_on_where_it_was(tmp_path: Path) -> None:
    scene = SceneSource(SceneSpec(seed=3, width_px=320, height_px=192, frame_count=11))
    clip = tmp_path / "street"
    clip.mkdir()
    for index, frame in enumerate(scene):
        frame.to_image().save(clip / f"{index + 1}.png")
    labels = true_detections(scene)
    document = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES)],
        "images": [{"id": index, "file_name": f"{index + 1}.png"} for index in range(len(labels))],
        "annotations": [
            {"image_id": index, "category_id": int(number), "bbox": [*box[:2], *(box[2:] - box[:2])]}
            for index, frame in enumerate(labels)
            for box, number in zip(frame.xyxy.astype(float), frame.class_id, strict=True)
        ],
    }
    (tmp_path / "street.json").write_text(json.dumps(document))
    card = str(assets_path() / "detector.card.toml")
    command = [sys.executable, str(BENCHMARK), "--videos", str(clip), "--labels", str(tmp_path)]
    command += ["--dnn", card, "--reference", card, "--out", str(tmp_path / "out")]

    def run(crfs: str) -> tuple[str, dict[str, Any]]:
        done = subprocess.run([*command, "--crf", crfs], capture_output=True, text=True, check=True)
        return done.stdout, json.loads((tmp_path / "out" / "truth.json").read_text())

    _, first = run("30")
    assert [(p["stream"], p["crf"]) for p in first["points"]] == [
        ("source", None),
        ("source", 12),
        ("source", 30),
        ("dnn, B-frames", 30),
    ]
    assert first["points"][0]["s"]["own"] == pytest.approx(1)
    assert "confirmed" not in first["points"][0]["s"]  # by itself
    output, second = run("30,45")
    assert second["points"][:4] == first["points"]
    assert len(second["points"]) == 6
    assert "CRF 12" not in output
    assert (tmp_path / "out" / "truth.png").stat().st_size > 1000
