"""What the uplink plans for a frame, and what it does with those before it."""

import threading

from accmpeg.camera.options import CameraOptions
from accmpeg.camera.outputs import ResultOutputs
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.camera.uplink.uplink import Uplink, make_controller
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.wire import Hello
from tests.camera.peer import peer
from tests.helpers import until

BEYOND_THE_WINDOW_BYTES = 60_000


def test_frames_that_are_too_late_go_even_where_the_next_one_is_not_wanted() -> None:
    clock, stats, wanted_keyframe = SteadyClock(), CameraStats(), threading.Event()
    options = CameraOptions(results_per_s=1)
    hello = Hello(
        camera="gate", stream_id="run", codec="h264", width_px=64, height_px=48, source_width_px=64,
        source_height_px=48, frame_rate=30, time_base=(1, 90000),
    )  # fmt: skip
    with peer() as server:
        uplink = Uplink(
            ServerAddress.parse(server.url), hello, b"", options, make_controller(options, adaptive=True),
            ResultOutputs(None, []), None, lambda offer: None, wanted_keyframe, clock, stats,
        )  # fmt: skip
        uplink.start()
        until(lambda: stats.get("connections") and server.seen)
        server.deaf.add(server.seen[0])  # nothing is acknowledged any more
        now_us = clock.now_us()
        assert uplink.plan(now_us).left_out is None
        old_us = now_us - 1_000_000
        for number in range(3):
            data = bytes(BEYOND_THE_WINDOW_BYTES)
            uplink.deliver(TimedUnit(data, number, number == 0, old_us, old_us, (64, 48), {}), None)
        until(lambda: stats.get("sent"))
        wanted_keyframe.clear()
        assert uplink.plan(now_us + 33_333).left_out == "unanswered"
        assert stats.get("dropped_late") == 2
        assert wanted_keyframe.is_set()
        uplink.end(0.1)
