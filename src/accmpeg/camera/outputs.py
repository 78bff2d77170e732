"""Where results go: a callback, standard output, or a local socket that any program may read.

Every result is one JSON object on a line. Nothing that reads results can hold the camera up: results wait in
a bounded queue, and the oldest are left out (and counted) for a reader that does not keep pace.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import queue
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accmpeg.errors import LinkError, SinkError, UsageError
from accmpeg.quiet import FewRepeats

__all__ = ["FrameResult", "ResultOutputs", "ResultQueue", "ResultSocket", "write_lines"]

_SLOW_READER_BYTES = 1 << 20
_RESULTS_HELD = 1000
_LAST_RESULTS_S = 1.0

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


@dataclass(frozen=True, slots=True)
class FrameResult:
    """The server DNN's answer to one frame, in the pixels of the camera's own frames.

    `result` is None where the server dropped the frame, for the reason in `dropped`. Times are microseconds
    of the camera's clock; `delay_ms` runs from capture to the result's arrival, and says nothing of the
    network where `spooled`. `camera_ms` and `server_ms` are times by stage.
    """

    stream_id: str
    sequence: int
    pts: int
    captured_us: int
    received_us: int
    delay_ms: float
    spooled: bool
    result: dict[str, Any] | None
    dropped: str | None
    camera_ms: dict[str, float]
    server_ms: dict[str, float]

    def to_json(self) -> str:
        """One line of JSON."""
        # Not asdict: it copies every object of the result first, which takes five times as long as the rest.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(values, separators=(",", ":"))


class ResultQueue:
    """Hands results to `deliver` on a thread of its own; newest wins when that is slow."""

    def __init__(self, deliver: Callable[[FrameResult], None]) -> None:
        self.dropped = 0
        self._deliver = deliver
        self._queue: queue.Queue[FrameResult | None] = queue.Queue(_RESULTS_HELD)
        self._thread = threading.Thread(target=self._run, name="results", daemon=True)
        self._thread.start()

    def put(self, result: FrameResult | None) -> None:
        """Adds a result; None ends it. Never waits."""
        self.dropped += _put_newest(self._queue, result)

    def close(self, timeout_s: float = 2.0) -> None:
        """Delivers what is left, for at most `timeout_s`."""
        self.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (result := self._queue.get()) is not None:
            try:
                self._deliver(result)
            except BrokenPipeError:
                log.warning("nobody reads the results any more")
                return
            except SinkError as error:
                log.warning("results are lost", extra={"reason": str(error)})
            except Exception:
                log.exception("the receiver of results failed")


def write_lines(result: FrameResult) -> None:
    """Puts a result on standard output.

    Raises `SinkError` where that is full, and `BrokenPipeError` where nobody reads it any more.
    """
    try:
        sys.stdout.write(result.to_json() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
    except OSError as error:
        raise SinkError(f"standard output can't be written: {error.strerror}") from error


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text[:6]) < 65536


class ResultSocket:
    """A local socket, `unix:/run/results.sock` or `tcp:127.0.0.1:9000`: who connects gets the results.

    Runs in the network thread's event loop. TCP is for this machine only, for there is no token here.
    """

    def __init__(self, address: str) -> None:
        self._kind, _, self._where = address.partition(":")
        if self._kind not in ("unix", "tcp") or not self._where:
            raise UsageError(f"--results {address}: give -, unix:PATH or tcp:127.0.0.1:PORT")
        if self._kind == "tcp":
            host, _, port = self._where.rpartition(":")
            if host not in ("127.0.0.1", "localhost", "[::1]") or not _is_port(port):
                raise UsageError(
                    f"--results {address}: give tcp:127.0.0.1:PORT; to send results to other "
                    "machines let them subscribe to the server"
                )
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begins to listen. Raises LinkError where it can't."""
        try:
            if self._kind == "unix":
                _make_way(Path(self._where))
                self._server = await asyncio.start_unix_server(self._serve, self._where)
            else:
                host, _, port = self._where.rpartition(":")
                self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port))
        except OSError as error:
            raise LinkError(
                f"can't offer results at {self._kind}:{self._where}: {error.strerror or error}; give another "
                "--results"
            ) from error

    def put(self, result: FrameResult) -> None:
        """Sends a result to everyone connected; hangs up on those too slow to read."""
        if not self._clients:
            return
        line = (result.to_json() + "\n").encode()
        for writer in list(self._clients):
            if writer.transport.get_write_buffer_size() > _SLOW_READER_BYTES:
                log.warning("a reader of the results is too slow: hung up")
                self._clients.discard(writer)
                writer.transport.abort()
            else:
                writer.write(line)

    async def close(self) -> None:
        """Sends what is buffered and hangs up."""
        if self._server is not None:
            self._server.close()
            if self._kind == "unix":
                Path(self._where).unlink(missing_ok=True)
        for writer in list(self._clients):
            writer.close()  # once the reader has taken what is buffered, which the loop must live to see
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LAST_RESULTS_S):
                    await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while await reader.read(1024):
                pass  # readers have nothing to say; their end of file tells that they left
        except OSError:
            pass
        finally:
            self._clients.discard(writer)
            writer.close()


class ResultOutputs:
    """Everyone who gets a camera's results: a callback, sockets, and who iterates over them.

    `open`, `put` and `close` are the network thread's; `end` comes after them.
    """

    def __init__(
        self, on_result: Callable[[FrameResult], None] | None, sockets: Sequence[ResultSocket]
    ) -> None:
        self._callback = None if on_result is None else ResultQueue(on_result)
        self._sockets = sockets
        self._waiting: queue.Queue[FrameResult | None] = queue.Queue(_RESULTS_HELD)

    async def open(self) -> None:
        """Opens the sockets. Raises LinkError where that can't be."""
        for each in self._sockets:
            await each.open()

    def put(self, result: FrameResult) -> None:
        """Hands a result to all of them. Never waits."""
        for each in self._sockets:
            each.put(result)
        if self._callback is not None:
            self._callback.put(result)
        _put_newest(self._waiting, result)

    async def close(self) -> None:
        """Closes the sockets."""
        for each in self._sockets:
            await each.close()

    def end(self) -> None:
        """No more results come."""
        if self._callback is not None:
            self._callback.close()
        _put_newest(self._waiting, None)

    def snapshot(self) -> dict[str, int]:
        """How many results a slow callback has missed."""
        return {} if self._callback is None else {"results_unread": self._callback.dropped}

    def __iter__(self) -> Iterator[FrameResult]:
        while (result := self._waiting.get()) is not None:
            yield result
        _put_newest(self._waiting, None)  # who iterates again finds the end, too


def _put_newest(waiting: "queue.Queue[FrameResult | None]", result: FrameResult | None) -> int:
    """Puts a result, leaving out the oldest ones where the queue is full; returns how many."""
    dropped = 0
    while True:
        try:
            waiting.put_nowait(result)
            return dropped
        except queue.Full:
            with contextlib.suppress(queue.Empty):
                waiting.get_nowait()
                dropped += 1


def _make_way(path: Path) -> None:
    """Removes the socket file that a killed camera left behind. Raises OSError where one listens there:
    asyncio would put its own in the place of that."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise OSError(errno.EADDRINUSE, "another program does so already")
            path.unlink()
