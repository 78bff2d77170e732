"""A real Ray cluster of three nodes on this machine: a head without a CPU, and two workers of one each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import accmpeg

SOURCE = Path(accmpeg.__file__).parents[1]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`ray.cluster_utils.Cluster`, whose `address` commands take; nodes may be added and killed."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SOURCE), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("RAY_DISABLE_MEMORY_MONITOR", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()
