"""The live benchmarks in short forms: they run, and their figures hang together. No figure is judged here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--size", "320x192", "--frame-rate", "10", "--frames", "20")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def figures(name: str, folder: Path, *options: str, common: tuple[str, ...] = SMALL) -> Any:
    file = folder / f"{name}.json"
    run = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *common, *options, "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(file.read_text())


def test_delay_is_made_up_of_its_stages(tmp_path: Path) -> None:
    work = tmp_path / "work"
    found = figures("live_delay.py", tmp_path, "--seconds", "4", "--warm-up-s", "1", "--work", str(work))
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from live_programs import STAGES, by_stage
    finally:
        sys.path.remove(str(BENCHMARKS))
    rows = by_stage(work / "camera.out", work / "server-results.jsonl")
    assert rows
    for row in rows:
        assert sum(row["stages"].values()) == pytest.approx(row["delay"], abs=0.01)
        # Two clocks of one machine: what they differ by is far below any stage that has work to do.
        assert min(row["stages"].values()) > -2, row["stages"]
    assert set(STAGES) < set(found["stages_ms_p50_p95_p99"])
    assert found["bound_p95_ms"] > 15
    assert found["first_result_s"]["scene"] > 0
    assert found["camera_core_share"] > 0
    assert found["server_core_share"] > 0


def test_every_way_to_stream_meets_every_step_of_the_link(tmp_path: Path) -> None:
    found = figures("live_link.py", tmp_path, "--steps", "2,0.3", "--step-s", "4", "--fixed", "0.6")
    runs = found["runs"]
    assert [name.split()[0] for name in runs] == ["AccMPEG", "x264", "x264", "x264"]
    for steps in runs.values():
        assert [step["link_mbps"] for step in steps] == [2, 0.3]
        for step in steps:
            assert step["received_per_s"] > 0
            assert 0 < step["sent_mbps"] < step["link_mbps"] * 1.1
            assert 0 < step["f1"] <= 1
    # A plain streamer sends 0.6 Mbit/s into 0.3: what waits grows, on any machine.
    every_frame = runs["x264 0.6 Mbit/s, every frame"]
    assert every_frame[1]["p95_ms"] > every_frame[0]["p95_ms"]


def test_a_neighbour_comes_and_goes(tmp_path: Path) -> None:
    found = figures("live_neighbour.py", tmp_path, "--seconds", "3", "--warm-up-s", "2")
    assert list(found["spans"]) == ["alone", "with the neighbour", "after it"]
    assert all(0 < each["p50_ms"] <= each["p95_ms"] for each in found["spans"].values())
    assert all(each["results_per_s"] > 0 for each in found["spans"].values())


def test_a_crowd_sends_what_is_answered(tmp_path: Path) -> None:
    options = ("--cameras", "3", "--answers-per-second", "20", "--seconds", "5", "--warm-up-s", "3")
    found = figures("live_crowd.py", tmp_path, *options)
    assert len(found["by_camera"]) == 3
    assert 0 < found["answered"] < 25
    assert found["sent"] <= found["captured"] + 1


def test_many_cameras_share_batches(tmp_path: Path) -> None:
    found = figures("live_many.py", tmp_path, "--cameras", "4", "--seconds", "5", "--warm-up-s", "2")
    assert all(rate > 0 for rate, _ in found["bare_per_s"])
    saturated = found["loads"][-1]
    assert len(saturated["results_by_camera"]) == 4
    assert all(results > 0 for results in saturated["results_by_camera"])
    assert saturated["mean_batch"] > 1
    assert 0 < saturated["fairness"] <= 1


@pytest.mark.timeout(1200)  # three programs one after the other
def test_costs_and_small_clusters_feed_the_simulation_of_large_ones(tmp_path: Path) -> None:
    short = ("--frames", "10", "--work", str(tmp_path / "work"))
    cost = figures("server_cost.py", tmp_path, *short, "--seconds", "2", "--connections", "5", common=())
    first, welcome = (cost["connection"][kind]["cpu_ms"] for kind in ("tls, first result", "tls"))
    assert first > welcome > 0
    for stream in cost["streams"]:
        assert stream["up_bps"] > 0
        assert 0 < stream["loop_ms"] < stream["cpu_ms"]
    small = figures("live_cluster.py", tmp_path, *short, "--seconds", "4", common=())
    assert small["burst"]["cut"] == 240 - len(small["burst"]["welcomes_s"])
    for loss in (small["killed"], small["silent"]):
        assert len(loss["back_s"]) == loss["lost"]
    files = (
        "--cost",
        str(tmp_path / "server_cost.py.json"),
        "--small",
        str(tmp_path / "live_cluster.py.json"),
    )
    simulated = figures(
        "fleet_simulation.py", tmp_path, *files, "--cameras", "200", "--seconds", "2", common=()
    )
    assert all(storm["back_s_50_95_100"][2] < 60 for storm in simulated["storms"])
    assert [row["measured"] for row in simulated["check"] if row["what"] == "cut off"] == [
        small["burst"]["cut"]
    ]


def test_what_a_second_worker_brings_is_told_by_process_and_by_core(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    tiny = ("--rounds", "1", "--clips", "1", "--frames", "40", "--job", "label")
    found = figures("cluster_scaling.py", tmp_path, *tiny, common=())["label"]
    (round_,) = found["rounds"]
    wall_s = {name: each["wall_s"] for name, each in round_.items()}
    assert found["wall"]["efficiency, ray 2"] == pytest.approx(wall_s["local 1"] / 2 / wall_s["ray 2"])
    assert found["wall"]["efficiency per core, ray 2"] == pytest.approx(
        wall_s["local 1, one core"] / 2 / wall_s["ray 2"]
    )
    # What is held to one core uses no more of it than there is.
    assert round_["local 1, one core"]["cpu_s"] < 1.1 * wall_s["local 1, one core"]
