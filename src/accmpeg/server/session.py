"""One pushed camera's connection: hello, access units in, results and feedback out, goodbye.

```
read ─▶ intake (decode in a worker thread) ─▶ line ─▶ outbox
  └─ time requests ──────────────────────────────────▶ outbox
```

Reading stops while too much waits, so that TCP itself slows the camera down and no queue grows.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from accmpeg.errors import WireError
from accmpeg.protocol.wire import (
    VERSION,
    AccessUnitMessage,
    Feedback,
    Goodbye,
    Hello,
    Message,
    Refused,
    TimeReply,
    TimeRequest,
    Unpacked,
    Welcome,
    pack,
    unpack,
)
from accmpeg.quiet import FewRepeats
from accmpeg.server.cameras import CLOCK, CameraRecord
from accmpeg.server.core import Core
from accmpeg.server.decoding import ReceivedUnit
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.intake import Intake
from accmpeg.server.line import Answer, FrameLine, Stream
from accmpeg.server.outbox import Outbox
from accmpeg.server.refusal import RefusalError, check_size
from accmpeg.version import __version__

__all__ = ["Session", "client_of", "receive"]

FEEDBACK_S = 0.1
CLOSE_S = 2.0
"""For the last word to a camera, after `drain_s`."""

log = logging.getLogger(__name__)
log.addFilter(FewRepeats())


async def receive(socket: WebSocket) -> Unpacked:
    """The next message; raises `WebSocketDisconnect`, or `RefusalError` that says what is wrong with it."""
    event = await socket.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1006))
    data = event.get("bytes")
    if data is None:
        raise RefusalError("protocol", "messages are binary, a text came")
    try:
        return unpack(data)
    except WireError as error:
        other_version = data[:2] == b"AM" and len(data) > 2 and data[2] != VERSION
        raise RefusalError("version" if other_version else "protocol", str(error)) from None


def client_of(connection: HTTPConnection) -> str:
    """The address at the other end."""
    return connection.client.host if connection.client is not None else ""


class Session:
    """A welcomed camera's connection. Event loop only.

    Args:
        core: What the cameras share.
        socket: The camera's.
        hello: What it said first.
        parameter_sets: What came with it; may be empty.
        key: Its place among the sessions and its share of the memory.
        may_stream: Whether its token still holds.
    """

    def __init__(
        self,
        core: Core,
        socket: WebSocket,
        hello: Hello,
        parameter_sets: bytes,
        *,
        key: str,
        may_stream: Callable[[], bool],
    ) -> None:
        self.hello = hello
        self.key = key
        self.may_stream = may_stream
        self.client = client_of(socket)
        self.heard_s = time.monotonic()
        """When the camera last said something."""
        self.finished = asyncio.Event()
        """Set by who admitted it, when its place is free again."""
        self._core = core
        self._socket = socket
        self._parameter_sets = parameter_sets
        self._ending: Message | None = None
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the camera or the server ends it; returns when everything that came is answered."""
        self._open()
        work = [asyncio.create_task(each()) for each in (self._read, self._intake.run, self._outbox.run)]
        work.append(asyncio.create_task(self._feed_back()))
        self._reading = work[0]
        if self.is_ending:  # already while it waited for the end of the connection before it
            self._reading.cancel()
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            self._reading.cancel()
            for task in work:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await self._settle()
        except Exception:
            log.exception("session failed", extra={"camera": self.hello.camera})
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            if self._line.stream.every_frame:
                self._memory.ask_again(self._line.abandon())
            self._line.close()
            self._intake.close()
            self._line.record.waiting = 0
            log.info("camera left", extra={"camera": self.hello.camera, "reason": self.end_reason})

    def stop(self, ending: Message | None) -> None:
        """Reads no more; what has come is answered, then `ending` is said."""
        if self._ending is None:
            self._ending = ending
        if self._reading is not None:
            self._reading.cancel()

    def offer_anew(self, workers: DnnWorkers) -> None:
        """Another DNN is in place there: this camera hears of its offer, if it is one of its cameras."""
        if self._reading is not None and workers is self._workers:
            self._outbox.offer(self._core.offer_of(workers))

    async def yield_to_successor(self) -> None:
        """Makes way for a new connection of the same camera."""
        if self._reading is not None:
            self._outbox.leave()  # what it has not been told, its successor will tell
        self.stop(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._core.settings.drain_s + CLOSE_S + 1):
                await self.finished.wait()

    @property
    def is_ending(self) -> bool:
        """Whether it has had its last message."""
        return self._ending is not None or (self._reading is not None and self._outbox.gone)

    @property
    def end_reason(self) -> str:
        """Why the camera has left, when it has."""
        return getattr(self._ending, "reason", "connection lost")

    def _open(self) -> None:
        hello, core = self.hello, self._core
        record = CameraRecord(hello.camera) if hello.probe else core.book.record(hello.camera)
        self._memory = record.stream(hello.stream_id)
        if hello.answered is not None:
            self._memory.send_again(hello.answered)
        self._resume_after = self._memory.last_sequence
        self._repeated, self._received_bytes, self._received_us = -1, 0, CLOCK.now_us()
        workers = self._workers = core.dnns[hello.dnn] if hello.dnn else core.dnns.first
        every_frame = hello.drop == "none"
        stream = Stream(
            camera=hello.camera,
            stream_id=hello.stream_id,
            time_base=hello.time_base,
            source_size_px=(hello.source_width_px, hello.source_height_px),
            frame_rate=hello.frame_rate,
            every_frame=every_frame,
            publishes=not hello.probe,
        )
        self._line = FrameLine(core, self.key, stream, (hello.width_px, hello.height_px), workers, record)
        self._outbox = Outbox(
            self._socket, self._memory, self._line.changes, keep=every_frame, send_s=core.limits.send_s
        )
        self._intake = Intake(
            core,
            self._line,
            hello.codec,
            self._parameter_sets,
            ask_keyframe=self._tell,
            refuse=self._refuse,
        )
        self._line.on_answer = self._outbox.answer
        self._line.keyframe_of = self._intake.keyframe_of
        record.codec = hello.codec
        log.info(
            "camera connected",
            extra={
                "camera": hello.camera,
                "client": self.client,
                "stream": hello.stream_id,
                "dnn": workers.name,
                "size": f"{hello.width_px}x{hello.height_px}",
                "resume_after": self._resume_after,
            },
        )
        self._outbox.say(
            Welcome(
                dnn=workers.name,
                task=workers.dnn.card.task,
                resume_after=self._resume_after,
                software=f"accmpeg {__version__}",
                offer=core.offer_of(workers),
            )
        )

    async def _read(self) -> None:
        idle_s = self._core.limits.idle_s
        try:
            while True:
                # Not wait_for: in Python 3.11 it forgets a cancellation that comes together with a message.
                async with asyncio.timeout(idle_s):
                    come = await receive(self._socket)
                self.heard_s = time.monotonic()
                match come.message:
                    case AccessUnitMessage() as message:
                        await self._take(message, bytes(come.payload))
                    case TimeRequest(sent_us=sent_us):
                        now_us = CLOCK.utc_us()
                        reply = TimeReply(sent_us=sent_us, received_us=now_us, replied_us=now_us)
                        self._outbox.tell_time(reply)
                        await self._line.pause(frames=0)
                    case Goodbye(reason=reason):
                        self._ending = Goodbye(reason=f"goodbye ({reason})"[:500])
                        return
                    case other:
                        raise RefusalError("protocol", f"a camera does not send {type(other).__name__}")
        except RefusalError as refusal:
            self._refuse(refusal)
        except TimeoutError:
            self._ending = Refused(code="protocol", reason=f"nothing came for {idle_s:.0f} s", retry=True)
        except WebSocketDisconnect:
            self._outbox.leave()

    async def _take(self, message: AccessUnitMessage, data: bytes) -> None:
        line, memory, sequence = self._line, self._memory, message.sequence
        # What came before the connection broke is decoded again, because this decoder is new and what
        # follows builds on it, but it is not answered twice.
        repeated = sequence <= self._resume_after
        only_repeated = repeated and memory.last_sequence == self._resume_after
        latest = self._repeated if only_repeated else memory.last_sequence
        if sequence <= latest:
            raise RefusalError("protocol", f"sequence {sequence} came after {latest}")
        if message.size_px is not None:
            check_size(self._core.limits, message.size_px)
            line.resize(message.size_px)
        self._received_bytes += len(data)
        self._received_us = CLOCK.now_us()
        answer = None
        if repeated:
            self._repeated = sequence
        else:
            memory.last_sequence = sequence
            answer = Answer(
                sequence, message.pts, message.captured_us, message.spooled, dict(message.camera_ms)
            )
            line.expect(answer, len(data))
        self._intake.put(ReceivedUnit(sequence, data, message.is_keyframe, line.size_px), answer)
        await line.pause(frames=1)
        await line.changes.until(self._has_room)

    def _has_room(self) -> bool:
        unanswered = self._line.unanswered + len(self._memory.unsent)
        return self._intake.has_room and unanswered < self._core.limits.unanswered

    def _refuse(self, refusal: RefusalError) -> None:
        self._core.metrics.refused.labels(refusal.message.code).inc()
        self.stop(refusal.message)

    def _tell(self) -> None:
        self._outbox.tell(
            Feedback(
                highest_sequence=self._memory.last_sequence,
                received_bytes=self._received_bytes,
                received_us=self._received_us,
                waiting=self._line.unanswered,
                needs_keyframe=self._intake.needs_keyframe,
                results_per_s=self._line.results_per_s(),
            )
        )

    async def _feed_back(self) -> None:
        told: tuple[object, ...] | None = None
        quiet_s = 0.0
        while True:
            await asyncio.sleep(FEEDBACK_S)
            quiet_s += FEEDBACK_S
            news = (self._received_bytes, self._intake.needs_keyframe)
            if told != news or quiet_s >= 1:
                told, quiet_s = news, 0.0
                self._tell()

    async def _settle(self) -> None:
        """Everything that came is answered; the camera hears it, and why it ends, if it is still there."""
        line, outbox = self._line, self._outbox
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._core.settings.drain_s):
                await self._intake.finish()
                await line.settled()
                await line.changes.until(lambda: outbox.is_heard)
        if not outbox.gone:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    if self._ending is not None:
                        await self._socket.send_bytes(pack(self._ending))
                    await self._socket.close(1008 if isinstance(self._ending, Refused) else 1000)
