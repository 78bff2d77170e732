"""Results between those of frames, through a real server: when they come, what they say, when they end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trackers", reason="the tracking extra is not installed")

from accmpeg.protocol.wire import Goodbye
from accmpeg.server import ServerThread
from accmpeg.server.fill import LONGEST_S
from tests.helpers import until
from tests.server.clients import Camera, Recorded, unit_message

SENT_PER_S, PUBLISHED_PER_S = 5, 20
STEP_US = 1_000_000 // PUBLISHED_PER_S


def streamed(
    server: ServerThread, recorded: Recorded, frames: int, *, drop: str, set_back_at: int = 1000
) -> None:
    """Sends frames of the scene at their pace, then leaves; the clock may be set back by two hours."""
    with Camera(server, recorded, drop=drop) as camera:
        camera.welcome()
        for number in range(frames):
            unit = recorded.units[number]
            captured_us = number * 1_000_000 // SENT_PER_S - 7_200_000_000 * (number >= set_back_at)
            camera.send(unit_message(number, unit, captured_us=captured_us, pts=6 * number), unit.data)
            time.sleep(1 / SENT_PER_S)
        camera.results(frames)
        camera.send(Goodbye(reason="done"))


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_wanted_beyond_what_is_sent_is_tracked(
    start: Callable[..., ServerThread], recorded: Recorded, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    server = start(results=file, publish_per_s=PUBLISHED_PER_S)
    streamed(server, recorded, 10, drop="latest")
    server.stop()
    found = events(file)
    seen = [each for each in found if not each["tracked"]]
    assert [each["sequence"] for each in seen] == list(range(10)), "what is seen is published as ever"
    tracked = [each for each in found if each["tracked"]]
    # Three after each frame; on a busy machine, where frames come late and in bursts, fewer or more.
    assert len(tracked) >= 9
    for each in tracked:
        of = next(one for one in seen if one["sequence"] == each["sequence"])
        later_us = each["captured_us"] - of["captured_us"]
        assert later_us % STEP_US == 0
        assert 0 < later_us <= LONGEST_S * 1e6
        assert each["pts"] == pytest.approx(of["pts"] + later_us / 1e6 * 30, abs=0.51)
        # It has waited for its own time; how much longer is the machine's affair.
        assert each["answered_us"] - of["answered_us"] >= later_us - 20_000
        assert {box["class"] for box in each["result"]["objects"]} <= {
            box["class"] for box in of["result"]["objects"]
        }
    followed = [each["sequence"] for each in found]
    assert followed == sorted(followed), "what is tracked follows the newest frame that was seen"
    summary = server.running.core.book.records["gate"].summary()
    assert summary["tracked"] == len(tracked)


def test_a_camera_whose_clock_is_set_back_is_followed_on(
    start: Callable[..., ServerThread], recorded: Recorded, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    server = start(results=file, publish_per_s=PUBLISHED_PER_S)
    streamed(server, recorded, 10, drop="latest", set_back_at=3)
    server.stop()
    assert any(each["tracked"] and each["sequence"] > 3 for each in events(file))


def test_a_camera_that_is_silent_or_gone_is_not_tracked_for_long(
    start: Callable[..., ServerThread], recorded: Recorded, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    server = start(results=file, publish_per_s=PUBLISHED_PER_S)
    with Camera(server, recorded, drop="latest") as camera:
        camera.welcome()
        camera.send_frames(0, 2)
        camera.results(2)

        def silent() -> int:
            return sum(each["tracked"] and each["sequence"] == 1 for each in events(file))

        until(lambda: silent() == LONGEST_S * PUBLISHED_PER_S)
        time.sleep(0.3)
        assert silent() == LONGEST_S * PUBLISHED_PER_S
        camera.send_frames(2, 1)
        camera.results(1)
    time.sleep(0.2)
    gone = len(events(file))
    time.sleep(0.4)
    assert len(events(file)) == gone
    server.stop()


def test_where_every_frame_counts_nothing_is_filled_in(
    start: Callable[..., ServerThread], recorded: Recorded, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    server = start(results=file, publish_per_s=PUBLISHED_PER_S)
    streamed(server, recorded, 3, drop="none")
    server.stop()
    assert [each["tracked"] for each in events(file)] == [False] * 3
