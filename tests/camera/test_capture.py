"""Where frames wait between capture and the encoder."""

import time
from collections.abc import Iterator
from fractions import Fraction

import av
import pytest

from accmpeg.camera import capture as capturing
from accmpeg.camera.capture import Capture, FrameSlot, TimedFrame
from accmpeg.camera.stats import CameraStats
from accmpeg.media.clock import SteadyClock
from accmpeg.media.source import Source, SourceInfo

FRAME = av.VideoFrame(16, 16, "yuv420p")


def put(slot: FrameSlot, *times_ms: int) -> list[int]:
    return [slot.put(TimedFrame(FRAME, 1000 * at_ms)) for at_ms in times_ms]


def left(slot: FrameSlot) -> list[int]:
    slot.end()
    found = []
    while (timed := slot.get()) is not None:
        found.append(timed.captured_us // 1000)
    return found


def test_a_short_delay_of_the_encoder_loses_nothing() -> None:
    slot = FrameSlot(lossless=False)
    assert put(slot, 0, 33, 67) == [0, 0, 0]
    assert left(slot) == [0, 33, 67]


def test_a_stall_beyond_patience_loses_the_oldest_frames() -> None:
    slot = FrameSlot(lossless=False)
    assert put(slot, 0, 40, 80, 120, 160, 200, 240) == [0, 0, 0, 0, 0, 0, 1]
    assert left(slot) == [40, 80, 120, 160, 200, 240]


def test_the_newest_frames_win_where_the_encoder_stays_behind() -> None:
    slot = FrameSlot(lossless=False)
    lost = []
    for at_ms in range(0, 3000, 40):
        lost += put(slot, at_ms)
        if at_ms % 80 == 40:  # half as fast as the frames come
            taken = slot.get()
            assert taken is not None
            waited_ms = at_ms - taken.captured_us // 1000
            assert waited_ms <= (200 if at_ms < 1200 else 80)
    assert sum(lost[-20:]) == 10, "it does every second frame, and does it soon"


def test_a_burst_does_not_fill_the_memory() -> None:
    slot = FrameSlot(lossless=False)
    assert put(slot, *range(10)) == [*[0] * 6, *[1] * 4]
    assert left(slot) == [4, 5, 6, 7, 8, 9]


class JumpingFootage(Source):
    """Three frames, the last of them an hour after the others."""

    info = SourceInfo("footage", 16, 16, Fraction(25), Fraction(1, 25), 3, is_live=False)

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for pts in (0, 1, 90_001):
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts, frame.time_base = pts, self.info.time_base
            yield frame


def test_a_clock_that_jumps_does_not_hold_capture_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "LONGEST_GAP_S", 0.2)
    slot, stats, footage = FrameSlot(lossless=False), CameraStats(), JumpingFootage()
    capture = Capture(footage, JumpingFootage, slot, SteadyClock(), stats, paced=True)
    started_s = time.monotonic()
    capture.start()
    capture.join(60)
    assert not capture.is_alive(), "it waits for an hour"
    assert time.monotonic() - started_s >= 0.2
    assert capture.error is None
    assert stats.snapshot()["captured"] == 3
