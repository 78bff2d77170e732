"""Progress without a terminal: lines in a log, few of them, the last one at the end."""

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


def test_nothing_done_is_nothing_said(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar() as progress:
        progress.add_task("encoding", total=None)
    assert capsys.readouterr().err == ""
