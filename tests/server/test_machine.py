"""What the server takes for the memory and the cores that it has."""

import os
from pathlib import Path

import pytest

from accmpeg.server import machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the system's own files."""
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own-groups")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return tmp_path


def limit(folder: Path, groups: str, files: dict[str, str]) -> None:
    (folder / "own-groups").write_text(groups)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/slice/own", {"slice/own/memory.max": "max", "slice/memory.max": "3000000"}, 3_000_000),
        ("0::/", {"memory.max": "2000000"}, 2_000_000),
        (
            "4:cpu,memory:/docker/own\n1:cpu:/\n0::/",
            {"memory/docker/own/memory.limit_in_bytes": "1000000"},
            1_000_000,
        ),
        # A container of version 1 has the host's path and, in place of the tree, its own folder.
        ("4:memory:/docker/own", {"memory/memory.limit_in_bytes": "1000000"}, 1_000_000),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("", {}, None),
    ],
)
def test_the_memory_of_a_container(
    folder: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    whole = machine.available_bytes()
    limit(folder, groups, files)
    assert machine.available_bytes() == (expected or whole)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/own", {"own/cpu.max": "max 100000", "cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/own", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/", {"cpu.max": "6400000 100000"}, 8),
        ("", {}, 8),
    ],
)
def test_the_cores_of_a_container(folder: Path, groups: str, files: dict[str, str], expected: int) -> None:
    limit(folder, groups, files)
    assert machine.available_cores() == expected
