"""The one way of a frame through the server, whether a camera pushed it or the server pulled it.

```
session: access units ─▶ intake ─┐ expect, submit                       ┌─▶ on_answer: back to the camera
                                 ├───────────────▶ lane of the DNN ─▶ answers, in order
pull: frames of a source ────────┘                                      └─▶ publish: outlets, dashboards
```
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from av import VideoFrame

from accmpeg.server.cameras import CLOCK, CameraRecord
from accmpeg.server.changes import Changes
from accmpeg.server.core import Core
from accmpeg.server.decoding import ReceivedUnit
from accmpeg.server.dnn_workers import DnnWorkers
from accmpeg.server.fill import Filler
from accmpeg.server.lanes import Job, Outcome
from accmpeg.server.models import ModelIdentity

__all__ = ["Answer", "FrameLine", "RateLimit", "Stream"]

Dropped = Literal["behind", "undecodable", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is the same for all frames of a line."""

    camera: str
    stream_id: str
    time_base: tuple[int, int]
    """Numerator and denominator of the seconds that `pts` counts in."""
    source_size_px: tuple[int, int]
    """Of the camera's own frames: results are in its pixels."""
    frame_rate: float
    """What the camera means to send, in frames per second."""
    every_frame: bool
    """Every frame counts and the sender waits; otherwise the newest wins."""
    publishes: bool = True
    """Whether others hear of it: a probe leaves no trace."""


@dataclass(slots=True, eq=False)
class Answer:
    """One received frame on its way to its answer."""

    sequence: int
    pts: int
    captured_us: int
    """The camera's clock at capture."""
    spooled: bool = False
    camera_ms: dict[str, float] = field(default_factory=dict)
    received_us: int = field(default_factory=CLOCK.now_us)
    received_s: float = field(default_factory=time.perf_counter)
    server_ms: dict[str, float] = field(default_factory=dict)
    done: bool = False
    result: dict[str, Any] | None = None
    dropped: Dropped | None = None
    model: ModelIdentity | None = None

    def finish(self, outcome: Outcome) -> None:
        """The DNN is done with it."""
        self.server_ms["queue"] = outcome.queue_ms
        if outcome.batch:
            self.server_ms["infer"] = outcome.infer_ms
        self.result, self.dropped, self.model = outcome.result, outcome.dropped, outcome.model
        self.done = True

    def drop(self, reason: Dropped) -> None:
        self.result, self.dropped, self.done = None, reason, True

    def event(self) -> dict[str, Any]:
        """What subscribers get, less what is the same for the whole stream."""
        return {
            "sequence": self.sequence,
            "pts": self.pts,
            "captured_us": self.captured_us,
            "received_us": CLOCK.utc_us(self.received_us),
            "answered_us": CLOCK.utc_us(),
            "spooled": self.spooled,
            "tracked": False,
            "result": self.result,
            "dropped": self.dropped,
            "model": self.model.facts() if self.model is not None else None,
            "camera_ms": self.camera_ms,
            "server_ms": {stage: round(ms, 3) for stage, ms in self.server_ms.items()},
        }


