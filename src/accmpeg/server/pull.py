"""Streams that the server fetches itself, so that cameras which know nothing of AccMPEG work too.

A live address goes on with its newest frame and is opened again for ever; a file is inferred frame by frame,
once. Each is read in a thread of its own, whose frames go the way of all others.
"""

import asyncio
import contextlib
import logging
import math
import random
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from fractions import Fraction
from typing import Any, TypeVar

from av import VideoFrame

from accmpeg.errors import SourceError
from accmpeg.media.addresses import describe
from accmpeg.media.source import Source, SourceInfo, open_source
from accmpeg.media.source_base import ENDED
from accmpeg.protocol.backoff import Backoff
from accmpeg.quiet import FewRepeats
from accmpeg.server.cameras import CLOCK
from accmpeg.server.core import Core
from accmpeg.server.line import Answer, FrameLine, Stream
from accmpeg.server.refusal import RefusalError

__all__ = ["Pull"]

Found = TypeVar("Found")

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class Pull:
    """One `--input NAME=ADDRESS`, served by the server's first DNN."""

    def __init__(self, core: Core, name: str, address: str) -> None:
        self.address = address
        self._core = core
        self._name = name
        self._loop = asyncio.get_running_loop()
        core.book.record(name).pulled = True
        self._workers = core.dnns.first
        self._stopped = threading.Event()
        self._sequence = 0
        self._next_s = Fraction(0)
        """The time of the next frame of the stream, which goes on over all openings of the address."""
        self._stream_id = f"pull-{CLOCK.now_us()}"
        self._line: FrameLine | None = None
        self._thread = threading.Thread(target=self._run, name=f"pull-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fetches nothing more; the thread ends after the read that it is in."""
        self._stopped.set()
        if self._line is not None:
            self._line.close()

    def _run(self) -> None:
        with contextlib.suppress(CancelledError):  # the event loop is gone
            self._pull()
        log.info("input closed", extra={"camera": self._name})

    def _pull(self) -> None:
        backoff, before = Backoff(random.random), None
        while not self._stopped.is_set():
            frames_before = self._sequence
            problem = "the stream ended"
            try:
                with open_source(self.address) as source:
                    if before is not None:
                        if not source.info.is_live:
                            raise SourceError(ENDED)
                        source.go_on_after(before)
                    before = source if source.info.is_live else None
                    self._fetch(source)
                    if before is None and not self._stopped.is_set():
                        self._on_loop(self._left(""))
                        log.info("input finished", extra={"camera": self._name})
                        return
            except (SourceError, RefusalError) as error:
                problem = str(error)
            except CancelledError:
                raise
            # A broken input must neither end the server nor the other inputs.
            except Exception as error:
                log.exception("input failed", extra={"camera": self._name})
                problem = type(error).__name__
            if self._sequence > frames_before:
                backoff.succeeded()
            if self._stopped.is_set():
                break
            self._on_loop(self._left(problem))
            wait_s = backoff.failed()
            log.warning(
                "input lost, trying again",
                extra={"camera": self._name, "reason": problem, "wait_s": round(wait_s, 1)},
            )
            self._stopped.wait(wait_s)

    def _fetch(self, source: Source) -> None:
        line = self._on_loop(self._open(source.info))
        if line is None:
            return
        log.info("input opened", extra={"camera": self._name, "address": describe(self.address)})
        time_base = source.info.time_base
        begins = math.ceil(self._next_s / time_base)  # each opening counts from 0
        try:
            for frame in source:
                if self._stopped.is_set():
                    return
                pts = begins + (frame.pts or 0)
                self._next_s = pts * time_base + 1 / source.info.frame_rate
                self._on_loop(self._take(line, frame, pts))
            if not source.info.is_live:
                self._on_loop(line.settled())
        finally:
            self._on_loop(self._close(line))

    def _on_loop(self, work: Coroutine[Any, Any, Found]) -> Found:
        """Waits for work on the event loop: so no more than one frame is on its way there."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RuntimeError as error:
            if not self._loop.is_closed():
                raise
            work.close()
            raise CancelledError from error

    async def _open(self, info: SourceInfo) -> FrameLine | None:
        if self._stopped.is_set():  # meanwhile, and the camera's record may be another's by now
            return None
        stream = Stream(
            camera=self._name,
            stream_id=self._stream_id,
            time_base=(info.time_base.numerator, info.time_base.denominator),
            source_size_px=(info.width_px, info.height_px),
            frame_rate=float(info.frame_rate),
            every_frame=not info.is_live,
        )
        record = self._core.book.record(self._name)
        record.pulled = True
        size_px = (info.width_px, info.height_px)
        self._line = FrameLine(self._core, self, stream, size_px, self._workers, record)
        return self._line

    async def _take(self, line: FrameLine, frame: VideoFrame, pts: int) -> None:
        most = self._core.limits.unanswered
        every_frame = line.stream.every_frame
        await line.changes.until(lambda: line.has_room if every_frame else line.unanswered < most)
        answer = Answer(self._sequence, pts, CLOCK.utc_us())
        self._sequence += 1
        line.expect(answer)
        line.submit(answer, frame)

    async def _close(self, line: FrameLine) -> None:
        line.close()
        self._core.memory.give_back(self)
        await line.settled()  # before frames of the next line are answered

    async def _left(self, problem: str) -> None:
        if not self._stopped.is_set():  # else another address has this name by now
            self._core.book.record(self._name).left(problem)
