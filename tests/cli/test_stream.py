"""How `accmpeg stream` begins and stops."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from accmpeg.cli import app
from accmpeg.cli.stream import _opener, _run
from accmpeg.errors import UsageError
from accmpeg.media.inputs import InputOptions
from tests.cli.test_profile import write_clip


class Stoppable:
    """In the place of a camera: ends when it is stopped."""

    def __init__(self, meanwhile: Callable[[], None], start: Callable[[], None] = lambda: None) -> None:
        self.start = start
        self._meanwhile = meanwhile
        self.waits = self.stops = 0

    def stop(self) -> None:
        self.stops += 1

    def wait(self, timeout_s: float) -> bool:
        self.waits += 1
        if self.waits == 1:
            self._meanwhile()
        return self.stops > 0 or self.waits > 3


def test_an_address_that_nobody_can_publish_to_is_said_at_the_start() -> None:
    """It was tried again and again."""
    arguments = ["stream", "scene", "--policy", "none", "--limit", "3", "--publish", "nope://somewhere"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "can't publish to nope://somewhere: nope:// is none of rtsp://" in done.output


def test_a_profile_is_held_against_the_first_opening_of_a_source(tmp_path: Path) -> None:
    clip, site = tmp_path / "yard.mkv", tmp_path / "site.toml"
    site.write_text('[profile]\nsource = "320x180"\ndnn = "x"\n')
    opened = _opener(str(write_clip(clip, 2, (320, 180))), InputOptions(), site, None, None)
    opened().close()
    write_clip(clip, 2, (160, 90))
    with opened() as found:
        assert found.info.width_px == 160
    anew = _opener(str(clip), InputOptions(), site, None, None)
    for _ in range(2):
        with pytest.raises(UsageError, match="for frames of 320x180, not 160x90"):
            anew()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_that_ends_programs_drains(number: signal.Signals) -> None:
    inherited = signal.getsignal(number)
    before = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    signal.signal(number, before)  # nohup ignores SIGHUP
    camera: Any = Stoppable(lambda: os.kill(os.getpid(), number))
    try:
        _run(camera)
        assert camera.stops == 1
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, inherited)


def test_a_source_that_never_opens_does_not_hold_a_signal_up() -> None:
    def start() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.1)

    camera: Any = Stoppable(lambda: None, start)
    _run(camera)
    assert camera.waits == camera.stops == 0, "there is nothing to drain"


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        camera: Any = Stoppable(lambda: os.kill(os.getpid(), signal.SIGHUP))
        _run(camera)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert camera.stops == 0
