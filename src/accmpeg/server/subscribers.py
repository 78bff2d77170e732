"""Where results go besides back to their camera: WebSocket subscribers, a JSON-lines file, MQTT.

Every one has a bounded queue of its own. A slow one loses its oldest results and is told how many.
"""

import contextlib
import errno
import json
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from accmpeg.errors import SinkError
from accmpeg.quiet import FewRepeats
from accmpeg.server.changes import Changes
from accmpeg.server.metrics import Metrics

__all__ = ["Hub", "JsonLinesFile", "Outlet", "Subscriber"]

LOOK_EVERY_S = 1.0
STANDARD_OUTPUT = Path("-")
_FILE_QUEUE = 4096

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


class Outlet(Protocol):
    """What takes every event, at once and without raising."""

    def offer(self, camera: str, text: str) -> None: ...


class Hub:
    """Hands each event to every outlet; an event is a result with its camera and times. Event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self.outlets: list[Outlet] = []
        self._metrics = metrics

    def publish(self, event: dict[str, Any]) -> None:
        """Serialises once, and only if anybody listens."""
        if self.outlets:
            text = json.dumps(event, separators=(",", ":"))
            for outlet in list(self.outlets):
                outlet.offer(event["camera"], text)

    def subscribe(self, camera: str | None, capacity: int) -> "Subscriber":
        subscriber = Subscriber(camera, capacity, self._metrics.lost.labels("websocket").inc)
        self.outlets.append(subscriber)
        self._metrics.subscribers.labels("results").inc()
        return subscriber

    def unsubscribe(self, subscriber: "Subscriber") -> None:
        self.outlets.remove(subscriber)
        self._metrics.subscribers.labels("results").dec()


class Subscriber:
    """A bounded queue of texts for one reader."""

    def __init__(self, camera: str | None, capacity: int, count_lost: Callable[[], None]) -> None:
        self._camera = camera
        self._texts: deque[str] = deque(maxlen=capacity)
        self._changes = Changes()
        self._count_lost = count_lost
        self._lost = 0

    def offer(self, camera: str, text: str) -> None:
        if self._camera is not None and camera != self._camera:
            return
        if len(self._texts) == self._texts.maxlen:
            self._lost += 1
            self._count_lost()
        self._texts.append(text)
        self._changes.notify()

    async def next(self) -> str:
        """The oldest text; after a loss, first `{"lost": n}`."""
        await self._changes.until(lambda: self._texts)
        if self._lost:
            lost, self._lost = self._lost, 0
            return json.dumps({"lost": lost})
        return self._texts.popleft()


class JsonLinesFile:
    """Appends one line per result, in a thread: a slow or full disk holds nobody up. `-` is standard output.

    While the disk is full, results are lost; the log says so once, and once more when writing goes on. A line
    that was cut by a full disk is ended first, so that every later line is whole. Where the file was moved or
    deleted, a new one takes its place within a second. Raises `SinkError` if it can't be opened.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._lost = metrics.lost.labels("file")
        self._texts: queue.Queue[str | None] = queue.Queue(_FILE_QUEUE)
        self._look_s = 0.0
        self._torn = False
        try:
            self._file = self._open()
        except OSError as error:
            reason = "nobody reads that pipe" if error.errno == errno.ENXIO else error.strerror
            raise SinkError(f"--results {path} can't be written: {reason}") from error
        self._failing = False
        self._lost_since_failure = 0
        self._thread = threading.Thread(target=self._run, name="results-file", daemon=True)
        self._thread.start()

    def offer(self, camera: str, text: str) -> None:
        try:
            self._texts.put_nowait(text)
        except queue.Full:
            self._lost.inc()

    def reopen(self) -> None:
        """Goes on in a file of the same path from the next line on, if the old one has been moved away."""
        self._look_s = 0.0

    def close(self) -> None:
        """Writes what is queued, and closes."""
        with contextlib.suppress(queue.Full):
            self._texts.put(None, timeout=5)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (text := self._texts.get()) is not None:
            if self._has_gone():
                self._change()
            self._write(("\n" if self._torn else "") + text + "\n")
        os.close(self._file)

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return os.dup(1)
        # A pipe that nobody reads would hold the server up here, and is an error so.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self._path, flags, 0o640)
        os.set_blocking(file, True)
        self._torn = _ends_within_a_line(self._path)
        return file

    def _has_gone(self) -> bool:
        """Whether another file is at the path by now, or none: who moves or deletes it may not say so."""
        now_s = time.monotonic()
        if now_s < self._look_s or self._path == STANDARD_OUTPUT:
            return False
        self._look_s = now_s + LOOK_EVERY_S
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return True

    def _change(self) -> None:
        try:
            opened = self._open()
        except OSError as error:
            log.error(
                "results file can't be opened again, the old one goes on",
                extra={"file": str(self._path), "reason": error.strerror},
            )
            return
        os.close(self._file)
        self._file = opened

    def _write(self, line: str) -> None:
        data = line.encode()
        try:
            written = os.write(self._file, data)
            while written < len(data):
                self._torn = True
                written += os.write(self._file, data[written:])
        except OSError as error:
            self._lost.inc()
            self._lost_since_failure += 1
            if not self._failing:
                self._failing = True
                log.error(
                    "results file can't be written, results are lost until it can",
                    extra={"file": str(self._path), "reason": error.strerror},
                )
            return
        self._torn = False
        if self._failing:
            log.warning(
                "results file is written again",
                extra={"file": str(self._path), "lost": self._lost_since_failure},
            )
            self._failing, self._lost_since_failure = False, 0


def _ends_within_a_line(path: Path) -> bool:
    """As a full disk, or a power cut, leaves a file that the server had before."""
    with contextlib.suppress(OSError):  # it may be written and not read
        if path.is_file() and (size_bytes := path.stat().st_size):
            with path.open("rb") as stream:
                stream.seek(size_bytes - 1)
                return stream.read(1) not in (b"\n", b"")
    return False
