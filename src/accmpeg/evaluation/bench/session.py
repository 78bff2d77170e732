"""The only way a method gets at a clip, the link and the server DNN: everything it does is counted here.

```
bench ─▶ Stream.push(index, frame) ─┬▶ session.camera("encode")   the camera's work
                                    ├▶ session.upload(units)      bytes, one way
                                    ├▶ session.decode(units)      the server's work
                                    ├▶ session.deliver(index, frame)      server DNN ─▶ the frame's result
                                    └▶ session.feedback(boxes, size_bytes)   over the link ─▶ arrived()
```

A frame can't be looked at before it is captured, a result can't be delivered before its frame or twice, and
what the server sends back reaches the camera when the emulated link has brought it: after the frame that it
speaks of has been coded, sent, decoded and seen by the server DNN.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import av
import numpy as np

from accmpeg.accmodel.runtime import AccModel, Scores
from accmpeg.dnn.base import ServerDnn
from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation.bench.cache import StreamCache
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.costs import Costs
from accmpeg.evaluation.bench.traffic import Traffic
from accmpeg.evaluation.link.emulator import Emulator, ServerMachine
from accmpeg.evaluation.link.flow import Delivery, Flow, Step, go_on
from accmpeg.evaluation.link.link import Link
from accmpeg.evaluation.settings import LIVE_LINK
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import AccessUnit, Encoder

__all__ = ["MethodContext", "Session", "TrueScores", "stage_of"]

Worker = Literal["camera", "server"]


def stage_of(stage: str, stream: str) -> str:
    """The name under which a stage counts: another stream's, which may be smaller, costs something else.

    >>> stage_of("encode", "main"), stage_of("encode", "640x360")
    ('encode', 'encode 640x360')
    """
    return stage if stream == "main" else f"{stage} {stream}"


class TrueScores:
    """True scores in an AccModel's place; each frame of a clip is labelled once for all encodes.

    Not a system: it costs a pass through the server DNN per map and knows what a camera can't.
    """

    object_threshold = 0.5

    def __init__(self, dnn_card: Path, qp_high: int) -> None:
        from accmpeg.training.labeller import Labeller
        from accmpeg.training.settings import LabelSettings

        self._labeller = Labeller(dnn_card, LabelSettings(qp_high=qp_high), threads=1)
        self._made: dict[tuple[int | None, int, int], Scores] = {}

    def predict(self, frame: av.VideoFrame) -> Scores:
        """The label of this frame, as `accmpeg label` makes it."""
        key = (frame.pts, frame.width, frame.height)
        if key not in self._made:
            label = self._labeller.label(frame)
            objects = None if label.objects is None else label.objects.astype(np.float32)
            self._made[key] = Scores(label.accgrad_log2.astype(np.float32), objects)
        return self._made[key]


@dataclass
class MethodContext:
    """What all methods share on one clip: the server DNN, its AccModel, the rhythm of maps, the live link.

    `shared` is for what a method works out once per clip (a profile, true scores), by the method's own key.
    """

    dnn: ServerDnn
    dnn_card: Path
    accmodel: AccModel | None = None
    every: int = 10
    link: Link = LIVE_LINK
    """Brings feedback to the camera."""
    server: ServerMachine = field(default_factory=ServerMachine)
    """The machine that the sweep states."""
    streams: StreamCache | None = None
    """Plain streams of this clip that other server DNNs needed too."""
    shared: dict[str, Any] = field(default_factory=dict, repr=False)

    def oracle(self) -> TrueScores:
        """The clip's true scores, shared by all methods and operating points."""
        if "oracle" not in self.shared:
            # With the high quality that the AccModel's labels had: it depends on the server DNN.
            record = None if self.accmodel is None else self.accmodel.card.training
            qp_high = record.label_settings[0].get("qp_high", 20) if record and record.label_settings else 20
            self.shared["oracle"] = TrueScores(self.dnn_card, qp_high)
        return cast(TrueScores, self.shared["oracle"])

    def need_accmodel(self, method: str) -> AccModel:
        """The AccModel; raises UsageError where there is none."""
        if self.accmodel is None:
            raise UsageError(f"the method {method} needs an AccModel: give one with --accmodel")
        return self.accmodel


