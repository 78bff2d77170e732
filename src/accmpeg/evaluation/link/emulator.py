"""From what a method did to delays and ages: an event-driven camera, link and server.

```
capture ─▶ camera (one core) ─▶ uplink ─▶ server (one core) ─▶ dnn (workers, batches) ─▶ result of the frame
              ▲                             └▶ beside: cores of their own ─┐
              └──────────────────────────────────────── downlink ◀─────────┘
```

Each place serves first what comes first. The same flows over the same link give the same delays on any
machine, whether they are added while time goes on or all at once.

    emulator = Emulator(link, ServerMachine.gpu(30), frame_count)
    for index, captured_ms in enumerate(captures):
        numbers = emulator.messages_until(captured_ms)    # what has reached the camera meanwhile
        …                                                 # the method works
        emulator.add(flow, frame=index)                   # before time goes past its capture
    emulated = emulator.finish()
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accmpeg.errors import EvaluationError, UsageError
from accmpeg.evaluation.link.flow import Delivery, Flow, Step
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.link.queues import Core, Direction, DnnCopies, Events, LinkStats

__all__ = ["SERVER_MS", "Emulated", "Emulator", "ServerMachine", "emulate"]

SERVER_MS = 10.0
"""One pass of a DNN on the small GPU that is the stated server where nothing else is said."""

_MAX_STATED_LOAD = 0.7

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ServerMachine:
    """The machine that the server DNN runs on, stated rather than measured. Raises UsageError.

    A free worker takes the pictures that wait, up to `max_batch`, as `accmpeg serve` does. A batch of n takes
    `server_ms` · (1 + (n − 1) · `batch_growth`).
    """

    server_ms: float = SERVER_MS
    """One pass of the DNN on one picture."""
    workers: int = 1
    """Copies of the DNN that run at once."""
    max_batch: int = 8
    """The default of `accmpeg serve`."""
    batch_growth: float = 0.0
    """0: a batch takes as long as one picture (a GPU that one does not fill); 1: n passes (a core)."""

    def __post_init__(self) -> None:
        for name in ("server_ms", "batch_growth"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"a server machine with {name} {getattr(self, name)}: give 0 or more")
        if self.workers < 1 or self.max_batch < 1:
            raise UsageError("a server machine needs at least one worker and batches of at least one picture")

    @classmethod
    def gpu(
        cls, frame_rate: float, server_ms: float = SERVER_MS, *, workers: int | None = None
    ) -> "ServerMachine":
        """A small GPU, whose batches take as long as one picture.

        Without `workers`: as many as keep the load below 0.7 with one pass per frame.
        """
        if not 0 < frame_rate < math.inf or not 0 <= server_ms < math.inf:
            raise UsageError(f"{server_ms} ms per pass at {frame_rate} frames/s: give numbers above 0")
        fewest = math.floor(frame_rate * server_ms / 1000 / _MAX_STATED_LOAD + 1e-9) + 1
        return cls(server_ms, fewest if workers is None else workers)

    @classmethod
    def measured(cls, pass_ms: float, cores: int) -> "ServerMachine":
        """CPU cores with a copy of the DNN each; a pass takes what was measured, a batch of n is n passes."""
        return cls(pass_ms, cores, batch_growth=1.0)

    def batch_ms(self, pictures: int) -> float:
        """What a batch takes one worker."""
        return self.server_ms * (1 + (pictures - 1) * self.batch_growth)


@dataclass(frozen=True, eq=False)
class Emulated:
    """What became of a clip's frames. Arrays are `(frames,)` in ms; NaN for a frame that never got a result.

    `camera_ms`, `uplink_ms`, `propagation_ms`, `serve_ms` and `wait_ms` add up to `delay_ms`.
    """

    captured_ms: FloatArray
    delay_ms: FloatArray = field(repr=False)
    """Capture to (first) result."""
    camera_ms: FloatArray = field(repr=False)
    """The camera's work, with waiting for its core."""
    uplink_ms: FloatArray = field(repr=False)
    """Waiting for the link, leaving it, jitter and what was sent again. Where a result waits for bytes of the
    way back (a second pass, boxes for the camera's tracker), theirs too."""
    propagation_ms: FloatArray = field(repr=False)
    """Once per crossing, either way, that the result waits for."""
    serve_ms: FloatArray = field(repr=False)
    """The server's work and the DNN's, with waiting for both."""
    wait_ms: FloatArray = field(repr=False)
    """From the capture to that of the frame whose flow brought the result: chunks, late results."""
    age_ms: FloatArray = field(repr=False)
    """At the frame's capture: since when the newest picture is that a result was there of by then. Of other
    frames' results, since its own can't be there; NaN before the first result."""
    camera_load: float
    """Busy time over the clip's duration, as are the next two; NaN where all frames have one capture time."""
    server_load: float
    """Of the core that decodes."""
    dnn_load: float
    """Of all workers."""
    uplink_load: float
    """Bytes sent over the bytes that the link can carry in the clip's duration; NaN as above."""
    downlink_load: float
    uplink: LinkStats
    downlink: LinkStats


