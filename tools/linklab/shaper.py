"""A thin link on the loopback interface: a TCP proxy that lets bytes through as a `Link` would.

```
camera ══▶ pump ─▶ lane (queue, one chunk after another) ─▶ propagation, jitter, stalls ══▶ server
       ◀══         one lane per direction, shared by all connections of the proxy       ◀══
```

Chunks are planned on the event loop's clock: each starts when the one before it was due to end, so a late
wake-up of the program delays a chunk but never the ones after it.
"""

import asyncio
import math
import random
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from accmpeg.evaluation.link.link import PACKET_BYTES, Link, Serialiser

__all__ = ["ShapingProxy", "transfer"]

_QUEUE_BYTES = 64 * 1024
"""What waits for a lane of a link without a queue limit; the rest stays with its sender."""
_TRAVELLING_BYTES = 4 * 1024 * 1024
"""What one connection may have on its way, per direction."""
_SOCKET_BYTES = 64 * 1024


class ShapingProxy:
    """Listens on a port of the loopback interface and shapes all that goes to `target` and back.

    The link is that of `accmpeg.evaluation.link`, except that a full queue holds back its sender, as TCP's
    flow control does, and that a lost chunk holds up the later ones of its connection for a timeout and takes
    the link's time twice. A trace starts when the link is set.
    """

    def __init__(
        self, target: tuple[str, int], link: Link, *, listen_port: int = 0, listen_host: str = "127.0.0.1"
    ) -> None:
        self._target, self._listen = target, (listen_host, listen_port)
        self._lanes = (_Lane(), _Lane())
        self._connections: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._link = link
        self._port = 0

    async def __aenter__(self) -> Self:
        # The listener's buffer size is that of its connections: little may hide from the queue's limit.
        listener = socket.create_server(self._listen)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_SOCKET_BYTES)
        self._port = listener.getsockname()[1]
        self.set_link(self._link)
        self._tasks = [asyncio.create_task(lane.run()) for lane in self._lanes]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = [*self._connections, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def uplink_bytes(self) -> int:
        """What has been through the link towards the target."""
        return self._lanes[0].carried_bytes

    @property
    def downlink_bytes(self) -> int:
        """What has been through the link from the target."""
        return self._lanes[1].carried_bytes

    def set_link(self, link: Link) -> None:
        """Changes the link at once, also for what waits; what has left the queue arrives as planned."""
        self._link = link
        for lane, serialiser, seed in zip(self._lanes, link.serialisers(), (0, 1), strict=True):
            lane.set_link(link, serialiser, random.Random(2 * link.seed + seed))

    def cut(self) -> None:
        """Nothing passes until `restore`; connections stay open and notice nothing but silence."""
        for lane in self._lanes:
            lane.set_cut(True)

    def restore(self) -> None:
        """Ends a cut."""
        for lane in self._lanes:
            lane.set_cut(False)

    def reset(self) -> None:
        """Breaks all connections, as a router that forgets them."""
        for task in self._connections:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            reader_out, writer_out = await self._connect()
            writers.append(writer_out)
            up, down = _Outbox(self._lanes[0], writer_out), _Outbox(self._lanes[1], writer)
            async with asyncio.TaskGroup() as group:
                for outbox, source in ((up, reader), (down, reader_out)):
                    group.create_task(outbox.pump(source))
                    group.create_task(outbox.empty())
        except* OSError:
            pass  # one end is gone: so is the connection, on both sides
        finally:
            for open_writer in writers:
                open_writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._target, limit=_SOCKET_BYTES)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        return reader, writer


@dataclass(slots=True)
class _Chunk:
    data: bytes
    """Empty at the end of the stream."""
    arrived_ms: float
    outbox: "_Outbox"
    tries: int = 0
    """How often it is sent, drawn when its turn comes."""


