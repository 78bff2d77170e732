"""The steered stream at another address, besides the server or instead of it: a file, RTSP, RTMP, UDP, SRT.

Everything slow or blocking happens on a thread of its own, and network addresses in a process of their own
(`publish_process` says why). When the address can't be reached or can't keep pace, frames are left out (whole
groups of pictures, counted), the address is tried again with backoff, and the stream goes on with a keyframe.
The camera never waits.
"""

import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from accmpeg.camera.publish_process import describe_stream, pack_unit
from accmpeg.camera.stats import CameraStats
from accmpeg.errors import SinkError, reason
from accmpeg.media.addresses import describe, is_url
from accmpeg.media.encoder import AccessUnit, Encoder
from accmpeg.media.sink import check_address, open_sink, unused_path
from accmpeg.protocol.backoff import Backoff

__all__ = ["Publisher", "RemoteSink"]

_QUEUE_FRAMES = 120
_STALLED_AFTER_S = 15.0
_CLOSE_WITHIN_S = 3.0

log = logging.getLogger(__name__)


class _Sink(Protocol):
    def write(self, unit: AccessUnit) -> None: ...

    def close(self) -> None: ...


class RemoteSink:
    """A process that writes to an address; raises SinkError when it failed, or hangs and was killed.

    `on_written` is called for each unit that has gone out.
    """

    def __init__(self, address: str, encoder: Encoder, on_written: Callable[[], None] = lambda: None) -> None:
        self._name = describe(address)
        self._on_written = on_written
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "accmpeg.camera.publish_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the camera's to handle
            )
        except OSError as error:
            raise SinkError(f"no process can be started for {self._name}: {reason(error)}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._said = b""
        self._waiting = 0
        self._progress_s = time.monotonic()
        self._send(describe_stream(address, encoder))

    def write(self, unit: AccessUnit) -> None:
        """Hands a unit over."""
        if not self._waiting:
            self._progress_s = time.monotonic()
        self._send(pack_unit(unit))
        self._waiting += 1
        self._listen()
        self._check_progress()

    def close(self) -> None:
        """Lets it finish, but not for long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._process.stdout.closed:
            for line in (self._said + (self._process.stdout.read() or b"")).splitlines():
                if line == b"written":
                    self._on_written()
            self._process.stdout.close()

    def finish(self) -> None:
        """Waits until all is written, for as long as that goes on."""
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._progress_s = time.monotonic()
            while self._process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.1)
                self._listen()
                self._check_progress()
            self._listen()
            if self._process.returncode:
                self._fail(f"{self._name} can't be written")
        except BaseException:
            self._process.kill()
            raise
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.finish()
        else:
            self.close()

    def _check_progress(self) -> None:
        if time.monotonic() - self._progress_s > _STALLED_AFTER_S:
            self._fail(f"{self._name} took nothing for {_STALLED_AFTER_S:.0f} s")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        deadline_s = time.monotonic() + _STALLED_AFTER_S
        while view:
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                select.select([], [self._input], [], 0.2)
                self._listen()
                if time.monotonic() > deadline_s:
                    self._fail(f"{self._name} took nothing for {_STALLED_AFTER_S:.0f} s")
            except OSError:
                self._listen()
                self._fail(self._said.decode(errors="replace").strip() or f"{self._name} can't be written")

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._output, 65536):
                self._said += data
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            if line == b"written":
                self._on_written()
                self._waiting -= 1
                self._progress_s = time.monotonic()
            else:
                self._said = line + b"\n"
                self._fail(line.decode(errors="replace"))

    def _fail(self, reason: str) -> None:
        self._process.kill()
        self.close()
        raise SinkError(reason)


class Publisher(threading.Thread):
    """Writes access units to one address. `encoder` describes the stream, whose size must not change.

    `wanted_keyframe` is set where the stream can only go on with one. A file that can't be written ends
    publishing, for its start is lost; `error` says why. An address is tried for ever.
    """

    def __init__(
        self, address: str, encoder: Encoder, stats: CameraStats, wanted_keyframe: threading.Event
    ) -> None:
        super().__init__(name=f"publish {describe(address)}", daemon=True)
        self.error: SinkError | None = None
        self._address = address
        self._encoder = encoder
        self._stats = stats
        self._wanted_keyframe = wanted_keyframe
        self._condition = threading.Condition()
        self._queue: deque[AccessUnit] = deque()
        self._waits_for_keyframe = True
        self._ended = False
        self._sink: _Sink | None = None
        self._backoff = Backoff()
        self._opened_s = time.monotonic()
        # What can never be written is told at once.
        if is_url(address):
            check_address(address)
        else:
            path = unused_path(Path(address))
            if path != Path(address):
                said = {"address": address, "file": str(path)}
                log.info("an earlier recording keeps its name, this one gets another", extra=said)
            self._sink = open_sink(path, encoder)

    def put(self, unit: AccessUnit) -> None:
        """Adds one access unit; never waits."""
        with self._condition:
            if self.error is not None or (self._waits_for_keyframe and not unit.is_keyframe):
                self._stats.add("dropped_publish")
                return
            self._waits_for_keyframe = False
            if len(self._queue) >= _QUEUE_FRAMES:
                self._stats.add("dropped_publish", len(self._queue))
                self._queue.clear()
                self._waits_for_keyframe = not unit.is_keyframe
                if self._waits_for_keyframe:
                    self._stats.add("dropped_publish")
                    self._wanted_keyframe.set()
                    return
            self._queue.append(unit)
            self._condition.notify()

    def end(self) -> None:
        """Writes what is left and closes; the thread then ends."""
        with self._condition:
            self._ended = True
            self._condition.notify()

    def run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._ended)
                if not self._queue:
                    break
                unit = self._queue.popleft()
            try:
                if self._sink is None:
                    self._opened_s = time.monotonic()
                    self._sink = RemoteSink(self._address, self._encoder, self._written)
                self._sink.write(unit)
                if not is_url(self._address):
                    self._written()
            except SinkError as error:
                self._sink = None
                log.warning(
                    "publishing failed", extra={"address": describe(self._address), "reason": str(error)}
                )
                if not is_url(self._address):
                    self.error = error
                    return
                self._start_over(self._backoff.failed())
        self._close()

    def _written(self) -> None:
        self._stats.add("published")
        # One that takes some frames and then hangs up, as for a wrong key, is no success.
        if time.monotonic() - self._opened_s > Backoff.LONGEST_S:
            self._backoff.succeeded()

    def _start_over(self, pause_s: float) -> None:
        with self._condition:
            self._stats.add("dropped_publish", 1 + len(self._queue))
            self._queue.clear()
            self._waits_for_keyframe = True
            self._condition.wait_for(lambda: self._ended, pause_s)
            self._stats.add("dropped_publish", len(self._queue))
            self._queue.clear()
            self._waits_for_keyframe = True
        self._wanted_keyframe.set()

    def _close(self) -> None:
        if self._sink is None:
            return
        try:
            self._sink.close()
        except SinkError as error:
            self.error = error
            log.warning(
                "publishing ended badly", extra={"address": describe(self._address), "reason": str(error)}
            )
