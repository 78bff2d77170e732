"""What the uplink plans for a frame, and what it does with those before it."""

import threading

import pytest

from accmpeg.camera.options import CameraOptions
from accmpeg.camera.outputs import ResultOutputs
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.camera.uplink.uplink import Uplink, make_controller
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import Hello
from tests.camera.peer import peer
from tests.helpers import until

BEYOND_THE_WINDOW_BYTES = 60_000


def hello() -> Hello:
    return Hello(
        camera="gate", stream_id="run", codec="h264", width_px=64, height_px=48, source_width_px=64,
        source_height_px=48, frame_rate=30, time_base=(1, 90000),
    )  # fmt: skip


def unit(number: int, *, is_keyframe: bool = False, at_us: int = 0) -> TimedUnit:
    return TimedUnit(bytes(BEYOND_THE_WINDOW_BYTES), number, is_keyframe, at_us, at_us, (64, 48), {})


def made(
    url: str, options: CameraOptions, clock: SteadyClock, stats: CameraStats, wanted_keyframe: threading.Event
) -> Uplink:
    spool = Spool(None, limit_bytes=options.spool_limit_bytes, repeats=options.keeps_frames)
    return Uplink(
        ServerAddress.parse(url), hello(), b"", spool, options, make_controller(options, adaptive=True),
        ResultOutputs(None, []), None, lambda offer: None, wanted_keyframe, clock, stats,
    )  # fmt: skip


def test_frames_that_are_too_late_go_even_where_the_next_one_is_not_wanted() -> None:
    clock, stats, wanted_keyframe = SteadyClock(), CameraStats(), threading.Event()
    with peer() as server:
        uplink = made(server.url, CameraOptions(results_per_s=1), clock, stats, wanted_keyframe)
        uplink.start()
        until(lambda: stats.get("connections") and server.seen)
        server.deaf.add(server.seen[0])  # nothing is acknowledged any more
        now_us = clock.now_us()
        assert uplink.plan(now_us, 0).left_out is None
        old_us = now_us - 1_000_000
        for number in range(3):
            uplink.deliver(unit(number, is_keyframe=number == 0, at_us=old_us), None)
        until(lambda: stats.get("sent"))
        wanted_keyframe.clear()
        assert uplink.plan(now_us + 33_333, 33_333).left_out == "unanswered"
        assert stats.get("dropped_late") == 2
        assert wanted_keyframe.is_set()
        wanted_keyframe.clear()  # the encoder has it to do, and gives first what B-frames held back
        for number in (3, 4):
            uplink.deliver(unit(number), None)
        assert not wanted_keyframe.is_set(), "one is enough"
        uplink.deliver(unit(5, is_keyframe=True), None)
        assert uplink.snapshot()["held_bytes"] == 2 * BEYOND_THE_WINDOW_BYTES
        uplink.end(0.1)


def test_a_group_that_gave_way_is_told_to_the_encoder_once() -> None:
    wanted_keyframe = threading.Event()
    options = CameraOptions(drop="none", spool_limit_bytes=100_000)
    uplink = made("ws://127.0.0.1:9", options, SteadyClock(), CameraStats(), wanted_keyframe)
    asked = []
    for number in range(6):
        uplink.deliver(unit(number, is_keyframe=number in (0, 4)), None)
        asked.append(wanted_keyframe.is_set())
        wanted_keyframe.clear()
    assert asked == [False, True, False, False, False, True]


def test_a_new_connection_begins_with_a_keyframe_whatever_the_encoder_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 0.1)
    clock, stats, wanted_keyframe = SteadyClock(), CameraStats(), threading.Event()
    with peer() as server:
        uplink = made(server.url, CameraOptions(), clock, stats, wanted_keyframe)
        uplink.start()
        until(wanted_keyframe.is_set)
        uplink.deliver(unit(0, is_keyframe=True), None)
        until(lambda: stats.get("results") == 1)
        wanted_keyframe.clear()
        server.kill()
        until(lambda: uplink.plan(clock.now_us(), 0).left_out == "offline")
        server.start()
        until(wanted_keyframe.is_set)
        uplink.deliver(unit(1), None)
        assert stats.get("dropped_offline") == 1
        uplink.deliver(unit(2, is_keyframe=True), None)
        until(lambda: stats.get("sent") == 2)
        uplink.end(0.1)