class Emulator:
    """Runs flows over a link and a server, as fast as they are added or all at once: the result is the same.

    Raises EvaluationError for flows that no method can have.
    """

    def __init__(self, link: Link, server: ServerMachine, frame_count: int) -> None:
        """For a clip of `frame_count` frames, whose flows are to be added in the order of capture."""
        self._link, self._server = link, server
        self._events = Events()
        self._places = _Places(link, server, self._events)
        self._record = _Record(frame_count)

    def add(self, flow: Flow, frame: int | None = None) -> None:
        """Adds the flow of source frame `frame`, or with None one that no frame set off (at the clip's end).

        Frames come in their order, and each before `run_until` or `messages_until` has gone past its capture.
        """
        record, now_ms = self._record, self._events.now_ms
        if not now_ms <= flow.captured_ms < math.inf:
            raise EvaluationError(f"a flow captured at {flow.captured_ms} ms was added at {now_ms} ms")
        captured = len(record.captured_ms)
        if frame is not None:
            if frame != captured or frame >= record.frame_count:
                raise EvaluationError(
                    f"frame {frame} of {record.frame_count} can't follow {captured} others: "
                    "flows are added in the order of their frames"
                )
            captured += 1
        _check(flow.steps, captured)
        if frame is not None:
            record.captured_ms.append(flow.captured_ms)

        def begin(now_ms: float) -> None:
            if frame is not None:
                record.age_ms[frame] = now_ms - record.newest_ms
            _Branch(self._places, record, flow.captured_ms, flow.steps).begin(now_ms)

        self._events.at(flow.captured_ms, begin, is_capture=True)

    def run_until(self, now_ms: float) -> None:
        """Moves on to a time, that of the next capture at most; going back does nothing."""
        self._events.run_until(now_ms)

    def messages_until(self, now_ms: float) -> list[int]:
        """Moves on to a time; the numbers of the messages (`Step.message`) that have reached the camera since
        it was last asked, in the order in which they came."""
        self.run_until(now_ms)
        here, self._record.messages = self._record.messages, []
        return here

    def finish(self) -> Emulated:
        """Runs on until all work is done. Raises EvaluationError if a frame's flow was not added."""
        record, places = self._record, self._places
        frames = len(record.captured_ms)
        if frames != record.frame_count:
            raise EvaluationError(f"{frames} flows do not belong to {record.frame_count} frames")
        self.run_until(math.inf)
        captured_ms = np.array(record.captured_ms)
        span_ms = float(np.ptp(captured_ms)) if frames > 1 else 0.0
        duration_ms = span_ms * frames / (frames - 1) if span_ms else math.nan
        up, down = places.uplink.stats(), places.downlink.stats()
        up_bytes, down_bytes = self._link.capacity_bytes(duration_ms) if span_ms else (math.nan, math.nan)
        camera_ms, uplink_ms, propagation_ms, serve_ms, wait_ms = record.parts_ms.T
        return Emulated(
            captured_ms=captured_ms,
            delay_ms=record.delay_ms,
            camera_ms=camera_ms,
            uplink_ms=uplink_ms,
            propagation_ms=propagation_ms,
            serve_ms=serve_ms,
            wait_ms=wait_ms,
            age_ms=record.age_ms,
            camera_load=places.camera.busy_ms / duration_ms,
            server_load=places.decoder.busy_ms / duration_ms,
            dnn_load=places.dnn.busy_ms / (duration_ms * self._server.workers),
            uplink_load=_load(up.sent_bytes, up_bytes),
            downlink_load=_load(down.sent_bytes, down_bytes),
            uplink=up,
            downlink=down,
        )


class _Places:
    """Where steps wait for each other."""

    def __init__(self, link: Link, server: ServerMachine, events: Events) -> None:
        self.events, self.propagation_ms = events, link.propagation_ms
        up, down = link.serialisers()
        self.camera, self.decoder = Core(events), Core(events)
        self.dnn = DnnCopies(events, server.workers, server.max_batch, server.batch_ms)
        self.uplink = Direction(link, up, events, 2 * link.seed)
        self.downlink = Direction(link, down, events, 2 * link.seed + 1)


_CAMERA, _LINK, _PROPAGATION, _SERVE, _WAIT = range(5)


