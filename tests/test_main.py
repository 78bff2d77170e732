import os
import signal
import subprocess
import sys

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


def test_closed_streams_end_nothing() -> None:
    command = f"exec {sys.executable} -m accmpeg doctor --json <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
