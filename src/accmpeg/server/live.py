"""The running server: its DNNs, cameras, pulls and outlets; what the web application is a door to."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from av import VideoFrame

from accmpeg.dnn.base import ServerDnn, load_dnn
from accmpeg.dnn.card import CARD_SUFFIX
from accmpeg.errors import UsageError
from accmpeg.server.answers import Answer
from accmpeg.server.batcher import Batcher, Outcome
from accmpeg.server.cameras import CameraBook, CameraRecord
from accmpeg.server.metrics import Metrics
from accmpeg.server.mqtt import MqttOutlet
from accmpeg.server.pulls import Pull
from accmpeg.server.settings import ServerSettings
from accmpeg.server.subscribers import Hub, JsonLinesFile
from accmpeg.server.view import Gallery, Snapshot
from accmpeg.wire import Goodbye

if TYPE_CHECKING:
    from accmpeg.server.sessions import Session

__all__ = ["Live"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

QUICK_MS = 50.0
"""A DNN that needs no more for a frame on one thread runs in copies of one thread each: they infer about half
as many frames again as one copy of all threads, whose every layer waits for the slowest of them."""
MOST_COPIES = 8

log = logging.getLogger(__name__)


class Live:
    """One server. Made and used on its event loop, but for `load`, which may take seconds."""

    def __init__(self, settings: ServerSettings, dnns: dict[str, list[ServerDnn]]) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.draining = False
        self.started_s = time.monotonic()
        self.book = CameraBook()
        self.metrics = Metrics(self.book, lambda: {name: each.waiting for name, each in self.dnns.items()})
        self.hub = Hub(self.metrics)
        self.gallery = Gallery(settings.snapshots_per_s)
        self.executor = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="decode")
        self.sessions: dict[str, Session] = {}
        self.dnns: dict[str, Batcher] = {name: self._batcher(name, dnn) for name, dnn in dnns.items()}
        self._pulls: list[Pull] = []
        self._file: JsonLinesFile | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @staticmethod
    def load(settings: ServerSettings) -> dict[str, list[ServerDnn]]:
        """The DNNs, in their copies, by the names that cameras ask for.

        Raises `UsageError`, `CardError`, `WeightsError`, …
        """
        found: dict[str, list[ServerDnn]] = {}
        for card in settings.dnns:
            copies = _load(settings, card)
            name = copies[0].card.name
            if not _NAME.fullmatch(name):
                raise UsageError(f"{card}: the name '{name}' can't be asked for: use letters, digits, _ . -")
            if name in found:
                raise UsageError(f"two cards are named '{name}': cameras could not tell them apart")
            found[name] = copies
            log.info("dnn loaded", extra={"dnn": name, "copies": len(copies)})
        return found

    @property
    def first_dnn(self) -> Batcher:
        return next(iter(self.dnns.values()))

    async def start(self) -> None:
        """Opens outlets and pulls. Raises `SinkError` for a results file that can't be written."""
        if self.settings.results is not None:
            self._file = JsonLinesFile(self.settings.results, self.metrics)
            self.hub.outlets.append(self._file)
        if self.settings.broker is not None:
            outlet = MqttOutlet(self.settings.broker, self.metrics)
            self.hub.outlets.append(outlet)
            self.keep(asyncio.create_task(outlet.run()))
        for name, address in self.settings.inputs:
            pull = Pull(self, name, address)
            self._pulls.append(pull)
            pull.start()

    async def drain(self) -> None:
        """Takes nothing more, answers what has come, says goodbye to every camera; within `drain_s`."""
        self.draining = True
        log.info("draining", extra={"cameras": len(self.sessions)})
        for pull in self._pulls:
            pull.stop()
        ending = list(self.sessions.values())
        for session in ending:
            session.stop(Goodbye(reason="the server is going down, come back later"))
        if ending:
            waits = [asyncio.create_task(session.finished()) for session in ending]
            _, late = await asyncio.wait(waits, timeout=self.settings.drain_s + 3)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Frees everything; after `drain`."""
        for task in list(self._tasks):
            task.cancel()
        loop = asyncio.get_running_loop()
        for batcher in self.dnns.values():
            await loop.run_in_executor(None, batcher.close)
        if self._file is not None:
            await loop.run_in_executor(None, self._file.close)
        self.executor.shutdown(wait=False, cancel_futures=True)
        log.info("server stopped")

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Holds a task that nobody awaits, until it is done; a failure is logged."""

        def done(finished: "asyncio.Task[Any]") -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and (error := finished.exception()) is not None:
                log.error("a task failed", exc_info=error)

        self._tasks.add(task)
        task.add_done_callback(done)

    def answered(
        self,
        record: CameraRecord,
        answer: Answer,
        facts: dict[str, Any],
        snapshot: Callable[[VideoFrame, dict[str, Any], bool], Snapshot],
    ) -> None:
        """A frame has its answer: counts it, tells subscribers, shows it to who watches."""
        if answer.dropped is not None:
            record.dropped[answer.dropped] += 1
        elif answer.result is not None:
            record.count_result(answer.result)
            record.count_stages(answer.server_ms)
        # Times of dropped frames would make the server look faster than its results are.
        for stage, ms in answer.server_ms.items() if answer.result is not None else ():
            self.metrics.stage_s.labels(record.dnn, stage).observe(max(0.0, ms) / 1000)
        frame, answer.frame = answer.frame, None
        event = {**facts, **answer.event()}
        self.hub.publish(event)
        if frame is not None and self.gallery.wants(record.name):
            self.metrics.snapshots.inc()
            picture = snapshot(frame, event, self.gallery.wants_map(record.name))
            self.keep(asyncio.create_task(self.gallery.show(record.name, picture, self.executor)))

    async def exchange(self, name: str, card: str) -> Batcher:
        """Loads a card of `dnn_folder` under a name, new or in place of the DNN that has it.

        Frames that wait are inferred by the new one. Raises `UsageError` for a card elsewhere or of another
        task, and what `load_dnn` raises; the old DNN then goes on.
        """
        path = self._card_path(card)
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name}' is no name for a DNN: use letters, digits, _ . -")
        running = self.dnns.get(name)
        count = None if running is None else running.copies
        copies = await asyncio.to_thread(_load, self.settings, path, count)
        if running is not None:
            running.exchange(copies)
        else:
            self.dnns[name] = self._batcher(name, copies)
        log.info("dnn exchanged", extra={"dnn": name, "card": copies[0].card.name})
        return self.dnns[name]

    def _card_path(self, card: str) -> Path:
        folder = self.settings.dnn_folder
        if folder is None:
            raise UsageError("this server changes no DNN: start it with --dnn-folder FOLDER")
        path = (folder / card).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.name.endswith(CARD_SUFFIX):
            raise UsageError(f"'{card}' is no card of the server's --dnn-folder")
        return path

    def _batcher(self, name: str, copies: list[ServerDnn]) -> Batcher:
        return Batcher(
            name,
            copies,
            max_batch=self.settings.max_batch,
            window_ms=self.settings.batch_window_ms,
            observe=self._observe_batch,
        )

    def _observe_batch(self, name: str, outcome: Outcome) -> None:
        self.metrics.batch_frames.labels(name).observe(outcome.batch)


def _load(settings: ServerSettings, card: Path, copies: int | None = None) -> list[ServerDnn]:
    """A DNN in so many copies; by default as many as the settings say or, if they don't, as pay here."""
    threads, device = settings.threads, settings.device
    copies = copies or settings.copies
    if copies is None and threads is None and device == "cpu":
        lone = load_dnn(card, threads=1, device=device)
        if _infer_ms(lone) > QUICK_MS:
            return [load_dnn(card, device=device)]
        cores = min(len(os.sched_getaffinity(0)), MOST_COPIES)
        return [lone, *(load_dnn(card, threads=1, device=device) for _ in range(cores - 1))]
    if threads is None and (copies or 1) > 1 and device == "cpu":
        threads = 1
    return [load_dnn(card, threads=threads, device=device) for _ in range(copies or 1)]


def _infer_ms(dnn: ServerDnn) -> float:
    """How long one frame takes; the first, which also sets up the runtime, does not count."""
    frame = VideoFrame.from_ndarray(np.full((1080, 1280), 128, np.uint8), format="yuv420p")
    dnn.infer(frame)
    start = time.perf_counter()
    dnn.infer(frame)
    return (time.perf_counter() - start) * 1000
