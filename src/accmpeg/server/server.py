"""One server, put together: what cameras share, those that push or are pulled, and who watches."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from accmpeg.protocol.wire import Goodbye, Refused
from accmpeg.server.announcement import Announcement, announce
from accmpeg.server.core import Core
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.models import LoadedDnns
from accmpeg.server.mqtt import MqttOutlet
from accmpeg.server.pull import Pull
from accmpeg.server.session import Session
from accmpeg.server.settings import ServerSettings
from accmpeg.server.subscribers import JsonLinesFile
from accmpeg.server.threads import in_thread
from accmpeg.version import __version__

__all__ = ["Server", "Watcher"]

CLOSE_S = 2.0
RELOADED = ("tokens", "tls_certificate", "tls_key", "inputs", "results")
"""The settings that may change while the server runs."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Watcher:
    """A subscriber or dashboard; `revoked` is set when it may not be one any more."""

    may_watch: Callable[[], bool]
    revoked: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """What the web application is a door to. Made and used on its event loop."""

    def __init__(
        self,
        settings: ServerSettings,
        loaded: LoadedDnns,
        announcement: Announcement | None = None,
    ) -> None:
        self.core = Core(settings, loaded, announcement)
        self.sessions: dict[str, Session] = {}
        self.pulls: dict[str, Pull] = {}
        self.watchers: set[Watcher] = set()
        self.started_s = time.monotonic()
        self.draining = False
        self.stuck = False
        """After `close`: whether a thread hangs that could not be ended."""
        self._file: JsonLinesFile | None = None
        self._exchanging = asyncio.Lock()

    async def start(self) -> None:
        """Opens outlets and pulls. Raises `SinkError` for a results file that can't be written."""
        core, settings = self.core, self.core.settings
        log.info(
            "memory for decoded pictures",
            extra={
                "mebibytes": core.memory.total_bytes >> 20,
                "cameras_720p": core.memory.cameras_of(1280 * 720),
                "cameras_1080p": core.memory.cameras_of(1920 * 1080),
                "cameras_2160p": core.memory.cameras_of(3840 * 2160),
            },
        )
        self._change_file(settings.results)
        if settings.broker is not None:
            outlet = MqttOutlet(settings.broker, core.metrics)
            core.hub.outlets.append(outlet)
            core.spawn(outlet.run())
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
            waits = [asyncio.create_task(session.finished.wait()) for session in ending]
            _, late = await asyncio.wait(waits, timeout=self.core.settings.drain_s + 3)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Frees everything; after `drain`."""
        self.core.cancel_tasks()
        batchers = [each for workers in self.core.dnns.values() for each in workers.batchers.values()]
        ended = await asyncio.gather(*(in_thread(batcher.close) for batcher in batchers))
        if self._file is not None:
            await in_thread(self._file.close)
        try:
            async with asyncio.timeout(CLOSE_S):
                await in_thread(self.core.executor.shutdown, wait=True, cancel_futures=True)
        except TimeoutError:
            self.stuck = True
        self.stuck = self.stuck or not all(ended)
        log.info("server stopped", extra={"left_hanging": self.stuck})

    async def exchange(
        self, name: str, card: str, accmodel: str | None = None, site_profile: str | None = None
    ) -> DnnWorkers:
        """Puts a DNN of `dnn_folder` under a name, and offers its cameras what is for it.

        All of it is checked first: the old DNN and its offer go on where something is wrong. Cameras that are
        connected hear of it, and change over between two frames. One at a time: a DNN is loaded in as many
        copies as the one before it has.

        Args:
            name: Of a DNN that runs, or a new one.
            card: Its card in the folder.
            accmodel: The card or ONNX file of an AccModel for it, there too.
            site_profile: A profile for it, there too.

        Raises:
            UsageError: A file elsewhere, a DNN of another task, or an offer for another DNN.
            AccmpegError: Something in the files can't be loaded.
        """
        core = self.core
        offered = (
            None if site_profile is None else core.dnns.file(site_profile, ".toml"),
            None if accmodel is None else core.dnns.file(accmodel, ""),
        )
        async with self._exchanging:
            loaded = await core.dnns.load(name, card)
            announced = await in_thread(announce, *offered, [next(iter(loaded.values())).identity])
            workers = core.dnns.put(name, loaded)
            if announced is not None:
                core.announcements[name] = announced
            for session in self.sessions.values():
                session.offer_anew(workers)
        return workers

    def reload(self, settings: ServerSettings) -> list[str]:
        """Takes tokens, inputs and the results file from new settings, which have been checked.

        Who may not be here any more has to go. Returns the names of settings that differ and need a restart.
        Raises `UsageError` where they don't suit what stays until then, and `SinkError` for a results file
        that can't be written; then nothing has changed.
        """
        old = self.core.settings
        now = replace(old, **{name: getattr(settings, name) for name in RELOADED})
        now.check()  # without tokens, and with another host, they were safe: but the host is the old one
        if self._file is not None and settings.results == old.results:
            self._file.reopen()
        elif settings.results != old.results:
            self._change_file(settings.results)
        self.core.settings = now
        for session in list(self.sessions.values()):
            if not session.may_stream():
                reason = "the token is not valid any more: give the new one of this camera"
                session.stop(Refused(code="auth", reason=reason, retry=True))  # a camera may have the new one
        for watcher in self.watchers:
            if not watcher.may_watch():
                watcher.revoked.set()
        self._open_inputs()
        names = (each.name for each in fields(ServerSettings))
        return [name for name in names if getattr(settings, name) != getattr(now, name)]

    def status(self) -> dict[str, Any]:
        """What `/v1/cameras` says: every camera, and every worker."""
        core = self.core
        return {
            "software": f"accmpeg {__version__}",
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "draining": self.draining,
            "problem": self.problem,
            "cameras": [record.summary(core.dnns.problem_of(record.dnn)) for record in core.book.present()],
            "workers": [row for workers in core.dnns.values() for row in workers.rows()],
        }

    @property
    def problem(self) -> str:
        """Why nothing can be answered; empty where something can."""
        return "draining" if self.draining else self.core.dnns.problem

    @property
    def is_ready(self) -> bool:
        """Whether frames can be answered, or soon will be again."""
        return not self.draining and not all(workers.is_down for workers in self.core.dnns.values())

    @property
    def is_stuck(self) -> bool:
        """Whether no DNN will answer again in this process."""
        return all(each.is_stuck for workers in self.core.dnns.values() for each in workers.batchers.values())

    def _open_inputs(self) -> None:
        """Opens the inputs that are new or have another address, and closes those that are gone."""
        wanted = dict(self.core.settings.inputs)
        for name, pull in list(self.pulls.items()):
            if wanted.get(name) != pull.address:
                pull.stop()
                del self.pulls[name]
                record = self.core.book.record(name)
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
            self.pulls[name] = Pull(self.core, name, address)
            self.pulls[name].start()

    def _change_file(self, path: Path | None) -> None:
        outlets = self.core.hub.outlets
        opened = JsonLinesFile(path, self.core.metrics) if path is not None else None
        if self._file is not None:
            outlets.remove(self._file)
            self.core.spawn(in_thread(self._file.close))
        self._file = opened
        if opened is not None:
            outlets.append(opened)
