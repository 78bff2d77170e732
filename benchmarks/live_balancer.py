"""A plain TCP balancer for the live benchmarks: a connection goes to the server that has the fewest.

It knows nothing of what passes and counts its bytes. A server that takes no connection is passed over, as
`option redispatch` of HAProxy does; `take_out` is what a health check would do with one that is silent.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self

__all__ = ["Balancer"]

_BLOCK_BYTES = 1 << 16


class Balancer:
    """Listens on `address` while `async with` runs; `servers` are addresses without a scheme."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.up_bytes = self.down_bytes = 0
        self.connections = dict.fromkeys(servers, 0)
        """Of each server, now."""
        self._out: set[str] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def take_out(self, server: str) -> None:
        """Gives it no new connection; those that it has stay."""
        self._out.add(server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for server in sorted(set(self.connections) - self._out, key=lambda each: self.connections[each]):
            host, _, port = server.rpartition(":")
            self.connections[server] += 1
            try:
                there = await asyncio.open_connection(host, int(port))
            except OSError:
                self.connections[server] -= 1
                continue
            try:
                pumps = [self._pump(reader, there[1], up=True), self._pump(there[0], writer, up=False)]
                tasks = [asyncio.create_task(pump) for pump in pumps]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            finally:
                self.connections[server] -= 1
                there[1].close()
                writer.close()
            return
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_BLOCK_BYTES):
                if up:
                    self.up_bytes += len(data)
                else:
                    self.down_bytes += len(data)
                writer.write(data)
                await writer.drain()
