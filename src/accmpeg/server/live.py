"""The running server: its DNNs, cameras, pulls and outlets; what the web application is a door to."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av import VideoFrame

from accmpeg.dnn.card import CARD_SUFFIX
from accmpeg.errors import UsageError
from accmpeg.protocol.wire import Goodbye, Refused, is_name
from accmpeg.server.answers import Answer
from accmpeg.server.batcher import Batcher
from accmpeg.server.cameras import CameraBook, CameraRecord
from accmpeg.server.lanes import Outcome
from accmpeg.server.logins import Logins
from accmpeg.server.memory import MemoryBudget, available_bytes
from accmpeg.server.metrics import Metrics
from accmpeg.server.models import LoadedDnn, load
from accmpeg.server.mqtt import MqttOutlet
from accmpeg.server.pulls import Pull
from accmpeg.server.settings import ServerSettings
from accmpeg.server.subscribers import Hub, JsonLinesFile
from accmpeg.server.threads import in_thread
from accmpeg.server.view import Gallery, Snapshot

if TYPE_CHECKING:
    from accmpeg.server.sessions import Session

__all__ = ["Live", "Watcher"]

CLOSE_S = 2.0
RELOADED = ("tokens", "tls_certificate", "tls_key", "inputs", "results")
"""The settings that may change while the server runs."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Watcher:
    """A subscriber or dashboard; `revoked` is set when it may not be one any more."""

    may_watch: Callable[[], bool]
    revoked: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """One server. Made and used on its event loop, but for `load`, which may take seconds."""

    def __init__(self, settings: ServerSettings, dnns: dict[str, LoadedDnn]) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.draining = False
        self.started_s = time.monotonic()
        self.book = CameraBook(settings.forget_s)
        self.metrics = Metrics(self.book, lambda: self.dnns)
        self.logins = Logins(self.metrics)
        self.memory = MemoryBudget(settings.memory_bytes or available_bytes() // 2)
        self.hub = Hub(self.metrics)
        self.gallery = Gallery(settings.snapshots_per_s)
        self.executor = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="decode")
        self.sessions: dict[str, Session] = {}
        self.dnns: dict[str, Batcher] = {name: self._batcher(name, dnn) for name, dnn in dnns.items()}
        self.pulls: dict[str, Pull] = {}
        self.watchers: set[Watcher] = set()
        self.stuck = False
        """After `close`: whether a thread hangs that could not be ended."""
        self._file: JsonLinesFile | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @staticmethod
    def load(settings: ServerSettings) -> dict[str, LoadedDnn]:
        """The DNNs, in their copies, by the names that cameras ask for.

        Raises `UsageError`, `CardError`, `WeightsError`, …
        """
        found: dict[str, LoadedDnn] = {}
        for card in settings.dnns:
            loaded = load(settings, card)
            name = loaded.identity.card
            if not is_name(name):
                raise UsageError(f"{card}: the name '{name}' can't be asked for: use letters, digits, _ . -")
            if name in found:
                raise UsageError(f"two cards are named '{name}': cameras could not tell them apart")
            found[name] = loaded
            facts = loaded.identity.facts()
            log.info("dnn loaded", extra={"dnn": name, "copies": len(loaded.copies), **facts})
        return found

    @property
    def first_dnn(self) -> Batcher:
        return next(iter(self.dnns.values()))

    async def start(self) -> None:
        """Opens outlets and pulls. Raises `SinkError` for a results file that can't be written."""
        log.info(
            "memory for decoded pictures",
            extra={
                "mebibytes": self.memory.total_bytes >> 20,
                "cameras_720p": self.memory.cameras_of(1280 * 720),
                "cameras_1080p": self.memory.cameras_of(1920 * 1080),
                "cameras_2160p": self.memory.cameras_of(3840 * 2160),
            },
        )
        if self.settings.results is not None:
            self._file = JsonLinesFile(self.settings.results, self.metrics)
            self.hub.outlets.append(self._file)
        if self.settings.broker is not None:
            outlet = MqttOutlet(self.settings.broker, self.metrics)
            self.hub.outlets.append(outlet)
            self.keep(asyncio.create_task(outlet.run()))
        self._open_inputs()

    async def drain(self) -> None:
        """Takes nothing more, answers what has come, says goodbye to every camera; within `drain_s`."""
        self.draining = True
        log.info("draining", extra={"cameras": len(self.sessions)})
        for pull in self.pulls.values():
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
        batchers = list(self.dnns.values())
        await asyncio.gather(*(in_thread(batcher.close) for batcher in batchers))
        if self._file is not None:
            await in_thread(self._file.close)
        try:
            async with asyncio.timeout(CLOSE_S):
                await in_thread(self.executor.shutdown, wait=True, cancel_futures=True)
        except TimeoutError:
            self.stuck = True
        self.stuck = self.stuck or any(batcher.is_running for batcher in batchers)
        log.info("server stopped", extra={"left_hanging": self.stuck})

    def reload(self, settings: ServerSettings) -> list[str]:
        """Takes tokens, inputs and the results file from new settings, which have been checked.

        Who may not be here any more has to go. Returns the names of settings that differ and need a restart.
        Raises `SinkError` for a results file that can't be written; then nothing has changed.
        """
        old = self.settings
        if self._file is not None and settings.results == old.results:
            self._file.reopen()
        elif settings.results != old.results:
            self._change_file(settings.results)
        self.settings = replace(old, **{name: getattr(settings, name) for name in RELOADED})
        for session in list(self.sessions.values()):
            if not session.may_stream():
                reason = "the token is not valid any more: give the new one of this camera"
                session.stop(Refused(code="auth", reason=reason, retry=False))
        for watcher in self.watchers:
            if not watcher.may_watch():
                watcher.revoked.set()
        self._open_inputs()
        names = (each.name for each in fields(ServerSettings))
        return [name for name in names if getattr(settings, name) != getattr(self.settings, name)]

    @property
    def problem(self) -> str:
        """Why nothing can be answered; empty where something can."""
        if self.draining:
            return "draining"
        problems = {name: batcher.problem for name, batcher in self.dnns.items()}
        if not all(problems.values()):
            return ""
        return "; ".join(f"dnn {name}: {problem}" for name, problem in problems.items())

    @property
    def is_ready(self) -> bool:
        """Whether frames can be answered, or soon will be again."""
        return not self.draining and not all(batcher.is_down for batcher in self.dnns.values())

    def problem_of(self, record: CameraRecord) -> str:
        """What is wrong with a camera's DNN."""
        batcher = self.dnns.get(record.dnn)
        return batcher.problem if batcher is not None else ""

    def _open_inputs(self) -> None:
        """Opens the inputs that are new or have another address, and closes those that are gone."""
        wanted = dict(self.settings.inputs)
        for name, pull in list(self.pulls.items()):
            if wanted.get(name) != pull.address:
                pull.stop()
                del self.pulls[name]
                record = self.book.record(name)
                record.pulled = False
                record.left("the input is not set any more")
        for name, address in wanted.items():
            if name in self.pulls:
                continue
            if name in self.sessions:
                log.error(
                    "input not opened: a camera streams under its name", extra={"code": name, "camera": name}
                )
                continue
            self.pulls[name] = Pull(self, name, address)
            self.pulls[name].start()

    def _change_file(self, path: Path | None) -> None:
        opened = JsonLinesFile(path, self.metrics) if path is not None else None
        if self._file is not None:
            self.hub.outlets.remove(self._file)
            self.keep(asyncio.create_task(in_thread(self._file.close)))
        self._file = opened
        if opened is not None:
            self.hub.outlets.append(opened)

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
        record.count_answer(answer.dropped)
        if answer.result is not None:
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
        if not is_name(name):
            raise UsageError(f"'{name}' is no name for a DNN: use letters, digits, _ . -")
        running = self.dnns.get(name)
        count = None if running is None else running.copies
        loaded = await in_thread(load, self.settings, path, count)
        if running is not None:
            running.exchange(loaded)
        else:
            self.dnns[name] = self._batcher(name, loaded)
        log.info("dnn exchanged", extra={"dnn": name, **loaded.identity.facts()})
        return self.dnns[name]

    def _card_path(self, card: str) -> Path:
        folder = self.settings.dnn_folder
        if folder is None:
            raise UsageError("this server changes no DNN: start it with --dnn-folder FOLDER")
        try:
            path = (folder / card).resolve()
            inside = path.is_relative_to(folder.resolve())
        except (OSError, ValueError):  # a NUL in it, or a name that no file can have
            path, inside = folder, False
        if not inside or not path.name.endswith(CARD_SUFFIX):
            raise UsageError(f"{card!r} is no card of the server's --dnn-folder")
        return path

    def _batcher(self, name: str, loaded: LoadedDnn) -> Batcher:
        return Batcher(
            name,
            loaded,
            max_batch=self.settings.max_batch,
            window_ms=self.settings.batch_window_ms,
            infer_timeout_s=self.settings.infer_timeout_s,
            observe=self._observe_batch,
        )

    def _observe_batch(self, name: str, outcome: Outcome) -> None:
        self.metrics.batch_frames.labels(name).observe(outcome.batch)
