"""One cell of a comparison: a method at an operating point on a clip, from frames to accuracy.

```
source frames ─▶ method ─▶ session (bytes, costs) ─▶ server DNN ─▶ results ─▶ accuracy against the reference
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import av

from accmpeg.errors import EvaluationError
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.flow import Flow, bytes_of
from accmpeg.evaluation.methods.base import Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.session import Session
from accmpeg.tasks import ClipAccuracy

__all__ = ["Cell", "evaluate", "reference_results", "run_method", "stream_bytes"]


@dataclass(frozen=True)
class Cell:
    """What one method did at one operating point on one clip."""

    clip: str
    method: str
    point: OperatingPoint
    uplink_bytes: int
    downlink_bytes: int
    bitrate_bps: float
    """Of everything that crossed the network, both ways, over the clip's duration."""
    accuracy: ClipAccuracy
    label_accuracy: ClipAccuracy | None
    camera_ms_per_frame: float
    stage_ms: dict[str, float]
    """Mean CPU milliseconds per source frame by `camera: STAGE` and `server: STAGE`."""
    infer_ms: float
    """Median CPU time of one pass through the server DNN."""
    flows: Sequence[Flow] = field(repr=False, compare=False)
    results: Sequence[Any] = field(repr=False, compare=False)
    seen: Mapping[int, av.VideoFrame] = field(repr=False, compare=False)
    """Decoded frames by index, those that were asked for."""

    @property
    def size_bytes(self) -> int:
        """Everything that crossed the network."""
        return self.uplink_bytes + self.downlink_bytes


def run_method(
    clip: Clip,
    method: Method,
    point: OperatingPoint,
    context: MethodContext,
    *,
    step: int | None = 1,
    keep: frozenset[int] = frozenset(),
) -> Session:
    """Feeds the clip to the method frame by frame; it never sees a frame before its turn."""
    session = Session(clip, context, step=step, keep=keep)
    stream_format = StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)
    stream = method.open(stream_format, point, session)
    try:
        for index in range(len(clip.frames)):
            stream.push(index, session.capture(index))
    finally:
        stream.finish()
    return session


def stream_bytes(clip: Clip, method: Method, point: OperatingPoint, context: MethodContext) -> int:
    """What a method sends, both ways, without measuring its accuracy."""
    flows = run_method(clip, method, point, context, step=None).flows()
    return bytes_of(flows, "uplink") + bytes_of(flows, "downlink")


def reference_results(clip: Clip, context: MethodContext, step: int) -> list[Any]:
    """The server DNN's results on the pristine frames: what accuracy is measured against."""
    return [context.dnn.infer(frame) for frame in clip.frames[::step]]


def evaluate(
    clip: Clip,
    method: Method,
    point: OperatingPoint,
    context: MethodContext,
    references: Sequence[Any],
    *,
    step: int = 1,
    keep: frozenset[int] = frozenset(),
) -> Cell:
    """Runs a method and measures its results on every `step`-th frame; `references` are of those frames.

    The decoded frames in `keep` (indices) stay in the cell.
    Raises `MethodError` for a method that cheats or leaves frames out, and whatever the method raises.
    """
    if len(references) != len(range(0, len(clip.frames), step)):
        raise EvaluationError(f"{len(references)} reference results do not belong to every {step}-th frame")
    session = run_method(clip, method, point, context, step=step, keep=keep)
    results = session.clip_results(method.name)
    flows = session.flows()
    frames = len(clip.frames)
    stage_ms = {stage: total_ms / frames for stage, total_ms in sorted(session.stage_ms.items())}
    uplink_bytes, downlink_bytes = bytes_of(flows, "uplink"), bytes_of(flows, "downlink")
    task = context.dnn.task
    return Cell(
        clip=clip.name,
        method=method.name,
        point=point,
        uplink_bytes=uplink_bytes,
        downlink_bytes=downlink_bytes,
        bitrate_bps=(uplink_bytes + downlink_bytes) * 8 / clip.duration_s,
        accuracy=task.clip_accuracy(results, references),
        label_accuracy=None if clip.labels is None else task.clip_accuracy(results, clip.labels[::step]),
        camera_ms_per_frame=sum(ms for stage, ms in stage_ms.items() if stage.startswith("camera: ")),
        stage_ms=stage_ms,
        infer_ms=session.median_infer_ms,
        flows=flows,
        results=results,
        seen=session.seen,
    )
