"""What the server takes for the memory that it has."""

from pathlib import Path

import pytest

from accmpeg.server import memory


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
def test_the_limit_of_a_container_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    expected: int | None,
) -> None:
    own = tmp_path / "own-groups"
    own.write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "none")
    whole = memory.available_bytes()
    monkeypatch.setattr(memory, "_OWN_GROUPS", own)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes() == (expected or whole)
