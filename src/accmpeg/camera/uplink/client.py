"""The camera's side of the wire: connects for ever, sends what the spool holds, takes results.

```
connect ─▶ hello ─▶ welcome ─▶ ┌ send: spool ─▶ window ─▶ access units
   ▲                           ├ receive: results, feedback, clock
   │ backoff 1 s … 30 s        └ ask the time
   └──────────── anything that breaks
```

Order of one camera: what an earlier run of it left in the spool goes first, as the stream that it was; then
this run's frames by their sequence, the oldest unanswered first. Live frames queue behind a backlog, which
ends because the live stream takes only half of the link meanwhile. After a reconnection sending begins at the
keyframe before the first frame that the server has not had, for its decoder starts afresh; a result that
comes twice is passed on once.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from accmpeg.camera.outputs import LiveResult
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.address import ServerAddress, connection_problem
from accmpeg.camera.uplink.clock import ClockSync
from accmpeg.camera.uplink.spool import Spool
from accmpeg.errors import LinkError, WireError
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.backoff import Backoff
from accmpeg.protocol.wire import (
    MESSAGE_LIMIT_BYTES,
    SUBPROTOCOL,
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Message,
    Refused,
    ResultMessage,
    TimeReply,
    TimeRequest,
    Unpacked,
    Welcome,
    pack,
    unpack,
)

__all__ = ["CameraClient"]

_ANSWER_TIMEOUT_S = 10.0
_PING_EVERY_S = 5.0
_DEAD_AFTER_S = 10.0
_TIME_BURST = 4
_TIME_BURST_EVERY_S = 0.2
_TIME_EVERY_S = 5.0
_SEND_BUFFER_BYTES = 32 << 10
_LATE_AFTER_US = 2_000_000
_LAST_RESULTS_S = 2.0

_EXPECTED = (OSError, WebSocketException, WireError)

log = logging.getLogger(__name__)


@dataclass
class _Session:
    """One connection: `stream_id` is this run's, or that of an earlier one whose frames are sent late."""

    socket: ClientConnection
    stream_id: str
    live: bool
    resume_after: int = -1
    """What the server has had; such frames only go again for its decoder, and are not acknowledged."""
    leaving: bool = False
    """The camera has said goodbye: so may the server."""