class _Lane:
    """One direction of the link, for all connections."""

    def __init__(self) -> None:
        self.carried_bytes = 0
        self._waiting: deque[_Chunk] = deque()
        self._waiting_bytes = 0
        self._is_cut = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    def set_link(self, link: Link, serialiser: Serialiser, chance: random.Random) -> None:
        self._link, self._serialiser, self._chance = link, serialiser, chance
        self._limit_bytes = link.queue_limit_bytes or _QUEUE_BYTES
        self._epoch_ms = self._since_ms = _now_ms()
        self._news.set()
        self._room.set()

    def set_cut(self, is_cut: bool) -> None:
        self._is_cut, self._since_ms = is_cut, _now_ms()
        self._news.set()

    async def put(self, data: bytes, outbox: "_Outbox") -> None:
        """Waits until there is room, which is how a sender comes to wait."""
        arrived_ms = _now_ms()
        while self._waiting_bytes + len(data) > self._limit_bytes:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(_Chunk(data, arrived_ms, outbox))
        self._waiting_bytes += len(data)
        self._news.set()

    async def run(self) -> None:
        free_ms = 0.0
        while True:
            self._news.clear()
            if self._is_cut or not self._waiting:
                await self._news.wait()
                continue
            chunk = self._waiting[0]
            link, chance, serialiser = self._link, self._chance, self._serialiser
            if not chunk.tries:
                chunk.tries = 1
                while link.loss and chunk.data and chance.random() < link.loss:
                    chunk.tries += 1
            start_ms = max(chunk.arrived_ms, free_ms, self._since_ms) - self._epoch_ms
            before = serialiser.position
            finish_ms = self._epoch_ms + serialiser.finish_ms(start_ms, len(chunk.data) * chunk.tries)
            if not await self._undisturbed_until(finish_ms):
                serialiser.position = before
                continue
            self._waiting.popleft()
            self._waiting_bytes -= len(chunk.data)
            self._room.set()
            self.carried_bytes += len(chunk.data)
            free_ms = finish_ms
            stall_ms = sum(link.timeout_ms(tries) for tries in range(1, chunk.tries))
            jitter_ms = chance.uniform(0, link.jitter_ms) if link.jitter_ms else 0.0
            chunk.outbox.post(finish_ms + link.propagation_ms + jitter_ms + stall_ms, chunk.data)

    async def _undisturbed_until(self, time_ms: float) -> bool:
        """Waits; False if the link changed meanwhile."""
        before_ms, was_cut = self._since_ms, self._is_cut
        while time_ms > _now_ms():
            self._news.clear()
            try:
                async with asyncio.timeout_at(time_ms / 1000):
                    await self._news.wait()
            except TimeoutError:
                break
            if (self._since_ms, self._is_cut) != (before_ms, was_cut):
                return False
        return True


class _Outbox:
    """One direction of one connection: what has left the link and is on its way, in order."""

    def __init__(self, lane: _Lane, writer: asyncio.StreamWriter) -> None:
        self._lane, self._writer = lane, writer
        self._travelling: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._last_ms = -math.inf
        self._held_bytes = 0
        self._room = asyncio.Event()

    async def pump(self, reader: asyncio.StreamReader) -> None:
        """From the socket into the lane, in chunks of a packet, until the stream ends."""
        data = b"-"
        while data:
            data = await reader.read(PACKET_BYTES)
            while self._held_bytes > _TRAVELLING_BYTES:
                self._room.clear()
                await self._room.wait()
            self._held_bytes += len(data)
            await self._lane.put(data, self)

    def post(self, due_ms: float, data: bytes) -> None:
        self._last_ms = max(self._last_ms, due_ms)
        self._travelling.put_nowait((self._last_ms, data))

    async def empty(self) -> None:
        """Hands over what is due, until the stream ends."""
        data = b"-"
        while data:
            due_ms, data = await self._travelling.get()
            wait_ms = due_ms - _now_ms()
            if wait_ms > 0:
                await asyncio.sleep(wait_ms / 1000)
            if data:
                self._writer.write(data)
                await self._writer.drain()
            else:
                self._writer.write_eof()
            self._held_bytes -= len(data)
            self._room.set()


async def transfer(messages: Sequence[tuple[float, int]], link: Link) -> list[tuple[float, float]]:
    """Sends messages (captured at ms, bytes) over a real TCP connection through a proxy with this link.

    Gives when each was written and when its last byte was read, in ms. On a busy machine a message is written
    later than it was captured, which is no matter of the link.
    """
    loop = asyncio.get_running_loop()
    sent_ms: list[float] = []
    arrived_ms: list[float] = []
    complete = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _, size_bytes in messages:
            await reader.readexactly(size_bytes)
            arrived_ms.append(_now_ms() - start_ms)
        complete.set()
        writer.transport.abort()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with server, ShapingProxy(server.sockets[0].getsockname(), link) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.set_link(link)
        start_ms = _now_ms()
        for captured_ms, size_bytes in messages:
            await asyncio.sleep((start_ms + captured_ms) / 1000 - loop.time())
            sent_ms.append(_now_ms() - start_ms)
            writer.write(bytes(size_bytes))
        await complete.wait()
        writer.transport.abort()
    return list(zip(sent_ms, arrived_ms, strict=True))


def _now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000
