import os
import signal
import subprocess
import sys
from pathlib import Path

INTERRUPTED = """
import os, runpy, signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "accmpeg.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
runpy.run_module("accmpeg", run_name="__main__", alter_sys=True)
"""
"""The program, which gets Ctrl-C where it begins to load its command."""


def test_ctrl_c_while_the_program_still_loads_ends_it_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "version"], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == -signal.SIGINT


def test_what_a_terminal_can_not_show_ends_nothing() -> None:
    command = [sys.executable, "-m", "accmpeg", "fleet", "--help"]  # it wants "URL…"
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"URL?" in done.stdout


ANALYSING = """
from accmpeg.dnn.base import load_dnn
from accmpeg.demo import assets_path
load_dnn(assets_path() / "detector.card.toml")
"""


def test_the_runtime_of_the_networks_tells_nobody(tmp_path: Path) -> None:
    told = {"ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME", "PYTEST_CURRENT_TEST"}
    ours = {name: value for name, value in os.environ.items() if name not in told}
    ours |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", ANALYSING], env=ours, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*")), "it keeps a mark of the machine, and what it will send"


def test_closed_streams_end_nothing() -> None:
    command = f"exec {sys.executable} -m accmpeg doctor --json <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
