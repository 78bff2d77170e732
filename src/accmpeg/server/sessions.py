"""One camera's connection: hello, access units in, results and feedback out, goodbye.

```
read ─▶ incoming ─▶ decode (worker thread) ─▶ lane of the DNN ─▶ answers, in order ─▶ write
  └─ time requests ─────────────────────────────────────────────────────────────────▶ write
```

Reading stops while too much waits, so that TCP itself slows the camera down and no queue grows.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import av
from av import VideoFrame
from starlette.websockets import WebSocket, WebSocketDisconnect

from accmpeg.errors import DecoderError
from accmpeg.protocol.wire import (
    MESSAGE_LIMIT_BYTES,
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Hello,
    Message,
    Refused,
    TimeReply,
    TimeRequest,
    Welcome,
    pack,
)
from accmpeg.server.answers import Answer, Answers, RateLimit
from accmpeg.server.cameras import CLOCK, CameraRecord, StreamMemory
from accmpeg.server.lanes import Job, Outcome
from accmpeg.server.receiving import (
    RefusalError,
    check_size,
    client_of,
    memory_refusal,
    receive,
    unpacked,
)
from accmpeg.server.streams import CodedFrame, StreamDecoder
from accmpeg.server.view import Snapshot
from accmpeg.version import __version__

if TYPE_CHECKING:
    from accmpeg.server.live import Live

__all__ = ["Session"]

FEEDBACK_S = 0.1
KEPT_KEYFRAME_BYTES = 1 << 20
"""Larger ones have no quality map on the dashboard: they are kept for nothing else."""
INCOMING_LIMIT_BYTES = 2 * MESSAGE_LIMIT_BYTES
REORDERED_UNITS = 17
"""No H.264 or H.265 decoder holds back more frames than this."""

log = logging.getLogger(__name__)


class Session:
    """A welcomed camera. Everything here runs on the event loop, but for decoding."""

    def __init__(
        self, live: "Live", socket: WebSocket, hello: Hello, parameter_sets: bytes, key: str
    ) -> None:
        self.stream_id = hello.stream_id
        self.client = client_of(socket)
        self.heard_s = time.monotonic()
        """When the camera last said something."""
        self.may_stream: Callable[[], bool] = lambda: True
        self._key = key
        self._live = live
        self._socket = socket
        self._hello = hello
        self._parameter_sets = parameter_sets
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._batcher = live.dnns[hello.dnn] if hello.dnn else live.first_dnn
        self._size_px = (hello.width_px, hello.height_px)
        self._source_size_px = (hello.source_width_px, hello.source_height_px)
        self._incoming: deque[tuple[CodedFrame, Answer | None]] = deque()
        self._incoming_bytes = 0
        self._answers = Answers()
        self._undecoded: dict[int, Answer] = {}
        self._in_flight = 0
        self._control: deque[Message] = deque(maxlen=16)
        self._feedback: Feedback | None = None
        self._changed = asyncio.Event()  # replaced by `_notify`
        self._decoding = False
        self._ending: Message | None = None
        self._gone = False
        self._reading: asyncio.Task[None] | None = None
        self._highest = -1
        self._received_bytes = 0
        self._received_us = CLOCK.now_us()
        self._needs_keyframe = False
        self._damaged_in_a_row = 0
        self._keyframes: deque[CodedFrame] = deque(maxlen=4)
        self._pixel_rate = RateLimit(live.limits.max_pixels_per_s)
        self._unit_rate = RateLimit(live.limits.max_units_per_s)

    async def run(self) -> None:
        """Until the camera or the server ends it; returns when everything that came is answered."""
        hello, live = self._hello, self._live
        if hello.probe:
            self._record, self._memory = CameraRecord(hello.camera), StreamMemory()
        else:
            self._record = live.book.record(hello.camera)
            self._memory = live.book.stream(hello.camera, hello.stream_id)
        if hello.answered is not None:
            self._memory.send_again(hello.answered)
            # What another server answered, which may be this one before its restart, is not answered again.
            self._memory.last_sequence = max(self._memory.last_sequence, hello.answered)
        self._highest = self._resume_after = self._memory.last_sequence
        self._repeated = -1
        self._join()
        self._lane = self._batcher.open_lane(
            hello.camera,
            live.limits.waiting_frames,
            None if hello.drop == "none" else live.limits.patience(),
        )
        self._decoder = StreamDecoder(hello.codec, self._parameter_sets, self._size_px)
        self._control.append(
            Welcome(
                dnn=self._batcher.name,
                task=self._batcher.dnn.card.task,
                resume_after=self._resume_after,
                software=f"accmpeg {__version__}",
            )
        )
        self._reading = asyncio.create_task(self._read())
        helpers = [asyncio.create_task(work()) for work in (self._decode, self._write, self._feed_back)]
        try:
            await asyncio.wait([self._reading, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in (self._reading, *helpers):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await self._settle()
        except Exception:
            log.exception("session failed", extra={"camera": hello.camera})
        finally:
            for task in (self._reading, *helpers):
                task.cancel()
            await asyncio.wait([self._reading, *helpers])
            self._batcher.close_lane(self._lane)
            self._decoder.close()
            self._leave()
            self._finished.set()

    def stop(self, ending: Message | None) -> None:
        """Reads no more; what has come is answered, then `ending` is said."""
        if self._ending is None:
            self._ending = ending
        if self._reading is not None:
            self._reading.cancel()

    async def yield_to_successor(self) -> None:
        """Makes way for a new connection of the same camera."""
        self._gone = True  # what it has not been told, its successor will tell
        self.stop(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._live.settings.drain_s):
                await self._finished.wait()

    def abandon(self) -> None:
        """It was never welcomed."""
        self._finished.set()

    @property
    def is_ending(self) -> bool:
        """Whether it has had its last message."""
        return self._gone or self._ending is not None

    async def finished(self) -> None:
        """Waits for the end of the connection."""
        await self._finished.wait()

    def _join(self) -> None:
        record, hello = self._record, self._hello
        record.came()
        record.dnn, record.task, record.codec = self._batcher.name, self._batcher.dnn.card.task, hello.codec
        record.width_px, record.height_px = self._size_px
        log.info(
            "camera connected",
            extra={
                "camera": hello.camera,
                "client": self.client,
                "stream": hello.stream_id,
                "dnn": record.dnn,
                "size": f"{hello.width_px}x{hello.height_px}",
                "resume_after": self._resume_after,
            },
        )

    def _leave(self) -> None:
        reason = getattr(self._ending, "reason", "connection lost")
        if self._live.sessions.get(self._key) is self:
            del self._live.sessions[self._key]
            self._live.memory.give_back(self._key)
            self._record.left(reason)
        self._record.waiting = 0
        log.info("camera left", extra={"camera": self._hello.camera, "reason": reason})

    async def _read(self) -> None:
        try:
            while True:
                # Not wait_for: in Python 3.11 it forgets a cancellation that comes together with a message.
                async with asyncio.timeout(self._live.limits.idle_s):
                    data = await receive(self._socket)
                self.heard_s = time.monotonic()
                come = unpacked(data)
                match come.message:
                    case AccessUnitMessage() as message:
                        await self._take(message, bytes(come.payload))
                    case TimeRequest(sent_us=sent_us):
                        now_us = CLOCK.utc_us()
                        self._control.append(
                            TimeReply(sent_us=sent_us, received_us=now_us, replied_us=now_us)
                        )
                        self._notify()
                    case Goodbye(reason=reason):
                        self._ending = Goodbye(reason=f"goodbye ({reason})"[:500])
                        return
                    case other:
                        raise RefusalError("protocol", f"a camera does not send {type(other).__name__}")
        except RefusalError as refusal:
            self._live.metrics.refused.labels(refusal.message.code).inc()
            self._ending = refusal.message
        except TimeoutError:
            self._ending = Refused(
                code="protocol", reason=f"nothing came for {self._live.limits.idle_s:.0f} s", retry=True
            )
        except WebSocketDisconnect:
            self._gone = True

    async def _take(self, message: AccessUnitMessage, data: bytes) -> None:
        # What came before the connection broke is decoded again, because this decoder is new and what
        # follows builds on it, but it is not answered twice.
        repeated = message.sequence <= self._resume_after
        latest = self._repeated if repeated and self._highest == self._resume_after else self._highest
        if message.sequence <= latest:
            raise RefusalError("protocol", f"sequence {message.sequence} came after {latest}")
        if message.size_px is not None:
            check_size(self._live.limits, message.size_px)
            pixels = message.size_px[0] * message.size_px[1]
            if not self._live.memory.take(self._key, pixels):
                raise memory_refusal(self._live.memory, pixels)
            self._size_px = message.size_px
            self._record.width_px, self._record.height_px = message.size_px
        self._received_bytes += len(data)
        self._received_us = CLOCK.now_us()
        answer = None
        if repeated:
            self._repeated = message.sequence
        else:
            self._highest = self._memory.last_sequence = message.sequence
            self._record.count_frame(len(data))
            self._record.count_stages(message.camera_ms, "camera ")
            answer = Answer(message)
            self._answers.expect(answer)
        unit = CodedFrame(message.sequence, data, message.is_keyframe, self._size_px)
        self._incoming.append((unit, answer))
        self._incoming_bytes += len(data)
        self._record.waiting = len(self._answers)
        self._notify()
        now_s = time.monotonic()
        pixels = self._size_px[0] * self._size_px[1]
        pause_s = max(self._pixel_rate.wait_s(pixels, now_s), self._unit_rate.wait_s(1, now_s))
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        await self._until(self._has_room)

    def _has_room(self) -> bool:
        limits = self._live.limits
        return (
            len(self._incoming) < limits.waiting_units
            and self._incoming_bytes < INCOMING_LIMIT_BYTES
            and len(self._answers) + len(self._memory.unsent) < limits.unanswered
        )

    async def _until(self, condition: Any) -> None:
        """Waits for a condition whose every change is followed by `_notify`."""
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        # Every round of waiting has an event of its own, so that no waiter eats another's signal.
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def _decode(self) -> None:
        while True:
            await self._until(lambda: self._incoming)
            if self._hello.drop == "none":
                await self._until(lambda: self._in_flight < self._most_waiting())
            unit, answer = self._incoming.popleft()
            self._decoding = True
            await self._decode_one(unit, answer)
            self._decoding = False
            self._deliver()

    async def _decode_one(self, unit: CodedFrame, answer: Answer | None) -> None:
        self._incoming_bytes -= len(unit.data)
        started_s = time.perf_counter()
        if answer is not None:
            self._undecoded[unit.sequence] = answer
            answer.server_ms["wait"] = (started_s - answer.received_s) * 1000
        try:
            frames = await self._loop.run_in_executor(self._live.executor, self._decoder.decode, unit)
        except (DecoderError, av.FFmpegError, ValueError, MemoryError) as error:
            self._damage(str(error))
            return
        if answer is not None:
            answer.server_ms["decode"] = (time.perf_counter() - started_s) * 1000
        if self._decoder.waits_for_keyframe:
            self._undecodable()
            self._want_keyframe()
        elif frames:
            self._damaged_in_a_row = 0
            self._needs_keyframe = False
            self._record.error = ""
        if unit.is_keyframe and len(unit.data) <= KEPT_KEYFRAME_BYTES:
            self._keyframes.append(unit)
        self._infer(frames)
        while len(self._undecoded) > REORDERED_UNITS:
            self._undecoded.pop(next(iter(self._undecoded))).drop("undecodable")

    def _damage(self, reason: str) -> None:
        self._record.decode_errors += 1
        self._record.error = reason
        self._damaged_in_a_row += 1
        self._undecodable()
        self._want_keyframe()
        if self._damaged_in_a_row >= self._live.limits.damaged_in_a_row:
            self._live.metrics.refused.labels("damaged").inc()
            self.stop(
                Refused(code="damaged", reason=f"{self._damaged_in_a_row} times: {reason}"[:500], retry=True)
            )

    def _undecodable(self) -> None:
        for answer in self._undecoded.values():
            answer.drop("undecodable")
        self._undecoded.clear()

    def _want_keyframe(self) -> None:
        if not self._needs_keyframe:
            self._needs_keyframe = True
            self._tell()

    def _infer(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            answer = self._undecoded.pop(frame.pts if frame.pts is not None else -1, None)
            if answer is None:
                continue
            self._in_flight += 1
            self._lane.capacity = self._most_waiting()

            def finish(outcome: Outcome, answer: Answer = answer, frame: VideoFrame = frame) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody is left to tell
                    self._loop.call_soon_threadsafe(self._inferred, answer, frame, outcome)

            self._batcher.submit(self._lane, Job(frame, self._source_size_px, finish))

    def _most_waiting(self) -> int:
        return self._live.memory.waiting_frames(self._key, self._live.limits.waiting_frames)

    def _inferred(self, answer: Answer, frame: VideoFrame, outcome: Outcome) -> None:
        self._in_flight -= 1
        answer.finish(outcome, frame)
        self._deliver()

    def _deliver(self) -> None:
        for answer in self._answers.ready():
            self._memory.unsent.append((answer.message.sequence, answer.packed()))
            if not self._hello.probe:
                self._live.answered(self._record, answer, self._stream_facts(), self._snapshot)
        self._record.waiting = len(self._answers)
        self._notify()

    def _stream_facts(self) -> dict[str, Any]:
        return {
            "camera": self._hello.camera,
            "stream_id": self._hello.stream_id,
            "dnn": self._batcher.name,
            "task": self._record.task,
            "time_base": list(self._hello.time_base),
            "size_px": list(self._source_size_px),
        }

    def _snapshot(self, frame: VideoFrame, event: dict[str, Any], with_map: bool) -> Snapshot:
        keyframe = None
        if with_map and self._hello.codec == "h264":
            # The picture may be older than the newest keyframe: it waited for the DNN.
            keyframe = next((k for k in reversed(self._keyframes) if k.sequence <= event["sequence"]), None)
        return Snapshot(frame, event, keyframe, self._parameter_sets)

    def _tell(self) -> None:
        self._feedback = Feedback(
            highest_sequence=self._highest,
            received_bytes=self._received_bytes,
            received_us=self._received_us,
            waiting=len(self._answers),
            needs_keyframe=self._needs_keyframe,
        )
        self._notify()

    async def _feed_back(self) -> None:
        told: tuple[int, bool] | None = None
        quiet_s = 0.0
        while True:
            await asyncio.sleep(FEEDBACK_S)
            quiet_s += FEEDBACK_S
            if told != (self._received_bytes, self._needs_keyframe) or quiet_s >= 1:
                told, quiet_s = (self._received_bytes, self._needs_keyframe), 0.0
                self._tell()

    async def _write(self) -> None:
        while True:
            await self._until(
                lambda: (
                    not self._gone and (self._control or self._memory.unsent or self._feedback is not None)
                )
            )
            if self._control:
                data = pack(self._control.popleft())
            elif self._memory.unsent:
                data = self._memory.next_unsent(keep=self._hello.drop == "none")
            else:
                assert self._feedback is not None
                data, self._feedback = pack(self._feedback), None
            try:
                async with asyncio.timeout(self._live.limits.send_s):
                    await self._socket.send_bytes(data)
            except (WebSocketDisconnect, RuntimeError, TimeoutError):
                self._gone = True
                self.stop(None)
            self._notify()

    async def _settle(self) -> None:
        """Everything that came is answered; the camera hears it, and why it ends, if it is still there."""

        def all_said() -> bool:
            heard = self._gone or not (self._memory.unsent or self._control)
            return not self._answers and heard

        async def finish_all() -> None:
            await self._until(lambda: not self._incoming and not self._decoding)
            for frame in await self._loop.run_in_executor(self._live.executor, self._decoder.flush):
                self._infer([frame])
            self._undecodable()
            self._deliver()
            await self._until(all_said)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._live.settings.drain_s):
                await finish_all()
        if not self._gone:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(2.0):
                    if self._ending is not None:
                        await self._socket.send_bytes(pack(self._ending))
                    await self._socket.close(1008 if isinstance(self._ending, Refused) else 1000)