class _Record:
    """What has become of the frames so far."""

    def __init__(self, frame_count: int) -> None:
        self.frame_count = frame_count
        self.captured_ms: list[float] = []
        self.delay_ms = np.full(frame_count, np.nan)
        self.parts_ms = np.full((frame_count, 5), np.nan)
        self.age_ms = np.full(frame_count, np.nan)
        self.newest_ms = math.nan
        """Capture of the newest picture that a result speaks of."""
        self.messages: list[int] = []

    def deliver(self, delivery: Delivery, now_ms: float, parts_ms: Sequence[float], begun_ms: float) -> None:
        """A result is there, by a flow that was captured at `begun_ms`; a frame's first one counts."""
        captured_ms, of_ms = self.captured_ms[delivery.index], self.captured_ms[delivery.of]
        if math.isnan(self.delay_ms[delivery.index]):
            self.delay_ms[delivery.index] = now_ms - captured_ms
            self.parts_ms[delivery.index] = parts_ms
            self.parts_ms[delivery.index, _WAIT] = begun_ms - captured_ms
        if math.isnan(self.newest_ms) or of_ms > self.newest_ms:
            self.newest_ms = of_ms


class _Branch:
    """Steps that run one after another: those of a flow, or those beside one of them."""

    __slots__ = (
        "_begun_ms",
        "_captured_ms",
        "_is_beside",
        "_next",
        "_parts_ms",
        "_places",
        "_record",
        "_steps",
    )

    def __init__(
        self,
        places: _Places,
        record: _Record,
        captured_ms: float,
        steps: Sequence[Step],
        before_ms: Sequence[float] | None = None,
    ) -> None:
        self._places, self._record, self._captured_ms, self._steps = places, record, captured_ms, steps
        self._is_beside = before_ms is not None
        self._parts_ms = [0.0] * 5 if before_ms is None else list(before_ms)
        """What the time since the flow's capture was spent on."""
        self._next = 0
        self._begun_ms = 0.0

    def begin(self, now_ms: float) -> None:
        """Begins the next step, if there is one."""
        if self._next == len(self._steps):
            return
        self._begun_ms = now_ms
        places, step = self._places, self._steps[self._next]
        match step.place:
            case "camera":
                places.camera.work(now_ms, step.work_ms, self._end, step.after_ms)
            case "uplink":
                places.uplink.send(now_ms, step.size_bytes, self._end)
            case "downlink":
                places.downlink.send(now_ms, step.size_bytes, self._end)
            case "dnn":
                places.dnn.infer(now_ms, step.pictures, self._end)
            case "server" if self._is_beside:
                places.events.at(now_ms + step.work_ms, self._end)
            case "server":
                places.decoder.work(now_ms, step.work_ms, self._end, step.after_ms)

    def _end(self, now_ms: float) -> None:
        step, record = self._steps[self._next], self._record
        self._count(step, now_ms - self._begun_ms)
        self._next += 1
        for delivery in step.delivers:
            record.deliver(delivery, now_ms, self._parts_ms, self._captured_ms)
        if step.message is not None:
            record.messages.append(step.message)
        if step.beside:
            _Branch(self._places, record, self._captured_ms, step.beside, self._parts_ms).begin(now_ms)
        self.begin(now_ms)

    def _count(self, step: Step, spent_ms: float) -> None:
        parts_ms = self._parts_ms
        match step.place:
            case "camera":
                parts_ms[_CAMERA] += spent_ms
            case "uplink" | "downlink":
                parts_ms[_PROPAGATION] += self._places.propagation_ms
                parts_ms[_LINK] += spent_ms - self._places.propagation_ms
            case "server" | "dnn":
                parts_ms[_SERVE] += spent_ms


def emulate(flows: Sequence[Flow], link: Link, server: ServerMachine) -> Emulated:
    """Runs what a method did: flow k is that of frame k.

    >>> steps = (Step("camera", 5), Step("uplink", size_bytes=12500), Step("dnn", delivers=(Delivery(0, 0),)))
    >>> emulate([Flow(0, steps)], Link(bandwidth_bps=1e6, propagation_ms=20), ServerMachine()).delay_ms
    array([135.])
    """
    emulator = Emulator(link, server, len(flows))
    for index, flow in enumerate(flows):
        emulator.add(flow, frame=index)
    return emulator.finish()


def _load(sent_bytes: float, carried_bytes: float) -> float:
    if carried_bytes == 0:
        return math.inf if sent_bytes else 0.0
    return sent_bytes / carried_bytes


def _check(steps: Sequence[Step], captured: int) -> None:
    for step in steps:
        for delivery in step.delivers:
            if not (0 <= delivery.index < captured and 0 <= delivery.of < captured):
                raise EvaluationError(f"{delivery} with {captured} frames captured so far")
        if step.place == "dnn" and step.pictures < 1:
            raise EvaluationError(f"a step at the DNN with {step.pictures} pictures")
        _check(step.beside, captured)
