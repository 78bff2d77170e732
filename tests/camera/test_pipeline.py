"""Where frames wait between capture and the encoder."""

import av

from accmpeg.camera.pipeline import FrameSlot, TimedFrame

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


def test_the_newest_frames_win_when_the_encoder_is_behind() -> None:
    slot = FrameSlot(lossless=False)
    assert put(slot, 0, 33, 67, 100, 133) == [0, 0, 0, 1, 1]
    assert left(slot) == [67, 100, 133]


def test_a_burst_does_not_fill_the_memory() -> None:
    slot = FrameSlot(lossless=False)
    assert put(slot, *range(10)) == [0, 0, 0, 0, *[1] * 6]
    assert left(slot) == [6, 7, 8, 9]
