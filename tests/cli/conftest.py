"""Runs the real `accmpeg` program, as a user does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def accmpeg(tmp_path: Path) -> Run:
    """Runs `accmpeg ARGS…` in an empty folder; returns exit code, stdout and stderr."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "accmpeg", *map(str, args)]
        environment = os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False, env=environment
        )

    return run
