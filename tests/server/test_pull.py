"""Streams that the server fetches: opened again for ever, numbered through, and stopped wherever they are."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from av import VideoFrame

from accmpeg.errors import SourceError
from accmpeg.protocol.backoff import Backoff
from accmpeg.server import ServerSettings
from accmpeg.server.core import Core
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.lanes import Outcome
from accmpeg.server.memory import LEAST_FRAMES
from accmpeg.server.pull import Pull
from tests.server.parts import Asked, Told, on_a_loop

FRAME_BYTES = 64 * 48 * 3 // 2


class Playing:
    """A source of so many frames."""

    def __init__(self, frames: int, *, is_live: bool) -> None:
        self.info = SimpleNamespace(
            width_px=64, height_px=48, time_base=Fraction(1, 30), is_live=is_live, frame_rate=Fraction(30)
        )
        self._frames = frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def go_on_after(self, before: Self) -> None:
        pass

    def __iter__(self) -> Iterator[VideoFrame]:
        for pts in range(self._frames):
            frame = VideoFrame(64, 48)
            frame.pts = pts
            yield frame


class Site:
    """A pull, what it plays, and who hears of it."""

    def __init__(self, sources: list[Any], monkeypatch: pytest.MonkeyPatch, answers: bool = True) -> None:
        def open_source(address: str) -> Any:
            if not sources:
                raise SourceError("nobody is there")
            return sources.pop(0)

        monkeypatch.setattr("accmpeg.server.pull.open_source", open_source)
        monkeypatch.setattr(Backoff, "FIRST_S", 0.01)
        self.core = Core(ServerSettings(dnns=(Path("x"),), memory_bytes=LEAST_FRAMES * FRAME_BYTES), {})
        self.asked, self.told = Prompt() if answers else Asked(), Told()
        self.core.dnns["net"] = cast(DnnWorkers, self.asked)
        self.core.hub.outlets.append(self.told)
        self.record = self.core.book.record("yard")
        self.pull = Pull(self.core, "yard", "rtsp://camera/stream")


class Prompt(Asked):
    """Answers at once."""

    def submit(self, lane: Any, job: Any) -> None:
        job.finish(Outcome({"task": "detection", "objects": []}, batch=1))

    def close_lane(self, lane: Any) -> None:
        pass


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_live_stream_that_ends_is_opened_again_and_numbered_through(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        site = Site([Playing(3, is_live=True), Playing(2, is_live=True)], monkeypatch)
        site.pull.start()
        await until(lambda: len(site.told.events) == 5)
        site.pull.stop()
        assert [event["sequence"] for event in site.told.events] == list(range(5))
        assert [event["pts"] for event in site.told.events] == list(range(5))
        assert len({event["stream_id"] for event in site.told.events}) == 1
        assert site.record.connections == 2
        await until(lambda: "input closed" in caplog.messages)

    with caplog.at_level(logging.INFO, logger="accmpeg.server.pull"):
        on_a_loop(work)
    assert "input lost, trying again" in caplog.messages


def test_the_recording_of_a_live_stream_that_ended_is_not_played_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        played = [Playing(3, is_live=True), Playing(2, is_live=False), Playing(1, is_live=True)]
        site = Site(played, monkeypatch)
        site.pull.start()
        await until(lambda: site.record.connections == 2 and not site.record.connected)
        site.pull.stop()
        assert [event["pts"] for event in site.told.events] == list(range(4))
        await until(lambda: "input closed" in caplog.messages)

    with caplog.at_level(logging.INFO, logger="accmpeg.server.pull"):
        on_a_loop(work)


def test_a_file_waits_for_the_dnn_and_stops_where_it_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        site = Site([Playing(100, is_live=False)], monkeypatch, answers=False)
        site.pull.start()
        await until(lambda: site.asked.jobs)
        assert len(site.asked.jobs) == 1, "there is memory for one that waits"
        site.pull.stop()
        await until(lambda: "input closed" in caplog.messages)
        assert {event["dropped"] for event in site.told.events} == {"behind"}
        assert site.record.waiting == 0

    with caplog.at_level(logging.INFO, logger="accmpeg.server.pull"):
        on_a_loop(work)


def test_a_live_stream_waits_too_when_too_much_of_it_is_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        site = Site([Playing(100, is_live=True)], monkeypatch, answers=False)
        most = site.core.limits.unanswered
        site.pull.start()
        await until(lambda: len(site.asked.jobs) >= most)
        await asyncio.sleep(0.05)
        assert len(site.asked.jobs) == most
        site.asked.jobs.pop(0).finish(Outcome(dropped="failed"))
        await until(lambda: len(site.asked.jobs) == most)
        site.pull.stop()
        await until(lambda: not site.record.waiting)

    on_a_loop(work)


def test_an_input_that_goes_while_it_is_opened_leaves_no_camera_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening, go_on = threading.Event(), threading.Event()

    class Slow(Playing):
        def __enter__(self) -> Self:
            opening.set()
            assert go_on.wait(10)
            return self

    async def work() -> None:
        site = Site([Slow(3, is_live=True)], monkeypatch)
        site.pull.start()
        await until(opening.is_set)
        site.pull.stop()
        site.record.left("the input is not set any more")
        go_on.set()
        await until(lambda: not any(each.name == "pull-yard" for each in threading.enumerate()))
        assert not site.record.connected
        assert site.record.connections == 0

    on_a_loop(work)


def test_the_memory_of_an_input_is_free_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        site = Site([Playing(4, is_live=False)], monkeypatch)
        site.pull.start()
        await until(lambda: len(site.told.events) == 4 and not site.record.connected)
        assert site.record.error == ""
        site.core.memory.reserve("gate", 64 * 48)

    on_a_loop(work)