class CameraClient:
    """Runs in an event loop of its own; `wake` and `stop` may be called from any thread.

    `hello` makes this run's Hello and its parameter sets. Raises LinkError from `run` where coming back can't
    help and the server never took this camera.
    """

    def __init__(
        self,
        address: ServerAddress,
        spool: Spool,
        adaptation: Adaptation,
        clock: SteadyClock,
        stats: CameraStats,
        *,
        stream_id: str,
        keeps: bool,
        on_result: Callable[[LiveResult], None],
        request_keyframe: Callable[[], None],
    ) -> None:
        self.connected = False
        self.sync = ClockSync()
        self._address = address
        self._spool = spool
        self._adaptation = adaptation
        self._clock = clock
        self._stats = stats
        self._stream_id = stream_id
        self._keeps = keeps
        self._on_result = on_result
        self._request_keyframe = request_keyframe
        self._ever_welcomed = False
        self._answered: dict[str, int] = {}
        self._had: dict[str, int] = {}
        """Of each earlier run's stream, the last frame that the server had already had: answered then."""
        self._late: set[int] = set()
        self._sent: dict[int, tuple[dict[str, float], int]] = {}
        """Of each frame that waits for its result: what each stage took, and when it was captured."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ending = False

    def wake(self) -> None:
        """Something is in the spool."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """No more frames come: send what is left, say goodbye, and end."""
        self._ending = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_stopping)

    def abort(self) -> None:
        """Ends at once."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)

    @property
    def is_drained(self) -> bool:
        """Whether every frame of the spool has been sent and answered."""
        return all(not self._has_unanswered(stream_id) for stream_id in self._spool.streams())

    async def run(self) -> None:
        """Connects, and connects again, until `stop` and all is sent."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._ending:
            self._set_stopping()
        backoff = Backoff(random.random)
        while True:
            left = [each for each in self._spool.streams() if each != self._stream_id]
            stream_id = left[0] if left else self._stream_id
            try:
                await self._session(stream_id)
                held_up = False
            except (OSError, WebSocketException, WireError, ExceptionGroup) as error:
                if isinstance(error, ExceptionGroup) and error.split(_EXPECTED)[1] is not None:
                    raise
                held_up = not self.connected
                self._lost(stream_id, error)
            if self._ending and (self.is_drained or not self._keeps):
                return
            if self._ending and self._ever_welcomed is False:
                return
            if not held_up:
                backoff.succeeded()
            if held_up or stream_id == self._stream_id:
                await self._pause(backoff.failed())

    def _lost(self, stream_id: str, error: Exception) -> None:
        self.connected = False
        problem = connection_problem(error, self._address)
        log.warning("no connection", extra={"server": self._address.shown, "reason": problem.reason})
        self._stats.set(connected=False, last_problem=problem.reason)
        if problem.final and not self._ever_welcomed:
            raise LinkError(problem.reason) from None
        if not self._keeps:
            lost = self._spool.drop_waiting(self._stream_id)
            self._stats.add("dropped_late", lost)
            self._stats.add("dropped_lost", len(self._sent))
            self._sent.clear()
            self._spool.forget(self._stream_id)
        elif problem.final and stream_id != self._stream_id:
            log.error("frames of an earlier run are refused", extra={"stream": stream_id})
            self._spool.forget(stream_id)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._ending:
            await asyncio.sleep(min(seconds, 0.5))

    async def _session(self, stream_id: str) -> None:
        live = stream_id == self._stream_id
        held = self._spool.current_hello() if live else self._spool.hello_of(stream_id)
        if held is None:
            return  # the encoder's thread has just dropped the last of it
        hello = held.message
        if self._keeps:
            # Results were lost with the connection, but those of an earlier run are not this one's to tell.
            answered = self._answered.get(stream_id, -1 if live else self._had.get(stream_id))
            hello = hello.model_copy(update={"answered": answered})
        async with connect(
            self._address.url,
            ssl=self._address.tls(),
            proxy=self._address.proxy_url(),
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            additional_headers=self._address.headers(),
            user_agent_header=None,
            compression=None,
            open_timeout=_ANSWER_TIMEOUT_S,
            ping_interval=_PING_EVERY_S,
            ping_timeout=_DEAD_AFTER_S,
            close_timeout=2.0,
            max_size=MESSAGE_LIMIT_BYTES,
            write_limit=_SEND_BUFFER_BYTES,
        ) as socket:
            self._address.tune(socket.transport.get_extra_info("socket"))
            session = _Session(socket, stream_id, live)
            await socket.send(pack(hello, held.payload))
            await self._welcome(session)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._receive(session)),
                    group.create_task(self._ask_time(session)),
                ]
                await group.create_task(self._send(session))
                if not live:
                    # The server may still have results that the earlier run has not been sent.
                    await asyncio.wait(tasks[:1], timeout=_LAST_RESULTS_S)
                for task in tasks:
                    task.cancel()

    async def _welcome(self, session: _Session) -> None:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            data = await session.socket.recv()
        message = _unpacked(data)
        if isinstance(message, Refused):
            raise _refusal(message)
        if not isinstance(message, Welcome):
            raise WireError(f"the server answered the hello with {type(message).__name__}")
        self._ever_welcomed = self.connected = True
        self._adaptation.connected()
        self._stats.add("connections")
        self._stats.set(connected=True, dnn=message.dnn, last_problem=None)
        log.info("connected", extra={"server": self._address.shown, "dnn": message.dnn})
        session.resume_after = message.resume_after
        answered = self._answered.get(session.stream_id, -1)
        if not session.live:
            self._had.setdefault(session.stream_id, message.resume_after)
        if self._keeps:
            after = max(message.resume_after, answered) if message.resume_after >= 0 else answered
            self._spool.rewind(session.stream_id, after, to_keyframe=True)
        if session.live and not (self._keeps and self._spool.waiting_frames(session.stream_id)):
            self._request_keyframe()

    async def _send(self, session: _Session) -> None:
        """Sends until there is nothing more to come, then waits for the last answers and says goodbye."""
        while True:
            unit = None
            if self._adaptation.may_send():
                unit = self._spool.next(session.stream_id)
            if unit is not None:
                await self._send_unit(session, unit)
                continue
            nothing_left = not self._spool.waiting_frames(session.stream_id)
            if nothing_left and (not session.live or self._ending):
                break
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._wake.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                while self._has_unanswered(session.stream_id):
                    self._wake.clear()
                    await self._wake.wait()
        newest = self._spool.newest_sequence(session.stream_id)
        had_before = not session.live and newest is not None and newest <= session.resume_after
        if had_before or not self._has_unanswered(session.stream_id):
            self._spool.forget(session.stream_id)
        session.leaving = True
        await session.socket.send(pack(Goodbye(reason="the camera ends" if session.live else "all sent")))

    async def _send_unit(self, session: _Session, unit: Unpacked) -> None:
        message = unit.message
        assert isinstance(message, AccessUnitMessage)
        captured_us = message.captured_us
        late = self._keeps and self._clock.now_us() - message.encoded_us > _LATE_AFTER_US
        if session.live:  # an earlier run's times are of a clock that is gone
            message = message.model_copy(
                update={
                    "captured_us": self._clock.utc_us(captured_us),
                    "encoded_us": self._clock.utc_us(message.encoded_us),
                }
            )
        if late or not session.live:
            message = message.model_copy(update={"spooled": True})
            self._late.add(message.sequence)
        data = pack(message, unit.payload)
        if message.sequence > session.resume_after:
            self._adaptation.sent(self._clock.now_ms(), message.sequence, len(unit.payload))
        self._sent[message.sequence] = message.camera_ms, captured_us
        await session.socket.send(data)
        self._stats.add("sent")
        self._stats.add("bytes_sent", len(data))

    async def _receive(self, session: _Session) -> None:
        async for data in session.socket:
            message = _unpacked(data)
            now_us = self._clock.now_us()
            if isinstance(message, ResultMessage):
                self._take_result(session, message, now_us)
            elif isinstance(message, Feedback):
                self._adaptation.acknowledged(
                    now_us / 1000, message.highest_sequence, message.received_us / 1000
                )
                if message.needs_keyframe and session.live:
                    self._request_keyframe()
                self._wake.set()
            elif isinstance(message, TimeReply):
                self.sync.add(message.sent_us, message.received_us, message.replied_us, now_us)
                estimate = self.sync.estimate(now_us)
                if estimate is not None:
                    # Told of the clock as it is set, though measured against the one that never jumps.
                    offset_us = estimate.offset_us + now_us - self._clock.utc_us(now_us)
                    self._stats.set(clock_offset_us=offset_us, clock_error_us=estimate.error_us)
            elif isinstance(message, Refused):
                raise _refusal(message)
            elif isinstance(message, Goodbye):
                if session.leaving:
                    return
                raise LinkError(f"the server said goodbye: {message.reason}")
            else:
                raise WireError(f"the server sent a {type(message).__name__}, which only cameras send")
        if not session.leaving:
            raise LinkError("the server closed the connection")

    def _take_result(self, session: _Session, message: ResultMessage, now_us: int) -> None:
        stream_id = session.stream_id
        if message.sequence <= self._answered.get(stream_id, -1):
            self._stats.add("repeated_results")
            return
        self._answered[stream_id] = message.sequence
        self._spool.acknowledge(stream_id, message.sequence)
        self._adaptation.answered(message.sequence)
        stages, captured_us = self._sent.get(message.sequence, ({}, None))
        for sequence in [each for each in self._sent if each <= message.sequence]:
            del self._sent[sequence]
        spooled = message.sequence in self._late
        self._late.discard(message.sequence)
        received_us = self._clock.utc_us(now_us)
        # By the clock that never jumps, where this run captured the frame and has not forgotten it.
        delay_us = received_us - message.captured_us if captured_us is None else now_us - captured_us
        delay_ms = delay_us / 1000
        self._stats.add("results")
        if message.dropped is not None:
            self._stats.add("dropped_server")
        elif not spooled:
            self._stats.delay(delay_ms)
        self._on_result(
            LiveResult(
                stream_id=stream_id,
                sequence=message.sequence,
                pts=message.pts,
                captured_us=message.captured_us,
                received_us=received_us,
                delay_ms=round(delay_ms, 3),
                spooled=spooled,
                result=message.result,
                dropped=message.dropped,
                camera_ms=stages,
                server_ms=message.server_ms,
            )
        )
        self._wake.set()

    async def _ask_time(self, session: _Session) -> None:
        for count in range(1 << 62):
            await session.socket.send(pack(TimeRequest(sent_us=self._clock.now_us())))
            await asyncio.sleep(_TIME_BURST_EVERY_S if count < _TIME_BURST else _TIME_EVERY_S)

    def _has_unanswered(self, stream_id: str) -> bool:
        newest = self._spool.newest_sequence(stream_id)
        return newest is not None and newest > max(
            self._answered.get(stream_id, -1), self._had.get(stream_id, -1)
        )

    def _set_stopping(self) -> None:
        self._stopping.set()
        self._wake.set()


def _unpacked(data: str | bytes) -> Message:
    if isinstance(data, str):
        raise WireError("the server sent text, not binary messages: is it an AccMPEG server?")
    return unpack(data).message


def _refusal(message: Refused) -> LinkError:
    return LinkError(
        f"the server refused the stream ({message.code}): {message.reason}", final=not message.retry
    )
