"""One connection to the server, from the hello to the goodbye.

```
hello ─▶ welcome ─▶ ┌ send: spool ─▶ window ─▶ access units
                    ├ receive: results, feedback, clock
                    └ ask the time
```
After a reconnection sending begins at the keyframe before the first frame that the server has not had, for
its decoder starts afresh.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection

from accmpeg.camera.outputs import FrameResult
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.clock import ClockSync
from accmpeg.camera.uplink.handshake import ANSWER_TIMEOUT_S
from accmpeg.camera.uplink.ledger import Ledger
from accmpeg.camera.uplink.pace import lag_ms
from accmpeg.camera.uplink.spool import Spool
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.errors import LinkError, WireError
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol import wire
from accmpeg.quiet import FewRepeats

__all__ = ["Connection", "LinkState"]

SILENT_S = 7.0
"""A server gives feedback every second. Pings may be answered by a proxy before it, or late by a busy one."""

_TIME_BURST = 4
_TIME_BURST_EVERY_S = 0.2
_TIME_EVERY_S = 5.0
_LATE_AFTER_US = 2_000_000
_HELD_BACK = 16  # frames: no decoder of H.264 or H.265 puts more of them in order
_LAST_RESULTS_S = 2.0

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())  # a server may change its offers as often as it likes


@dataclass(frozen=True)
class LinkState:
    """What all connections of one run of the camera have in common.

    `keeps`: frames are kept until they are answered.
    """

    stream_id: str
    keeps: bool
    spool: Spool
    adaptation: Adaptation
    ledger: Ledger
    sync: ClockSync
    clock: SteadyClock
    stats: CameraStats
    wanted_keyframe: threading.Event
    on_result: Callable[[FrameResult], None]
    on_offer: Callable[[wire.Offer | None], None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to send, or an answer has come."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no more frames will come."""

    def has_unanswered(self, stream_id: str, *, but: int = 0) -> bool:
        """Whether a frame in the spool waits for its answer, beside the last `but`."""
        newest = self.spool.newest_sequence(stream_id)
        return newest is not None and not self.ledger.covers(stream_id, newest - but)


