"""Connects to the server for ever, whatever breaks.

```
connect ─▶ hello … goodbye (`connection`)
   ▲            │ anything that breaks
   └─ backoff ──┘
```
Order of one camera: what an earlier run of it left in the spool goes first, as the stream that it was; then
this run's frames by their sequence, the oldest unanswered first. New frames queue behind a backlog, which
ends because they get only half of the link meanwhile.
"""

import asyncio
import contextlib
import logging
import random

from websockets.exceptions import WebSocketException

from accmpeg.camera.uplink.address import ServerAddress, connection_problem
from accmpeg.camera.uplink.connection import Connection, LinkState
from accmpeg.camera.uplink.handshake import connection_to
from accmpeg.errors import LinkError, WireError
from accmpeg.protocol.backoff import Backoff

__all__ = ["CameraClient"]

_SEND_BUFFER_BYTES = 32 << 10

_EXPECTED = (OSError, WebSocketException, WireError)

log = logging.getLogger(__name__)


class CameraClient:
    """Runs in an event loop of its own; `wake`, `stop` and `abort` may be called from any thread.

    Raises LinkError from `run` where coming back can't help and the server never took this camera.
    """

    def __init__(self, address: ServerAddress, state: LinkState) -> None:
        self.connected = False
        self._address = address
        self._state = state
        self.set_aside: set[str] = set()
        """Streams of earlier runs that the server refuses: they stay in the spool, for the next start."""
        self._ever_welcomed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def wake(self) -> None:
        """Something is in the spool."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._state.wake.set)

    def stop(self) -> None:
        """No more frames come: send what is left, say goodbye, and end."""
        self._ending = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_stopping)

    def abort(self) -> None:
        """Ends at once."""
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    @property
    def is_drained(self) -> bool:
        """Whether every frame of the spool that the server takes has been sent and answered."""
        return not any(map(self._state.has_unanswered, self._pending()))

    async def run(self) -> None:
        """Connects, and connects again, until `stop` and all is sent."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._ending:
            self._set_stopping()
        own, keeps = self._state.stream_id, self._state.keeps
        backoff = Backoff(random.random)
        while True:
            earlier = [each for each in self._pending() if each != own]
            stream_id = earlier[0] if earlier else own
            try:
                await self._connect(stream_id)
                broke = held_up = False
            except (*_EXPECTED, ExceptionGroup) as error:
                if isinstance(error, ExceptionGroup) and error.split(_EXPECTED)[1] is not None:
                    raise
                # A server that welcomes and then refuses must not be come back to every second for ever.
                broke = True
                held_up = not self.connected or connection_problem(error, self._address).refused
                self._lost(stream_id, error)
            is_there = self._ever_welcomed or self.set_aside
            if self._ending and (self.is_drained or not keeps or not is_there):
                return
            if not held_up:
                backoff.succeeded()
            if broke or stream_id == own:
                await self._pause(backoff.failed())

    async def _connect(self, stream_id: str) -> None:
        hello = self._state.spool.hello_of(stream_id)
        if hello is None:
            return  # the encoder's thread has just dropped the last of it
        async with connection_to(
            self._address,
            user_agent_header=None,
            # A server whose DNN is slow reads late, and pings with it: its feedback shows that it lives.
            ping_interval=None,
            close_timeout=2.0,
            write_limit=_SEND_BUFFER_BYTES,
        ) as socket:
            self._address.tune(socket.transport.get_extra_info("socket"))
            connection = Connection(socket, stream_id, self._state)
            welcome = await connection.greet(hello)
            self._ever_welcomed = self.connected = True
            self._state.stats.add("connections")
            self._state.stats.set(connected=True, dnn=welcome.dnn, last_problem=None)
            log.info("connected", extra={"server": self._address.url, "dnn": welcome.dnn})
            await connection.run()

    def _lost(self, stream_id: str, error: Exception) -> None:
        state = self._state
        self.connected = False
        problem = connection_problem(error, self._address)
        log.warning("no connection", extra={"server": self._address.url, "reason": problem.reason})
        state.stats.set(connected=False, last_problem=problem.reason)
        if problem.final and problem.refused and stream_id != state.stream_id:
            # Of that stream alone: this run's own may be of another DNN, name or size.
            frames = state.spool.waiting_frames(stream_id)
            said = {"stream": stream_id, "frames": frames}
            log.error("frames of an earlier run are refused: they wait for the next start", extra=said)
            self.set_aside.add(stream_id)
        elif problem.final and not self._ever_welcomed:
            raise LinkError(problem.reason) from None
        if not state.keeps:
            state.stats.add("dropped_late", state.spool.drop_waiting(state.stream_id))
            state.ledger.lose()
            state.spool.forget(state.stream_id)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._state.stopping.wait()
        if self._ending:
            await asyncio.sleep(min(seconds, 0.5))

    def _pending(self) -> list[str]:
        return [each for each in self._state.spool.streams() if each not in self.set_aside]

    def _set_stopping(self) -> None:
        self._state.stopping.set()
        self._state.wake.set()
