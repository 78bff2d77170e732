"""Worker processes of this machine: they end with whoever started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, sys, time
from accmpeg.workers import LocalWorkers

def work(folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(3600)
    yield

def keep(made):
    pass

if __name__ == "__main__":
    LocalWorkers(1).as_finished([sys.argv[1]], work, lambda task: (task,), keep, lambda done: None)
"""


def test_workers_end_where_their_parent_was_killed(tmp_path: Path) -> None:
    """They went on beside the run that was started next, and then waited for ever."""
    script, folder = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(SCRIPT)
    folder.mkdir()
    with subprocess.Popen([sys.executable, script, folder], stderr=subprocess.DEVNULL) as parent:
        while not (begun := list(folder.iterdir())):
            time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
    worker = int(begun[0].name)
    for _ in range(600):
        if not _is_there(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker is still there")


def _is_there(process: int) -> bool:
    try:
        # One that nobody waits for stays by name.
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