class Connection:
    """Carries one stream: this run's own, or what an earlier run left in the spool.

    Raises LinkError for a refusal or an unexpected end, WireError for a server that breaks the protocol.
    """

    def __init__(self, socket: ClientConnection, stream_id: str, state: LinkState) -> None:
        self._socket = socket
        self._stream_id = stream_id
        self._own = stream_id == state.stream_id
        self._state = state
        self._resume_after = -1
        """What the server has had; such frames only go again for its decoder, and are not acknowledged."""
        self._leaving = False
        """The camera has said goodbye: so may the server."""
        self._heard_all = False
        """The server has said its last word."""
        self._newest_keyframe = -1
        """Of those sent, its sequence."""
        self._asked_keyframe = False
        """The server wanted one, and it has not been sent yet."""

    async def greet(self, hello: wire.Unpacked) -> wire.Welcome:
        """Says hello and begins where the server wants to go on."""
        state, stream_id = self._state, self._stream_id
        answered = state.ledger.answered.get(stream_id, -1)
        message = hello.message
        if state.keeps:
            # Results were lost with the connection, but those of an earlier run are not this one's to tell.
            had = state.ledger.had.get(stream_id)
            told = answered if self._own or stream_id in state.ledger.answered else had
            message = message.model_copy(update={"answered": told})
        await self._socket.send(wire.pack(message, hello.payload))
        async with self._patience(ANSWER_TIMEOUT_S):
            welcome = _unpacked(await self._socket.recv())
        if isinstance(welcome, wire.Refused):
            raise _refusal(welcome)
        if not isinstance(welcome, wire.Welcome):
            raise WireError(f"the server answered the hello with {type(welcome).__name__}")
        if self._own:
            state.on_offer(welcome.offer)
        state.adaptation.connected(state.clock.now_us() / 1000)
        self._resume_after = welcome.resume_after
        if not self._own:
            state.ledger.had.setdefault(stream_id, welcome.resume_after)
        if state.keeps:
            state.spool.rewind(stream_id, max(welcome.resume_after, answered))
        return welcome

    async def run(self) -> None:
        """Sends and receives until all is sent and answered, then says goodbye."""
        state = self._state
        # Only now: a keyframe that came before the camera counts as connected would be left out. Of frames
        # that are kept, those that wait come first, and the very first is a keyframe as it is.
        kept = state.keeps and (
            state.spool.waiting_frames(self._stream_id) or self._stream_id not in state.ledger.answered
        )
        if self._own and not kept:
            state.wanted_keyframe.set()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._receive()), group.create_task(self._ask_time())]
            await group.create_task(self._send())
            if not self._own:
                # The server may still have results that the earlier run has not been sent.
                await asyncio.wait(tasks[:1], timeout=_LAST_RESULTS_S)
            for task in tasks:
                task.cancel()

    async def _send(self) -> None:
        state, stream_id = self._state, self._stream_id
        while True:
            queued = state.spool.next(stream_id) if state.adaptation.may_send() else None
            if queued is not None:
                await self._send_unit(*queued)
                continue
            nothing_left = not state.spool.waiting_frames(stream_id)
            if nothing_left and (not self._own or state.stopping.is_set()):
                break
            state.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await state.wake.wait()
        # Only the goodbye lets the server's decoder have done with frames that it holds back.
        await self._answered(but=_HELD_BACK)
        self._leaving = True
        goodbye = wire.Goodbye(reason="the camera ends" if self._own else "all sent")
        await self._socket.send(wire.pack(goodbye))
        await self._answered(but=0)
        newest = state.spool.newest_sequence(stream_id)
        had_before = not self._own and newest is not None and newest <= self._resume_after
        if had_before or not state.has_unanswered(stream_id):
            state.spool.forget(stream_id)

    async def _answered(self, *, but: int) -> None:
        """Waits for the answers to all frames but the last few, for as long as answers come, or can come."""
        state, had = self._state, -1
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S) as patience:
                while state.has_unanswered(self._stream_id, but=but) and not self._heard_all:
                    if (results := state.stats.get("results")) != had:
                        had = results
                        patience.reschedule(loop.time() + ANSWER_TIMEOUT_S)
                    state.wake.clear()
                    await state.wake.wait()

    async def _send_unit(self, sequence: int, unit: TimedUnit) -> None:
        state, clock = self._state, self._state.clock
        late = not self._own or (state.keeps and clock.now_us() - unit.encoded_us > _LATE_AFTER_US)
        # Told of the clock as it is set now; an earlier run's times are of a clock that is gone.
        told_us = clock.utc_us if self._own else int
        message = wire.AccessUnitMessage(
            sequence=sequence,
            pts=unit.pts,
            is_keyframe=unit.is_keyframe,
            captured_us=told_us(unit.captured_us),
            encoded_us=told_us(unit.encoded_us),
            spooled=late,
            size_px=unit.size_px if unit.is_keyframe else None,
            camera_ms=unit.stages_ms,
        )
        if unit.is_keyframe:
            self._newest_keyframe, self._asked_keyframe = sequence, False
        data = wire.pack(message, unit.data)
        if sequence > self._resume_after:
            state.adaptation.sent(clock.now_ms(), sequence, len(unit.data))
        state.ledger.sent(self._stream_id, sequence, unit, late=late)
        await self._socket.send(data)
        state.stats.add("sent")
        state.stats.add("bytes_sent", len(data))

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._patience(SILENT_S) as patience:
            async for data in self._socket:
                patience.reschedule(loop.time() + SILENT_S)
                if self._was_last(_unpacked(data)):
                    break
        if not self._leaving:
            raise LinkError("the server closed the connection")
        self._heard_all = True
        self._state.wake.set()

    @contextlib.asynccontextmanager
    async def _patience(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """The time that the server has to speak. A silent one would not answer a closing either."""
        try:
            async with asyncio.timeout(seconds) as patience:
                yield patience
        except TimeoutError:
            self._socket.transport.abort()
            raise

    def _was_last(self, message: wire.Message) -> bool:
        """Takes a message; says whether it is the server's last."""
        state = self._state
        now_us = state.clock.now_us()
        if isinstance(message, wire.ResultMessage):
            self._take_result(message, now_us)
        elif isinstance(message, wire.Feedback):
            state.adaptation.served(now_us / 1000, message.waiting)
            state.adaptation.acknowledged(now_us / 1000, message.highest_sequence, message.received_us / 1000)
            state.adaptation.offered(message.results_per_s)
            # It says so until one has come, and one may be under way.
            wants = message.needs_keyframe and message.highest_sequence >= self._newest_keyframe
            if wants and self._own and not self._asked_keyframe:
                self._asked_keyframe = True
                state.wanted_keyframe.set()
            state.wake.set()
        elif isinstance(message, wire.TimeReply):
            self._take_time(message, now_us)
        elif isinstance(message, wire.NewOffer):
            self._take_offer(message)
        elif isinstance(message, wire.Refused):
            raise _refusal(message)
        elif isinstance(message, wire.Goodbye):
            if not self._leaving:
                raise LinkError(f"the server said goodbye: {message.reason}")
            return True
        else:
            raise WireError(f"the server sent a {type(message).__name__}, which only cameras send")
        return False

    def _take_result(self, message: wire.ResultMessage, now_us: int) -> None:
        state = self._state
        late = message.sequence <= self._resume_after
        result = state.ledger.take(self._stream_id, message, now_us, late=late)
        if result is not None:
            state.spool.acknowledge(self._stream_id, state.ledger.answered[self._stream_id])
            state.adaptation.answered(message.sequence)
            if result.result is not None and not result.spooled:
                lag = lag_ms(result.camera_ms, result.server_ms)
                now_s, took_ms = now_us / 1e6, result.delay_ms
                state.adaptation.took(now_s, now_s - took_ms / 1000, delay_ms=took_ms, lag_ms=lag)
            state.on_result(result)
            state.wake.set()

    def _take_offer(self, message: wire.NewOffer) -> None:
        state = self._state
        state.adaptation.exchanged(state.clock.now_us() / 1e6)
        try:
            offer = wire.read_offer(message)
        except WireError as error:
            state.stats.set(offer=f"refused: {error}")
            log.warning("offer refused", extra={"reason": str(error)[:500]})
            return
        if self._own:
            state.on_offer(offer)

    def _take_time(self, message: wire.TimeReply, now_us: int) -> None:
        state = self._state
        state.sync.add(message.sent_us, message.received_us, message.replied_us, now_us)
        estimate = state.sync.estimate(now_us)
        if estimate is not None:
            # Told of the clock as it is set, though measured against the one that never jumps.
            offset_us = estimate.offset_us + now_us - state.clock.utc_us(now_us)
            state.stats.set(clock_offset_us=offset_us, clock_error_us=estimate.error_us)

    async def _ask_time(self) -> None:
        for count in range(1 << 62):
            await self._socket.send(wire.pack(wire.TimeRequest(sent_us=self._state.clock.now_us())))
            await asyncio.sleep(_TIME_BURST_EVERY_S if count < _TIME_BURST else _TIME_EVERY_S)


def _unpacked(data: str | bytes) -> wire.Message:
    if isinstance(data, str):
        raise WireError("the server sent text, not binary messages: is it an AccMPEG server?")
    return wire.unpack(data).message


def _refusal(message: wire.Refused) -> LinkError:
    return LinkError(
        f"the server refused the stream ({message.code}): {message.reason}",
        final=not message.retry,
        refused=True,
    )
