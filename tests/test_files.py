"""Files appear whole, or stay as they were."""

import resource
from pathlib import Path

import pytest

from accmpeg.files import write_whole


def test_a_failed_write_names_its_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        file = tmp_path / "made here" / "weights.safetensors"
        write_whole(file, b"old")
        with pytest.raises(OSError, match=r"weights\.safetensors"):
            write_whole(file, bytes(2000))
    finally:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in file.parent.iterdir()] == ["weights.safetensors"]
    assert file.read_bytes() == b"old"