class FrameLine:
    """The frames of one stream, each answered once and in order. Event loop only.

    Args:
        core: What it shares with the other cameras.
        key: Whose share of the memory it has; the owner gives it back.
        stream: What is the same for all its frames.
        size_px: Of its decoded frames.
        workers: Those of the server DNN that answers.
        record: Where it is counted.

    Raises:
        RefusalError: There is no memory for frames of this size.
    """

    def __init__(
        self,
        core: Core,
        key: object,
        stream: Stream,
        size_px: tuple[int, int],
        workers: DnnWorkers,
        record: CameraRecord,
    ) -> None:
        self.stream = stream
        self.record = record
        self.changes = Changes()
        """Notified of whatever concerns this stream, by its owner too."""
        self.on_answer: Callable[[Answer], None] = lambda answer: None
        """Gets each answer before others hear of it."""
        self.keyframe_of: Callable[[int], tuple[ReceivedUnit, bytes] | None] = lambda sequence: None
        """The keyframe at or before a frame, with parameter sets, for the dashboard's quality map."""
        self._core = core
        self._key = key
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._coming: dict[int, Answer] = {}
        """By sequence: their frames are not decoded yet."""
        self._answers: deque[Answer] = deque()
        """In the order in which they are due."""
        self._shown: tuple[Answer, VideoFrame] | None = None
        """The newest, for dashboards: the only one that is kept of those whose answers wait for others."""
        self._in_flight = 0
        self._pixel_rate = RateLimit(core.limits.max_pixels_per_s)
        self._unit_rate = RateLimit(core.limits.max_units_per_s)
        self.resize(size_px)
        record.came()
        record.dnn, record.task = workers.name, workers.dnn.card.task
        self._facts = {
            "camera": stream.camera,
            "stream_id": stream.stream_id,
            "dnn": record.dnn,
            "task": record.task,
            "time_base": stream.time_base,
            "size_px": stream.source_size_px,
        }
        patience = None if stream.every_frame else core.limits.patience()
        self._lane = workers.open_lane(stream.camera, core.limits.waiting_frames, patience, stream.frame_rate)
        self._filler = self._make_filler()

    @property
    def unanswered(self) -> int:
        """Frames that have come and are not answered."""
        return len(self._coming) + len(self._answers)

    @property
    def has_room(self) -> bool:
        """Whether a frame can be submitted without making another give way."""
        return self._in_flight < self._capacity()

    def resize(self, size_px: tuple[int, int]) -> None:
        """Frames of another size come from now on. Raises `RefusalError` if there is no memory for them."""
        self._core.memory.reserve(self._key, size_px[0] * size_px[1])
        self.size_px = self.record.width_px, self.record.height_px = size_px

    def expect(self, answer: Answer, size_bytes: int = 0) -> None:
        """A frame has come, which is to be answered in the order of display: as it leaves the decoder.

        With two B-frames a frame waits three frames for its answer, and up to five in the order of sending.
        """
        self.record.count_frame(size_bytes)
        self.record.count_stages(answer.camera_ms, "camera ")
        self._coming[answer.sequence] = answer
        self.record.waiting = self.unanswered

    async def pause(self, frames: int) -> None:
        """Waits where a camera that has just said something, with so many frames, says more than it may."""
        now_s = time.monotonic()
        pixels = frames * self.size_px[0] * self.size_px[1]
        pause_s = max(self._pixel_rate.wait_s(pixels, now_s), self._unit_rate.wait_s(1, now_s))
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def submit(self, answer: Answer, frame: VideoFrame) -> None:
        """The decoded frame of an expected answer goes to the DNN."""
        self._answers.append(self._coming.pop(answer.sequence))
        self._in_flight += 1
        self._lane.capacity = self._capacity()

        def finish(outcome: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._inferred, answer, frame, outcome)

        self._workers.submit(self._lane, Job(frame, self.stream.source_size_px, finish))

    def give_up(self, answer: Answer) -> None:
        """An expected answer whose frame can't be decoded."""
        answer.drop("undecodable")
        self._answers.append(self._coming.pop(answer.sequence))

    def results_per_s(self) -> float | None:
        """What the camera may count on; None without a limit, which a stream that waits never has."""
        return None if self.stream.every_frame else self._workers.offered_per_s(self._lane)

    def deliver(self) -> None:
        """Hands out the answers that are done and have none undone before them."""
        while self._answers and self._answers[0].done:
            answer = self._answers.popleft()
            answer.server_ms["total"] = (time.perf_counter() - answer.received_s) * 1000
            self.on_answer(answer)
            if self.stream.publishes:
                self._publish(answer)
        self.record.waiting = self.unanswered
        self.changes.notify()

    async def settled(self) -> None:
        """Returns when everything that came is answered."""
        await self.changes.until(lambda: not self.unanswered)

    def close(self) -> None:
        """What waits for the DNN is dropped, and so is what still comes."""
        self._workers.close_lane(self._lane)
        if self._filler is not None:
            self._filler.end()

    def abandon(self) -> int | None:
        """Answers nothing more; returns the first frame that has come and has no answer, None if all have."""
        unanswered = [*self._coming, *(answer.sequence for answer in self._answers)]
        self._coming.clear()
        self._answers.clear()
        return min(unanswered, default=None)

    def _make_filler(self) -> Filler | None:
        """Where live results of objects are to be filled in."""
        core, stream, per_s = self._core, self.stream, self._core.settings.publish_per_s
        if per_s is None or stream.every_frame or not stream.publishes or self.record.task == "segmentation":
            return None

        def publish(event: dict[str, Any]) -> None:
            self.record.tracked += 1
            core.hub.publish(event)

        def comes_by(captured_us: float) -> bool:
            waiting = (*self._coming.values(), *self._answers)
            return any(answer.captured_us <= captured_us for answer in waiting)

        filler = Filler(per_s, stream.time_base, stream.source_size_px, comes_by=comes_by, publish=publish)
        core.spawn(filler.run())
        return filler

    def _capacity(self) -> int:
        return self._core.memory.waiting_frames(self._key, self._core.limits.waiting_frames)

    def _inferred(self, answer: Answer, frame: VideoFrame, outcome: Outcome) -> None:
        self._in_flight -= 1
        if not self.stream.every_frame:
            self._workers.saw(self._lane, answered=outcome.dropped != "behind")
        answer.finish(outcome)
        is_newest = self._shown is None or self._shown[0].sequence < answer.sequence
        if is_newest and self.stream.publishes and self._core.gallery.watches(self.stream.camera):
            self._shown = answer, frame
        self.deliver()

    def _publish(self, answer: Answer) -> None:
        core, record = self._core, self.record
        record.count_answer(answer.dropped)
        if answer.result is not None:
            record.count_result(answer.result)
            # Times of dropped frames would make the server look faster than its results are.
            record.count_stages(answer.server_ms)
            for stage, ms in answer.server_ms.items():
                core.metrics.stage_s.labels(record.dnn, stage).observe(max(0.0, ms) / 1000)
        event = {**self._facts, **answer.event()}
        core.hub.publish(event)
        if self._filler is not None and answer.result is not None and not answer.spooled:
            self._filler.saw(event)
        if self._shown is not None and self._shown[0] is answer:
            frame, self._shown = self._shown[1], None
            if core.gallery.wants(record.name):
                core.metrics.snapshots.inc()
                keyframe = self.keyframe_of(answer.sequence) if core.gallery.wants_map(record.name) else None
                core.spawn(core.gallery.show(record.name, frame, event, keyframe, core.executor))


class RateLimit:
    """A token bucket of one second's burst: how long to wait after each `cost`, so that `per_s` holds."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._last_s: float | None = None

    def wait_s(self, cost: float, now_s: float) -> float:
        if self._last_s is not None:
            self._left = min(self._per_s, self._left + (now_s - self._last_s) * self._per_s)
        self._last_s = now_s
        self._left -= cost
        return max(0.0, -self._left / self._per_s)
