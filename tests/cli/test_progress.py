"""Progress without a terminal: lines in a log, few of them, the last one at the end."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from accmpeg.cli import common


@pytest.mark.parametrize(("every_s", "lines"), [(0.0, 10), (60.0, 1)], ids=["often", "seldom"])
def test_progress_is_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], every_s: float, lines: int
) -> None:
    monkeypatch.setattr(common, "FIRST_LINE_S", every_s)
    monkeypatch.setattr(common, "LINE_EVERY_S", every_s)
    with common.progress_bar() as progress:
        task = progress.add_task("label", total=10)
        for done in range(5):
            progress.update(task, completed=done + 1)
        for _ in range(5):
            progress.advance(task)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert said[-1].startswith("label 10/10, 0 s")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_work_goes_on_where_nothing_can_be_said(redirection: str) -> None:
    program = (
        "from accmpeg.cli import common\n"
        "with common.progress_bar() as progress:\n"
        "    progress.advance(progress.add_task('label', total=1))\n"
        "print('done')"
    )
    command = shlex.join([sys.executable, "-c", program])
    done = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_nothing_done_is_nothing_said(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar() as progress:
        progress.add_task("encoding", total=None)
    assert capsys.readouterr().err == ""


def test_what_an_earlier_run_did_says_nothing_of_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(common, "LINE_EVERY_S", 0.0)
    clock_s = [0.0]
    with common.progress_bar() as progress:
        progress.get_time = lambda: clock_s[0]
        task = progress.add_task("costs", total=10)
        for now_s, description, done in [(0, "costs", 0), (50, "cells", 800), (60, "cells", 810)]:
            clock_s[0] = now_s
            progress.update(task, description=description, completed=done, total=1000)
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "cells 800/1000, 50 s"
    assert said[2] == "cells 810/1000, 60 s, about 190 s left"