class Session:
    """One method at one operating point on one clip, as it happens.

    `wanted` are the frames whose results the bench measures; none of them: bytes and costs only. With `costs`
    every stage takes what it takes there; without, each call is timed (`timings_ms`). The decoded frames in
    `keep` (indices) stay in `seen`, for pictures. Raises `MethodError` when a method does what no real system
    could.
    """

    def __init__(
        self,
        clip: Clip,
        context: MethodContext,
        *,
        wanted: frozenset[int],
        costs: Costs | None = None,
        keep: frozenset[int] = frozenset(),
    ) -> None:
        self.clip, self.context, self.keep = clip, context, keep
        self.seen: dict[int, av.VideoFrame] = {}
        self.index = -1
        self.results: dict[int, Any] = {}
        self.stage_ms: dict[str, float] = {}
        self.timings_ms: dict[str, list[float]] = {}
        self.infer_ms: list[float] = []
        self.traffic = Traffic(clip)
        self.flows: list[Flow] = []
        """Of the frames so far but the newest; all of them after `end`."""
        self._wanted, self._costs = wanted, costs
        self._delivered: set[int] = set()
        self._steps: list[Step] | None = None
        self._beside: list[Step] = []
        self._messages: list[Any] = []
        self._decoders: dict[str, Decoder] = {}
        self._emulator = Emulator(context.link, context.server, len(clip.frames))

    # The bench's side.

    def capture(self, index: int) -> av.VideoFrame:
        """Moves on to a frame: a new flow begins at its capture, and the world has moved on to it."""
        self._seal()
        self.index, self._steps = index, []
        self._emulator.run_until(self.capture_s(index) * 1000)
        return self.clip.frames[index]

    def end(self) -> None:
        """The method has finished."""
        self._seal()
        self._steps = None

    def clip_results(self, method: str) -> list[Any]:
        """The results of all wanted frames; raises MethodError if one is missing."""
        missing = [index for index in range(len(self.clip.frames)) if index not in self._delivered]
        if missing:
            raise MethodError(f"{method} delivered no result for frame {missing[0]} ({len(missing)} in all)")
        return [self.results[index] for index in sorted(self._wanted)]

    # The method's side.

    def capture_s(self, index: int) -> float:
        """When a frame is captured, in seconds from the first one."""
        return self.clip.capture_s(index)

    def frame(self, index: int) -> av.VideoFrame:
        """A frame captured already; raises MethodError for one that is still to come."""
        if not 0 <= index <= self.index:
            raise MethodError(f"asked for frame {index} when frame {self.index} was the last one captured")
        return self.clip.frames[index]

    def wanted(self, index: int) -> bool:
        """Whether the bench measures the result of this frame."""
        return index in self._wanted

    @contextmanager
    def camera(self, stage: str) -> Iterator[None]:
        """Counts the block as the camera's work."""
        with self._working("camera", stage):
            yield

    @contextmanager
    def server(self, stage: str, *, beside: bool = False) -> Iterator[None]:
        """Counts the block as the server's work; not for the server DNN itself (`infer`).

        `beside`: on a core of its own, so that no result waits for it; the next `feedback` does.
        """
        with self._working("server", stage, beside=beside):
            yield

    def spent(self, place: Worker, stage: str, work_ms: float, *, after: bool = False) -> None:
        """Counts CPU time that was measured already; `after` the camera or server had handed the frame on, so
        that only what it does next waits for it."""
        counted_ms = self._counted_ms(place, stage, work_ms)
        if after:
            go_on(self._open_steps(), place, counted_ms)
        else:
            self._add(Step(place, counted_ms))

    def upload(self, units: Sequence[AccessUnit] | int) -> None:
        """Access units, or a number of bytes, from the camera to the server."""
        size_bytes = self.traffic.add(units, self.index)
        if size_bytes:
            self._add(Step("uplink", size_bytes=size_bytes))

    def download(self, size_bytes: int, message: Any = None) -> None:
        """Bytes from the server to the camera, on whose arrival the flow waits.

        With a `message`, `arrived` hands that over when they have come.
        """
        self.traffic.add(size_bytes, self.index)
        number = None if message is None else self._numbered(message)
        if size_bytes or number is not None:
            self._add(Step("downlink", size_bytes=size_bytes, message=number))

    def decode(
        self, units: Sequence[AccessUnit], encoder: Encoder, *, stream: str = "main"
    ) -> list[av.VideoFrame]:
        """The server decodes what `encoder` made; each `stream` has a decoder of its own."""
        self.traffic.belongs(units, stream, encoder.settings, self.index)
        with self._working("server", stage_of("decode", stream)):
            if stream not in self._decoders:
                size = encoder.settings
                self._decoders[stream] = Decoder(
                    encoder.decoder_name,
                    encoder.parameter_sets,
                    width_px=size.width_px,
                    height_px=size.height_px,
                )
            return [frame for unit in units for frame in self._decoders[stream].decode(unit)]

    def flush_decoder(self, stream: str = "main") -> list[av.VideoFrame]:
        """The frames a stream's decoder still holds; the next `decode` opens another one."""
        decoder = self._decoders.pop(stream, None)
        if decoder is None:
            return []
        with self._working("server", stage_of("decode", stream)):
            return decoder.flush()

    def infer(self, frame: av.VideoFrame) -> Any:
        """The server DNN's result on a frame of any size, in source pixels; always runs, always counts."""
        return self.infer_batch([frame])[0]

    def infer_batch(self, frames: Sequence[av.VideoFrame]) -> list[Any]:
        """The server DNN's results on several frames, which it looks at together: one pass of its batch."""
        results = [self._infer(frame) for frame in frames]
        if frames:
            self._add(Step("dnn", pictures=len(frames)))
        return results

    def deliver(self, index: int, frame: av.VideoFrame) -> None:
        """Runs the server DNN on a decoded frame, as the result of source frame `index`; for wanted frames
        only, but its time counts for all."""
        self.deliver_batch([(index, frame)])

    def deliver_batch(self, frames: Sequence[tuple[int, av.VideoFrame]]) -> None:
        """The same for frames that come together: the server DNN looks at all of them in one batch."""
        for index, frame in frames:
            self._once(index)
            if index in self.keep:
                # At the source's size, because results are in its pixels.
                self.seen[index] = frame.reformat(width=self.clip.width_px, height=self.clip.height_px)
            if self.wanted(index):
                self.results[index] = self._infer(frame)
        if frames:
            delivers = tuple(Delivery(index, index) for index, _ in frames)
            self._add(Step("dnn", pictures=len(frames), delivers=delivers))

    def deliver_result(
        self, index: int, result: Any, of: int | None = None, *, at: Worker = "server"
    ) -> None:
        """A result that is there already (merged, tracked or reused) is that of frame `index`.

        `of`: the frame in whose picture it was found, where that is an older one. `at`: where results are
        used, which is the camera in systems that track objects there.
        """
        self._once(index)
        if self.wanted(index):
            self.results[index] = result
        self._add(Step(at, delivers=(Delivery(index, index if of is None else of),)))

    def feedback(self, message: Any, size_bytes: int) -> None:
        """Sends a message to the camera without waiting; `arrived` hands it over when it has come."""
        self.traffic.add(size_bytes, self.index)
        number = self._numbered(message)
        branch = (*self._beside, Step("downlink", size_bytes=size_bytes, message=number))
        self._beside = []
        steps = self._open_steps()
        if not steps or steps[-1].beside:
            # Messages do not wait for each other: each has a step of its own to leave from.
            steps.append(Step("server"))
        steps[-1] = replace(steps[-1], beside=branch)

    def arrived(self) -> list[Any]:
        """The messages that have reached the camera since it last asked, oldest first."""
        now_ms = self.capture_s(self.index) * 1000
        return [self._messages[number] for number in self._emulator.messages_until(now_ms)]

    def _numbered(self, message: Any) -> int:
        self._messages.append(message)
        return len(self._messages) - 1

    def _seal(self) -> None:
        if self._steps is None:
            return
        flow = Flow(self.capture_s(self.index) * 1000, tuple(self._steps))
        self.flows.append(flow)
        self._emulator.add(flow, frame=self.index)

    def _open_steps(self) -> list[Step]:
        if self._steps is None:
            raise MethodError("nothing can be done before the first frame is captured")
        return self._steps

    def _add(self, step: Step) -> None:
        self._open_steps().append(step)

    @contextmanager
    def _working(self, place: Worker, stage: str, *, beside: bool = False) -> Iterator[None]:
        start_ns = time.process_time_ns()
        try:
            yield
        finally:
            work_ms = self._counted_ms(place, stage, (time.process_time_ns() - start_ns) / 1e6)
            if beside:
                self._beside.append(Step(place, work_ms))
            else:
                self._add(Step(place, work_ms))

    def _counted_ms(self, place: Worker, stage: str, measured_ms: float) -> float:
        name = f"{place}: {stage}"
        work_ms = measured_ms
        if self._costs is None:
            self.timings_ms.setdefault(name, []).append(measured_ms)
        else:
            # A stage that no rehearsal met (an encoder that opens late) costs what it takes now.
            work_ms = self._costs.stage_ms.get(name, measured_ms)
        self.stage_ms[name] = self.stage_ms.get(name, 0.0) + work_ms
        return work_ms

    def _infer(self, frame: av.VideoFrame) -> Any:
        start_ns = time.process_time_ns()
        result = self.context.dnn.infer(frame, (self.clip.width_px, self.clip.height_px))
        self.infer_ms.append((time.process_time_ns() - start_ns) / 1e6)
        return result

    def _once(self, index: int) -> None:
        if not 0 <= index <= self.index:
            raise MethodError(f"delivered frame {index} when frame {self.index} was the last one captured")
        if index in self._delivered:
            raise MethodError(f"delivered frame {index} twice")
        self._delivered.add(index)
