"""A pushed camera's access units, from their arrival until their frames are in the line."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import av
from av import VideoFrame

from accmpeg.errors import DecoderError
from accmpeg.protocol.wire import MESSAGE_LIMIT_BYTES
from accmpeg.server.core import Core
from accmpeg.server.decoding import ReceivedUnit, StreamDecoder
from accmpeg.server.line import Answer, FrameLine
from accmpeg.server.refusal import RefusalError

__all__ = ["Intake"]

KEPT_KEYFRAME_BYTES = 1 << 20
"""Larger ones have no quality map on the dashboard: they are kept for nothing else."""
WAITING_LIMIT_BYTES = 2 * MESSAGE_LIMIT_BYTES
REORDERED_UNITS = 17
"""No H.264 or H.265 decoder holds back more frames than this."""


class Intake:
    """Units wait here, are decoded in a worker thread, and their frames find their answers. Event loop only.

    Args:
        core: What the cameras share.
        line: Where the frames go.
        codec: Of the bitstream.
        parameter_sets: Of the bitstream; may be empty.
        ask_keyframe: Called when only a keyframe can heal the stream.
        refuse: Called when the stream has been damaged too often in a row.
    """

    def __init__(
        self,
        core: Core,
        line: FrameLine,
        codec: str,
        parameter_sets: bytes,
        *,
        ask_keyframe: Callable[[], None],
        refuse: Callable[[RefusalError], None],
    ) -> None:
        self.needs_keyframe = False
        self._core = core
        self._line = line
        self._codec = codec
        self._parameter_sets = parameter_sets
        self._ask_keyframe = ask_keyframe
        self._refuse = refuse
        self._decoder = StreamDecoder(codec, parameter_sets, line.size_px)
        self._decoding = False
        self._waiting: deque[tuple[ReceivedUnit, Answer | None]] = deque()
        self._waiting_bytes = 0
        self._undecoded: dict[int, Answer] = {}
        """Answers whose frames are in the decoder, by sequence."""
        self._damaged_in_a_row = 0
        self._keyframes: deque[ReceivedUnit] = deque(maxlen=4)

    @property
    def has_room(self) -> bool:
        return (
            len(self._waiting) < self._core.limits.waiting_units and self._waiting_bytes < WAITING_LIMIT_BYTES
        )

    def put(self, unit: ReceivedUnit, answer: Answer | None) -> None:
        """A unit waits for the decoder; without an answer its frame was answered before."""
        self._waiting.append((unit, answer))
        self._waiting_bytes += len(unit.data)
        self._line.changes.notify()

    async def run(self) -> None:
        """Decodes what comes, until it is cancelled."""
        line = self._line
        while True:
            await line.changes.until(lambda: self._waiting)
            if line.stream.every_frame:
                await line.changes.until(lambda: line.has_room)
            unit, answer = self._waiting.popleft()
            self._waiting_bytes -= len(unit.data)
            self._decoding = True
            await self._decode(unit, answer)
            self._decoding = False
            line.deliver()

    async def finish(self) -> None:
        """Returns, while `run` runs, when all that has come is in the line; the decoder takes no more."""
        await self._line.changes.until(lambda: not self._waiting and not self._decoding)
        loop = asyncio.get_running_loop()
        self._submit(await loop.run_in_executor(self._core.executor, self._decoder.flush))
        self._drop_undecoded()
        self._line.deliver()

    def keyframe_of(self, sequence: int) -> tuple[ReceivedUnit, bytes] | None:
        """The keyframe at or before a frame, and parameter sets, where QPs can be read from it."""
        # The picture may be older than the newest keyframe: it waited for the DNN.
        found = next((unit for unit in reversed(self._keyframes) if unit.sequence <= sequence), None)
        return (found, self._parameter_sets) if found is not None and self._codec == "h264" else None

    def close(self) -> None:
        self._decoder.close()

    async def _decode(self, unit: ReceivedUnit, answer: Answer | None) -> None:
        started_s = time.perf_counter()
        if answer is not None:
            self._undecoded[unit.sequence] = answer
            answer.server_ms["wait"] = (started_s - answer.received_s) * 1000
        loop = asyncio.get_running_loop()
        try:
            frames = await loop.run_in_executor(self._core.executor, self._decoder.decode, unit)
        except (DecoderError, av.FFmpegError, ValueError, MemoryError) as error:
            self._damaged(str(error))
            return
        if answer is not None:
            answer.server_ms["decode"] = (time.perf_counter() - started_s) * 1000
        if self._decoder.waits_for_keyframe:
            self._drop_undecoded()
            self._want_keyframe()
        elif frames:
            self._damaged_in_a_row = 0
            self.needs_keyframe = False
            self._line.record.error = ""
        if unit.is_keyframe and len(unit.data) <= KEPT_KEYFRAME_BYTES:
            self._keyframes.append(unit)
        self._submit(frames)
        while len(self._undecoded) > REORDERED_UNITS:
            self._line.give_up(self._undecoded.pop(next(iter(self._undecoded))))

    def _submit(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            answer = self._undecoded.pop(frame.pts if frame.pts is not None else -1, None)
            if answer is not None:
                self._line.submit(answer, frame)

    def _damaged(self, reason: str) -> None:
        record = self._line.record
        record.decode_errors += 1
        record.error = reason
        self._damaged_in_a_row += 1
        self._drop_undecoded()
        self._want_keyframe()
        if self._damaged_in_a_row >= self._core.limits.damaged_in_a_row:
            self._refuse(RefusalError("damaged", f"{self._damaged_in_a_row} times: {reason}", retry=True))

    def _drop_undecoded(self) -> None:
        for answer in self._undecoded.values():
            self._line.give_up(answer)
        self._undecoded.clear()

    def _want_keyframe(self) -> None:
        if not self.needs_keyframe:
            self.needs_keyframe = True
            self._ask_keyframe()
