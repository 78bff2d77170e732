"""Streams that the server fetches itself, so that cameras which know nothing of AccMPEG work too.

A live address goes on with its newest frame and is opened again for ever; a file is inferred frame by frame,
once. Each runs in a thread of its own, and its results go where all others go.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from av import VideoFrame

from accmpeg.errors import SourceError
from accmpeg.media.addresses import describe
from accmpeg.media.source import Source, open_source
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import AccessUnitMessage
from accmpeg.server.answers import Answer, Answers
from accmpeg.server.cameras import CLOCK
from accmpeg.server.lanes import Job, Outcome
from accmpeg.server.receiving import memory_refusal
from accmpeg.server.view import Snapshot

if TYPE_CHECKING:
    from accmpeg.server.live import Live

__all__ = ["Pull"]


log = logging.getLogger(__name__)


class Pull:
    """One `--input NAME=ADDRESS`, served by the server's first DNN."""

    def __init__(self, live: "Live", name: str, address: str) -> None:
        self.address = address
        self._live = live
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._record = live.book.record(name)
        self._record.pulled = True
        self._batcher = live.first_dnn
        self._stopped = threading.Event()
        self._answers = Answers()
        self._sequence = 0
        self._facts: dict[str, Any] = {}
        self._stream_id = f"pull-{CLOCK.now_us()}"
        self._room = threading.Semaphore(1)
        self._thread = threading.Thread(target=self._run, name=f"pull-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fetches nothing more; the thread ends after the read that it is in."""
        self._stopped.set()
        self._room.release()

    def _run(self) -> None:
        backoff = Backoff(random.random)
        while not self._stopped.is_set():
            frames_before = self._sequence
            error = ""
            try:
                with open_source(self.address) as source:
                    self._fetch(source)
                    if not source.info.is_live:
                        self._tell(self._set_state, False, "")
                        log.info("input finished", extra={"camera": self._name})
                        return
            except SourceError as problem:
                error = str(problem)
            # A broken input must neither end the server nor the other inputs.
            except Exception as problem:
                log.exception("input failed", extra={"camera": self._name})
                error = type(problem).__name__
            if self._sequence > frames_before:
                backoff.succeeded()
            if self._stopped.is_set():
                break
            self._tell(self._set_state, False, error or "the stream ended")
            wait_s = backoff.failed()
            log.warning(
                "input lost, trying again",
                extra={
                    "camera": self._name,
                    "reason": error or "the stream ended",
                    "wait_s": round(wait_s, 1),
                },
            )
            self._stopped.wait(wait_s)
        log.info("input closed", extra={"camera": self._name})

    def _fetch(self, source: Source) -> None:
        info = source.info
        memory, pixels = self._live.memory, info.width_px * info.height_px
        if not memory.take(self._name, pixels):
            raise SourceError(str(memory_refusal(memory, pixels)))
        self._facts = {
            "camera": self._name,
            "stream_id": self._stream_id,
            "dnn": self._batcher.name,
            "task": self._batcher.dnn.card.task,
            "time_base": [info.time_base.numerator, info.time_base.denominator],
            "size_px": [info.width_px, info.height_px],
        }
        self._tell(self._set_state, True, "", (info.width_px, info.height_px))
        log.info("input opened", extra={"camera": self._name, "address": describe(self.address)})
        limits = self._live.limits
        patience = limits.patience() if info.is_live else None
        most = memory.waiting_frames(self._name, limits.waiting_frames)
        lane = self._batcher.open_lane(self._name, most, patience)
        room = self._room = threading.Semaphore(most)
        try:
            for frame in source:
                if not info.is_live:
                    room.acquire()
                if self._stopped.is_set():
                    return
                now_us = CLOCK.utc_us()
                message = AccessUnitMessage(
                    sequence=self._sequence,
                    pts=frame.pts or 0,
                    is_keyframe=bool(frame.key_frame),
                    captured_us=now_us,
                    encoded_us=now_us,
                )
                self._sequence += 1
                answer = Answer(message)
                self._tell(self._expect, answer)

                def finish(outcome: Outcome, answer: Answer = answer, frame: VideoFrame = frame) -> None:
                    room.release()
                    self._tell(self._inferred, answer, frame, outcome)

                self._batcher.submit(lane, Job(frame, (info.width_px, info.height_px), finish))
            while not info.is_live and not self._stopped.is_set() and self._batcher_busy(lane):
                time.sleep(0.01)
        finally:
            self._batcher.close_lane(lane)
            memory.give_back(self._name)

    @staticmethod
    def _batcher_busy(lane: Any) -> bool:
        return bool(lane.jobs)

    def _tell(self, what: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(what, *arguments)

    def _set_state(self, connected: bool, error: str, size_px: tuple[int, int] | None = None) -> None:
        if self._live.pulls.get(self._name) is not self:
            return  # another address has this name by now
        record = self._record = self._live.book.record(self._name)
        record.pulled = True
        record.dnn, record.task = self._batcher.name, self._batcher.dnn.card.task
        if connected:
            record.came()
        else:
            record.left(error)
        if size_px is not None:
            record.width_px, record.height_px = size_px

    def _expect(self, answer: Answer) -> None:
        self._record.count_frame(0)
        self._answers.expect(answer)
        self._record.waiting = len(self._answers)

    def _inferred(self, answer: Answer, frame: VideoFrame, outcome: Outcome) -> None:
        answer.finish(outcome, frame)
        for ready in self._answers.ready():
            ready.server_ms["total"] = (time.perf_counter() - ready.received_s) * 1000
            self._live.answered(self._record, ready, self._facts, self._snapshot)
        self._record.waiting = len(self._answers)

    @staticmethod
    def _snapshot(frame: VideoFrame, event: dict[str, Any], with_map: bool) -> Snapshot:
        return Snapshot(frame, event)
