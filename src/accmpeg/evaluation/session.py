"""The only way a method gets at a clip, the link and the server DNN: everything it does is counted here.

```
bench ─▶ Stream.push(index, frame) ─┬▶ session.camera("encode")   CPU time of the camera
                                    ├▶ session.upload(units)      bytes, one way
                                    ├▶ session.decode(units)      CPU time of the server
                                    ├▶ session.deliver(index, frame)      server DNN ─▶ the frame's result
                                    └▶ session.feedback(boxes, size_bytes)      bytes back ─▶ arrived()
```

A frame can't be looked at before it is captured, a result can't be delivered before its frame or twice, and
what the server sends back reaches the camera only after the feedback delay.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from accmpeg.accmodel.runtime import AccModel, Scores
from accmpeg.dnn.base import ServerDnn
from accmpeg.errors import MethodError, UsageError
from accmpeg.evaluation.cache import StreamCache
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.flow import Flow, Place, Step
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import AccessUnit, Encoder

__all__ = ["MethodContext", "Session", "TrueScores"]

_INFERENCE = -1.0
"""Stands for the server DNN's time in a step until the median over the clip is known."""


class TrueScores:
    """True scores in an AccModel's place; each frame of a clip is labelled once for all encodes.

    Not a system: it costs a pass through the server DNN per map and knows what a camera can't.
    """

    object_threshold = 0.5

    def __init__(self, dnn_card: Path, qp_high: int) -> None:
        from accmpeg.accgrad.worker import Labeller, LabelSettings

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
    """What all methods share on one clip: the server DNN, its AccModel, the rhythm of maps and feedback.

    `shared` is for what a method works out once per clip (a profile, true scores), by the method's own key.
    """

    dnn: ServerDnn
    dnn_card: Path
    accmodel: AccModel | None = None
    every: int = 10
    feedback_delay_s: float = 0.2
    """From the capture of a frame to when the camera may use what the server said about it."""
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

    Results are needed of every `step`-th frame only (`wanted`); `step=None` measures bytes and costs without
    any result. The decoded frames in `keep` (indices) stay in `seen`, for pictures. Raises `MethodError` when
    a method does what no real system could.
    """

    def __init__(
        self, clip: Clip, context: MethodContext, *, step: int | None = 1, keep: frozenset[int] = frozenset()
    ) -> None:
        self.clip, self.context, self.step, self.keep = clip, context, step, keep
        self.seen: dict[int, av.VideoFrame] = {}
        self.index = -1
        self.results: dict[int, Any] = {}
        self.stage_ms: dict[str, float] = {}
        self.infer_ms: list[float] = []
        self._delivered: set[int] = set()
        self._flows: list[tuple[float, list[Step]]] = []
        self._decoders: dict[str, Decoder] = {}
        self._travelling: list[tuple[float, Any]] = []

    # The bench's side.

    def capture(self, index: int) -> av.VideoFrame:
        """Moves on to a frame: a new flow begins at its capture."""
        self.index = index
        self._flows.append((self.capture_s(index) * 1000, []))
        return self.clip.frames[index]

    def flows(self) -> list[Flow]:
        """What was done, with the server DNN's median time filled in. Call after the last frame."""
        done = []
        for captured_ms, steps in self._flows:
            filled = [
                Step("server", self.median_infer_ms, delivers=step.delivers)
                if step.work_ms == _INFERENCE
                else step
                for step in steps
            ]
            done.append(Flow(captured_ms, tuple(filled)))
        return done

    @property
    def median_infer_ms(self) -> float:
        """Median CPU time of a pass through the server DNN; 0 if there was none."""
        return float(np.median(self.infer_ms)) if self.infer_ms else 0.0

    def clip_results(self, method: str) -> list[Any]:
        """The results of all wanted frames; raises MethodError if one is missing."""
        frames = len(self.clip.frames)
        missing = [index for index in range(frames) if index not in self._delivered]
        if missing:
            raise MethodError(f"{method} delivered no result for frame {missing[0]} ({len(missing)} in all)")
        return [self.results[index] for index in range(frames) if self.wanted(index)]

    # The method's side.

    def capture_s(self, index: int) -> float:
        """When a frame is captured, in seconds from the first one."""
        first, frame = self.clip.frames[0], self.clip.frames[index]
        if frame.pts is None or first.pts is None:
            return index / float(self.clip.frame_rate)
        return float((frame.pts - first.pts) * self.clip.time_base)

    def frame(self, index: int) -> av.VideoFrame:
        """A frame captured already; raises MethodError for one that is still to come."""
        if not 0 <= index <= self.index:
            raise MethodError(f"asked for frame {index} when frame {self.index} was the last one captured")
        return self.clip.frames[index]

    def wanted(self, index: int) -> bool:
        """Whether the bench measures the result of this frame."""
        return self.step is not None and index % self.step == 0

    @contextmanager
    def camera(self, stage: str) -> Iterator[None]:
        """Counts the CPU time of the block as the camera's."""
        with self._working("camera", stage):
            yield

    @contextmanager
    def server(self, stage: str) -> Iterator[None]:
        """Counts the CPU time of the block as the server's; not for the server DNN itself (`infer`)."""
        with self._working("server", stage):
            yield

    def spent(self, place: Place, stage: str, work_ms: float) -> None:
        """Counts CPU time that was measured already."""
        name = f"{place}: {stage}"
        self.stage_ms[name] = self.stage_ms.get(name, 0.0) + work_ms
        self._steps.append(Step(place, work_ms))

    def upload(self, units: Sequence[AccessUnit] | int) -> None:
        """Access units, or a number of bytes, from the camera to the server."""
        self._sent("uplink", units if isinstance(units, int) else sum(unit.size_bytes for unit in units))

    def download(self, size_bytes: int) -> None:
        """Bytes from the server to the camera, on whose arrival the flow waits."""
        self._sent("downlink", size_bytes)

    def decode(
        self, units: Sequence[AccessUnit], encoder: Encoder, *, stream: str = "main"
    ) -> list[av.VideoFrame]:
        """The server decodes what `encoder` made; each `stream` has a decoder of its own."""
        with self._working("server", "decode"):
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
        with self._working("server", "decode"):
            return decoder.flush()

    def infer(self, frame: av.VideoFrame) -> Any:
        """The server DNN's result on a frame of any size, in source pixels; always runs, always counts."""
        result = self._infer(frame)
        self._steps.append(Step("server", _INFERENCE))
        return result

    def deliver(self, index: int, frame: av.VideoFrame) -> None:
        """Runs the server DNN on a decoded frame, as the result of source frame `index`.

        Runs it for wanted frames only, and counts its time for all.
        """
        self._once(index)
        if index in self.keep:
            # At the source's size, because results are in its pixels.
            self.seen[index] = frame.reformat(width=self.clip.width_px, height=self.clip.height_px)
        if self.wanted(index):
            self.results[index] = self._infer(frame)
        self._steps.append(Step("server", _INFERENCE, delivers=(index,)))

    def deliver_result(self, index: int, result: Any) -> None:
        """A result that the server has already (merged, tracked or reused) is that of frame `index`."""
        self._once(index)
        if self.wanted(index):
            self.results[index] = result
        self._steps.append(Step("server", delivers=(index,)))

    def feedback(self, message: Any, size_bytes: int) -> None:
        """Sends a message to the camera without waiting; `arrived` hands it over when its time has come."""
        # Not part of the flow: nothing waits for it. Its bytes travel in a flow of their own.
        self._flows.insert(-1, (self._flows[-1][0], [Step("downlink", size_bytes=size_bytes)]))
        self._travelling.append((self.capture_s(self.index) + self.context.feedback_delay_s, message))

    def arrived(self) -> list[Any]:
        """The messages that have reached the camera since it last asked, oldest first."""
        now_s = self.capture_s(self.index)
        here = [message for due_s, message in self._travelling if due_s <= now_s + 1e-9]
        self._travelling = [item for item in self._travelling if item[0] > now_s + 1e-9]
        return here

    @property
    def _steps(self) -> list[Step]:
        if not self._flows:
            raise MethodError("nothing can be done before the first frame is captured")
        return self._flows[-1][1]

    @contextmanager
    def _working(self, place: Place, stage: str) -> Iterator[None]:
        start_ns = time.process_time_ns()
        try:
            yield
        finally:
            self.spent(place, stage, (time.process_time_ns() - start_ns) / 1e6)

    def _sent(self, place: Place, size_bytes: int) -> None:
        if size_bytes < 0:
            raise MethodError(f"{size_bytes} bytes can't be sent")
        if size_bytes:
            self._steps.append(Step(place, size_bytes=size_bytes))

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
