"""The short form of `benchmarks/live_soak.py`: both programs for 20 seconds, their memory and losses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "live_soak.py"
TIMELY = {"machine", "server", "link", "rate", "late"}
"""Reasons to leave frames out when the machine is busy; none of them is a fault."""
GROWTH = 0.25
"""Programs that have just started still grow; one that keeps its frames grows by more than that."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_nothing_is_lost_and_memory_stays(tmp_path: Path) -> None:
    file = tmp_path / "soak.jsonl"
    options = ["--size", "640x360", "--frame-rate", "15", "--frames", "30", "--every-s", "1"]
    run = subprocess.run(
        [sys.executable, str(SOAK), "--minutes", "0.33", *options, "--samples", str(file)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(samples) >= 10
    assert samples[-1]["results"] > samples[0]["results"]
    assert samples[-1]["decode_errors"] == 0
    last = samples[-1]["camera"]
    assert last["connections"] == 1
    lost = {key for key, count in last.items() if key.startswith("dropped_") and count}
    assert lost <= {f"dropped_{reason}" for reason in (*TIMELY, "offline")}
    settled = samples[len(samples) // 3]
    for side in ("camera_rss", "server_rss"):
        assert samples[-1][side] < settled[side] * (1 + GROWTH), (side, run.stdout)

    again = subprocess.run(
        [sys.executable, str(SOAK), "--read", "--samples", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "growth after" in again.stdout
