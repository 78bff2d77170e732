"""The capture thread, and the one place where frames wait for the encoder.

```
source ─▶ capture thread ─▶ few frames, newest wins ─▶ encode thread
```
Live sources come at their own pace and are opened again when they break off; footage is paced at its frame
rate. With `lossless` nothing is left out: capture waits for the encoder.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import av

from accmpeg.camera.stats import CameraStats
from accmpeg.errors import AccmpegError, SourceError
from accmpeg.media.clock import SteadyClock
from accmpeg.media.patience import Patience
from accmpeg.media.source import Source
from accmpeg.media.source_base import ENDED
from accmpeg.media.timeline import LONGEST_GAP_S
from accmpeg.protocol.backoff import Backoff

__all__ = ["Capture", "FrameSlot", "TimedFrame"]

# Of the delay budget that is the default: a quarter, and the two thirds that a stall may take.
_STANDING_S, _BURST_S = 0.075, 0.2
_FRAMES_HELD = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A frame and the camera's clock when it was captured, in microseconds."""

    frame: av.VideoFrame
    captured_us: int


class FrameSlot:
    """Holds frames until the encoder takes them; with `lossless`, putting waits until the last one is taken.

    Otherwise frames older than `Patience` allows give way to newer ones. One place alone would do if encoding
    never took longer than a frame lasts: on a busy machine it does now and then, and a frame was lost each
    time.
    """

    def __init__(self, *, lossless: bool) -> None:
        self._lossless = lossless
        self._condition = threading.Condition()
        self._frames: deque[TimedFrame] = deque()
        self._patience = Patience(standing_s=_STANDING_S, burst_s=_BURST_S)
        self._newest_us = 0
        self._ended = False

    def put(self, frame: TimedFrame) -> int:
        """Returns how many frames were lost by it."""
        with self._condition:
            if self._lossless:
                self._condition.wait_for(lambda: not self._frames or self._ended)
            self._newest_us = frame.captured_us
            stale_us = frame.captured_us - self._patience.limit_s(frame.captured_us / 1e6) * 1e6
            lost = 0
            while self._frames and (
                len(self._frames) == _FRAMES_HELD or self._frames[0].captured_us < stale_us
            ):
                self._frames.popleft()
                lost += 1
            self._frames.append(frame)
            self._condition.notify_all()
            return lost

    def get(self) -> TimedFrame | None:
        """Waits for a frame; None when no more will come."""
        with self._condition:
            self._condition.wait_for(lambda: self._frames or self._ended)
            frame = self._frames.popleft() if self._frames else None
            self._patience.took(self._newest_us / 1e6, len(self._frames))
            self._condition.notify_all()
            return frame

    def end(self) -> None:
        """No more frames come; those that wait may still be taken."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()


class Capture(threading.Thread):
    """Reads the source into a `FrameSlot`.

    `reopen` opens the source again: a live one that broke off, or footage in a `loop`. Timestamps go on
    rising over that. `paced` footage comes at its frame rate. `limit` stops after so many frames.
    """

    def __init__(
        self,
        source: Source,
        reopen: Callable[[], Source],
        slot: FrameSlot,
        clock: SteadyClock,
        stats: CameraStats,
        *,
        paced: bool,
        loop: bool = False,
        limit: int | None = None,
    ) -> None:
        super().__init__(name="capture", daemon=True)
        self.error: AccmpegError | None = None
        self.info = source.info
        self._source = source
        self._reopen = reopen
        self._slot = slot
        self._clock = clock
        self._stats = stats
        self._paced = paced and not source.info.is_live
        self._loop = loop
        self._limit = limit
        self._halt = threading.Event()

    def halt(self) -> None:
        """Ends capture after the present frame."""
        self._halt.set()
        self._slot.end()

    def run(self) -> None:
        try:
            self._capture()
        except AccmpegError as error:
            self.error = error
        except Exception as error:  # a thread that dies silently would look like a quiet camera
            log.exception("capture failed")
            self.error = SourceError(f"reading {self.info.name} failed: {error}")
        finally:
            self._slot.end()
            with suppress(AccmpegError, OSError):
                self._source.close()

    def _capture(self) -> None:
        start_us: int | None = None
        longest_us = int(1_000_000 * max(LONGEST_GAP_S, float(2 / self.info.frame_rate)))
        for count, frame in enumerate(self._frames(), start=1):
            if self._paced:
                assert frame.pts is not None
                at_us = int(frame.pts * self.info.time_base * 1_000_000)
                start_us = self._clock.now_us() - at_us if start_us is None else start_us
                wait_us = start_us + at_us - self._clock.now_us()
                if wait_us > longest_us:
                    start_us -= wait_us - longest_us  # a clock that jumps must not hold the camera up
                    wait_us = longest_us
                if wait_us > 0 and self._halt.wait(wait_us / 1e6):
                    return
                if wait_us < -1_000_000:
                    start_us -= wait_us  # the machine slept or is too slow: go on from here
            self._stats.add("captured")
            self._stats.add("dropped_machine", self._slot.put(TimedFrame(frame, self._clock.now_us())))
            if self._halt.is_set() or count == self._limit:
                return

    def _frames(self) -> Iterator[av.VideoFrame]:
        """The frames of all openings of the source, timestamps rising in the first one's time base."""
        time_base = self.info.time_base
        step = max(1, round(1 / (self.info.frame_rate * time_base)))
        shift, last, backoff = 0, -1, Backoff()
        while True:
            first = True
            try:
                for frame in self._source:
                    if self._halt.is_set():
                        return
                    pts = frame.pts if frame.pts is not None else last + step
                    if frame.time_base is not None and frame.time_base != time_base:
                        pts = round(pts * frame.time_base / time_base)
                    if first:
                        first = False
                        shift = last + step - pts if last >= 0 else -pts
                    last = max(pts + shift, last + 1)
                    frame.pts, frame.time_base = last, time_base
                    backoff.succeeded()
                    yield frame
            except SourceError as error:
                if not self.info.is_live:
                    raise
                log.warning("source lost", extra={"source": self.info.name, "reason": str(error)})
            comes_back = self.info.is_live and self.info.reopens
            if not (comes_back or self._loop) or self._halt.is_set():
                return
            self._open_again(backoff)
            if self._halt.is_set():
                return

    def _open_again(self, backoff: Backoff) -> None:
        self._source.close()
        while not self._halt.is_set():
            if self.info.is_live and self._halt.wait(backoff.failed()):
                break
            try:
                before, self._source = self._source, self._reopen()
                self._source.go_on_after(before)
                if self.info.is_live and not self._source.info.is_live:
                    self._source.close()
                    raise SourceError(ENDED)
            except SourceError as error:
                if not self.info.is_live:
                    raise
                log.warning("source still away", extra={"source": self.info.name, "reason": str(error)})
            else:
                self._stats.add("source_reopened", int(self.info.is_live))
                self._tell_size()
                break

    def _tell_size(self) -> None:
        """The server knows the first size alone, and results are in its pixels."""
        first, now = self.info, self._source.info
        if (now.width_px, now.height_px) != (first.width_px, first.height_px):
            log.warning(
                "the source is back in another size: stretched, results stay in pixels of the first one",
                extra={
                    "source": now.name,
                    "size": f"{now.width_px}x{now.height_px}",
                    "first": f"{first.width_px}x{first.height_px}",
                },
            )
