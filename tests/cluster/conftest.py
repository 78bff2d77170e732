"""A real Ray cluster of three nodes on this machine: a head without a CPU, and two workers of one each."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import accmpeg
from tests.evaluation.conftest import render_video, small_card

__all__ = ["render_video", "small_card"]

SOURCE = Path(accmpeg.__file__).parents[1]
STORE_BYTES = 80 << 20
ROOM_BYTES, NEEDED_BYTES = 3 << 30, 6 << 30


def accmpeg_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "accmpeg", *map(str, arguments)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own watch over memory, with 3 GiB beyond what is taken now; to be asked for before `cluster`."""
    memory = psutil.virtual_memory()
    if memory.available < NEEDED_BYTES:
        pytest.skip(f"less than {NEEDED_BYTES >> 30} GiB of memory are free")
    threshold = 1 - (memory.available - ROOM_BYTES) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`ray.cluster_utils.Cluster`, whose `address` commands take; nodes may be added and killed."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SOURCE), os.environ.get("PYTHONPATH", ""))))
    if "RAY_memory_usage_threshold" not in os.environ:  # other work on the machine is no reason to kill
        monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    # Ray lets its workers wait for whatever else runs on the machine.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    small = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()
