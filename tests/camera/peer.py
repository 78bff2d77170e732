"""A small real server of the wire: decodes what comes with a real decoder and answers every frame."""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from accmpeg.errors import DecoderError
from accmpeg.media.decoder import Decoder
from accmpeg.protocol.wire import (
    SUBPROTOCOL,
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Hello,
    Refused,
    ResultMessage,
    TimeReply,
    TimeRequest,
    Welcome,
    pack,
    unpack,
)
from tests.helpers import free_port


@dataclass(eq=False)
class Seen:
    """What one connection brought."""

    hello: Hello
    units: list[AccessUnitMessage] = field(default_factory=list)
    decoded_sizes: list[tuple[int, int]] = field(default_factory=list)
    undecodable: int = 0
    goodbye: str | None = None


class Peer:
    """Runs in a thread; `start` and `kill` as often as a test wants, on the same port.

    `refuse` is for all streams, or for those that want `refused_dnn`. `bandwidth_bps` makes it read no faster
    than that. It remembers over connections which frames it has had, as a server that was not restarted does,
    and tells again what the camera has not heard of them. `says` comes right after each welcome; one that
    `breaks` hangs up.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        refuse: Refused | None = None,
        refused_dnn: str | None = None,
        bandwidth_bps: float | None = None,
        tls: ssl.SSLContext | None = None,
        clock_ahead_us: int = 0,
        says: Sequence[bytes] = (),
        breaks: bool = False,
    ) -> None:
        self.port = free_port()
        self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{self.port}"
        self.seen: list[Seen] = []
        self.authorization: list[str | None] = []
        self.bandwidth_bps = bandwidth_bps
        self.ask_keyframe_at: int | None = None
        self.late_by_frames = 0
        """So far behind is what it says of the frames that it has had."""
        self.answers = True
        self.deaf: set[Seen] = set()
        """Connections that stay open, with a proxy's pongs, and whose server is gone."""
        self.token = token
        self._refuse = refuse
        self._refused_dnn = refused_dnn
        self._tls = tls
        self._clock_ahead_us = clock_ahead_us
        self._says = says
        self._breaks = breaks
        self._had: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> "Peer":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def kill(self, *, forget: bool = True) -> None:
        """Drops all connections without a word, as a killed process does."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(10)
        if forget:
            self._had.clear()

    @property
    def units(self) -> list[AccessUnitMessage]:
        return [unit for seen in self.seen for unit in seen.units]

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self._clock_ahead_us

    def _stop(self) -> None:
        for connection in self._server.connections:
            connection.transport.abort()
        self._end.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._server: Server
        async with serve(
            self._talk,
            "127.0.0.1",
            self.port,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            process_request=self._admit,
            ssl=self._tls,
            max_size=8 << 20,
            max_queue=2,
            close_timeout=0.2,
        ) as self._server:
            ready.set()
            await self._end.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.authorization.append(request.headers.get("Authorization"))
        if self.token is not None and self.authorization[-1] != f"Bearer {self.token}":
            return Response(401, "Unauthorized", Headers())
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            first = unpack(await connection.recv())
            assert isinstance(first.message, Hello)
            hello = first.message
            if self._refuse is not None and self._refused_dnn in (None, hello.dnn):
                await connection.send(pack(self._refuse))
                return
            seen = Seen(hello)
            self.seen.append(seen)
            had = self._had.get(hello.stream_id, -1)
            await connection.send(pack(Welcome(dnn="peer", task="detection", resume_after=had)))
            if self._breaks:
                connection.transport.abort()
            for data in self._says:
                await connection.send(data)
            for before in self.seen:
                for unit in before.units if before.hello.stream_id == hello.stream_id else ():
                    if hello.answered is not None and hello.answered < unit.sequence <= had:
                        await connection.send(pack(_result(unit, None)))
            decoder = Decoder(hello.codec, bytes(first.payload))
            received = 0
            feeding = asyncio.create_task(self._feed_back(connection, seen, lambda: received))
            async for data in connection:
                if seen in self.deaf:
                    await connection.wait_closed()
                unpacked = unpack(data)
                message, payload = unpacked.message, bytes(unpacked.payload)
                if self.bandwidth_bps:
                    await asyncio.sleep(len(data) * 8 / self.bandwidth_bps)
                if isinstance(message, TimeRequest):
                    now_us = self.now_us()
                    reply = TimeReply(sent_us=message.sent_us, received_us=now_us, replied_us=now_us)
                    await connection.send(pack(reply))
                elif isinstance(message, Goodbye):
                    seen.goodbye = message.reason
                elif isinstance(message, AccessUnitMessage):
                    received += len(payload)
                    if (
                        message.size_px is not None
                        and seen.units
                        and [message.size_px] != seen.decoded_sizes[-1:]
                    ):
                        decoder = Decoder(hello.codec)
                    frames = []
                    try:
                        frames = decoder.decode(payload)
                    except DecoderError:
                        seen.undecodable += 1
                    seen.decoded_sizes += [(frame.width, frame.height) for frame in frames]
                    fresh = message.sequence > self._had.get(hello.stream_id, -1)
                    if not fresh:
                        continue  # had before: only the decoder needed it again
                    seen.units.append(message)
                    self._had[hello.stream_id] = message.sequence
                    if self.answers:
                        await connection.send(pack(_result(message, None if frames else "undecodable")))
            feeding.cancel()

    async def _feed_back(self, connection: ServerConnection, seen: Seen, received: Callable[[], int]) -> None:
        with contextlib.suppress(ConnectionClosed):
            while seen not in self.deaf:
                await asyncio.sleep(0.05)
                told = seen.units[: len(seen.units) - self.late_by_frames]
                highest = told[-1].sequence if told else -1
                asked = self.ask_keyframe_at is not None and highest >= self.ask_keyframe_at
                if asked and any(unit.is_keyframe for unit in told if unit.sequence > self.ask_keyframe_at):
                    self.ask_keyframe_at, asked = None, False
                feedback = Feedback(
                    highest_sequence=highest,
                    received_bytes=received(),
                    received_us=self.now_us(),
                    waiting=0,
                    needs_keyframe=asked,
                )
                await connection.send(pack(feedback))


def _result(unit: AccessUnitMessage, dropped: str | None) -> ResultMessage:
    return ResultMessage(
        sequence=unit.sequence,
        pts=unit.pts,
        captured_us=unit.captured_us,
        result={"objects": []} if dropped is None else None,
        dropped=dropped,  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def peer(**settings: object) -> Iterator[Peer]:
    running = Peer(**settings).start()  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.kill()
