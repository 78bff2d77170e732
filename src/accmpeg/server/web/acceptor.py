"""Takes connections in: counted at accept, with a time for the TLS handshake and a limit per address.

```
listener ─▶ accept ─▶ [TLS, at most handshake_s] ─▶ HTTP, a whole request within handshake_s ─▶ proven
              └─ no place left: the oldest unproven one of the address with the most of them is cut off
```

Whoever has a place may take its time, so that all cameras of a lost server can come at once. A lower limit
of unproven connections would cut off honest ones: their handshakes wait for one another.

asyncio's own server gives silent TLS clients a minute, counts none of them, and writes a traceback for each
that it has no descriptor for.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from accmpeg.quiet import FewRepeats
from accmpeg.server.metrics import Metrics
from accmpeg.server.settings import Limits
from accmpeg.server.web.transport import Http

__all__ = ["Acceptor", "raise_descriptor_limit"]

ACCEPTED_AT_ONCE = 64
PAUSE_S = 1.0
"""After which it accepts again, where the system had no descriptor or memory left."""
OWN_DESCRIPTORS = 256
"""Descriptors that clients don't get: they are for files, inputs and the runtime."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns how many connections that leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A hard limit may be above what the kernel allows a process: then the soft one stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(16, soft - OWN_DESCRIPTORS)


@dataclass(eq=False)
class _Connection:
    address: str
    connected: socket.socket
    task: "asyncio.Task[None] | None" = None
    protocol: Http | None = None
    counted: bool = True

    def cut(self) -> None:
        """Ends it at once, in whatever state it is."""
        if self.protocol is None:
            self.connected.close()  # before its task has run: nobody else has it yet
        elif self.protocol.transport is not None:
            self.protocol.transport.abort()
        if self.task is not None:
            self.task.cancel()


class Acceptor:
    """Accepts from one listening socket on the event loop; `tls` may be exchanged while it runs."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], Http],
        limits: Limits,
        tls: ssl.SSLContext | None,
        metrics: Metrics,
    ) -> None:
        self.tls = tls
        self._listener = listener
        self._make_protocol = make_protocol
        self._limits = limits
        self._metrics = metrics
        self._most = min(limits.max_connections, raise_descriptor_limit())
        self._loop = asyncio.get_running_loop()
        self._of_address: Counter[str] = Counter()
        self._unproven: dict[_Connection, None] = {}
        """In order of their coming."""
        self._resuming: asyncio.TimerHandle | None = None
        if self._most < limits.max_connections:
            log.warning(
                "the limit of open files allows fewer connections: raise LimitNOFILE or `ulimit -n`",
                extra={"connections": self._most, "wanted": limits.max_connections},
            )

    def start(self) -> None:
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accepts no more, and ends what has not asked for anything yet."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listener.fileno())
        for connection in list(self._unproven):
            connection.cut()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            address = _address_of(name)
            if not self._make_room(address):
                connected.close()
                self._metrics.refused.labels("connections").inc()
                log.warning("too many connections", extra={"client": address, "limit": self._most})
                continue
            self._take(connected, address)

    def _pause(self, error: OSError) -> None:
        if error.errno not in _EXHAUSTED:
            log.error("a connection can't be accepted", extra={"reason": error.strerror})
            return
        log.error("no connection can be accepted for a second", extra={"reason": error.strerror})
        self._loop.remove_reader(self._listener.fileno())
        self._resuming = self._loop.call_later(PAUSE_S, self.start)

    def _make_room(self, address: str) -> bool:
        """Whether one more may come from there; one that has shown nothing yet may have to go for it."""
        limits = self._limits
        if self._of_address[address] >= limits.max_connections_per_address:
            return self._cut_oldest(address)
        if sum(self._of_address.values()) >= self._most:
            most = Counter(each.address for each in self._unproven).most_common(1)
            return bool(most) and self._cut_oldest(most[0][0])
        return True

    def _cut_oldest(self, address: str) -> bool:
        oldest = next((each for each in self._unproven if each.address == address), None)
        if oldest is None:
            return False
        self._metrics.refused.labels("connections").inc()
        log.warning(
            "too many connections that ask for nothing, the oldest is cut off", extra={"client": address}
        )
        self._forget(oldest)
        oldest.cut()
        return True

    def _take(self, connected: socket.socket, address: str) -> None:
        connection = _Connection(address, connected)
        self._of_address[address] += 1
        self._unproven[connection] = None
        connection.task = self._loop.create_task(self._welcome(connection))

    async def _welcome(self, connection: _Connection) -> None:
        def protocol() -> Http:
            made = connection.protocol = self._make_protocol()
            made.proven = lambda: self._unproven.pop(connection, None)
            made.ended = lambda: self._forget(connection)
            return made

        handshake_s = self._limits.handshake_s if self.tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                protocol, connection.connected, ssl=self.tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:
            self._forget(connection)
            self._metrics.refused.labels("tls").inc()
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            log.warning("no TLS", extra={"client": connection.address, "code": reason})

    def _forget(self, connection: _Connection) -> None:
        self._unproven.pop(connection, None)
        if connection.counted:
            connection.counted = False
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]


def _address_of(name: object) -> str:
    """What counts as one client: an IPv4 address, or the /64 network that one IPv6 client has to itself."""
    host = name[0].partition("%")[0] if isinstance(name, tuple) else str(name)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
