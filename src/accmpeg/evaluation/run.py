"""One cell of a comparison: a method at an operating point on a clip, from frames to accuracy.

```
source frames ─▶ method ─▶ access units ─▶ decoder ─▶ server DNN ─▶ results ─▶ accuracy against the reference
```
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import av

from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.clip import Clip
from accmpeg.evaluation.methods.base import Method, MethodContext, OperatingPoint, StreamFormat
from accmpeg.media.decoder import Decoder
from accmpeg.media.encoder import AccessUnit
from accmpeg.tasks import ClipAccuracy

__all__ = ["Cell", "Encoded", "decode_sampled", "encode_clip", "evaluate", "reference_results"]


@dataclass(frozen=True)
class Encoded:
    """A clip as one method sends it."""

    units: Sequence[AccessUnit]
    parameter_sets: bytes
    frame_bytes: Sequence[int]
    """What crosses the network for each source frame."""
    camera_ms: Sequence[float]
    """CPU time of the camera for each source frame."""
    stage_ms: dict[str, float]
    """Mean CPU time per frame of each camera stage."""

    @property
    def size_bytes(self) -> int:
        return sum(self.frame_bytes)


@dataclass(frozen=True)
class Cell:
    """What one method did at one operating point on one clip."""

    clip: str
    method: str
    point: OperatingPoint
    size_bytes: int
    bitrate_bps: float
    accuracy: ClipAccuracy
    label_accuracy: ClipAccuracy | None
    camera_ms_per_frame: float
    stage_ms: dict[str, float]
    server_ms_per_frame: float
    encoded: Encoded = field(repr=False, compare=False)
    results: Sequence[Any] = field(repr=False, compare=False)


def encode_clip(clip: Clip, method: Method, point: OperatingPoint, context: MethodContext) -> Encoded:
    """Feeds the clip to the method frame by frame; it never sees a frame before its turn."""
    stream = StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)
    units: list[AccessUnit] = []
    frame_bytes: list[int] = []
    camera_ms: list[float] = []
    with method.open(stream, point, context) as steered:
        for frame in clip.frames:
            start_ns = time.process_time_ns()
            sent = steered.encode(frame)
            camera_ms.append((time.process_time_ns() - start_ns) / 1e6)
            frame_bytes.append(sum(unit.size_bytes for unit in sent))
            units += sent
        units += (rest := steered.flush())
        frame_bytes[-1] += sum(unit.size_bytes for unit in rest)
        steered.times.total_ms.pop("open", None)
        stage_ms = steered.times.per_frame_ms(len(clip.frames))
        return Encoded(units, steered.encoder.parameter_sets, frame_bytes, camera_ms, stage_ms)


def decode_sampled(encoded: Encoded, clip: Clip, step: int) -> list[av.VideoFrame]:
    """Every `step`-th decoded frame, from the first on."""
    decoder = Decoder("h264", encoded.parameter_sets, width_px=clip.width_px, height_px=clip.height_px)
    frames: list[av.VideoFrame] = []
    count = 0
    for unit in encoded.units:
        for frame in decoder.decode(unit):
            if count % step == 0:
                frames.append(frame)
            count += 1
    for frame in decoder.flush():
        if count % step == 0:
            frames.append(frame)
        count += 1
    return frames


def reference_results(clip: Clip, dnn: ServerDnn, step: int) -> list[Any]:
    """The server DNN's results on the pristine frames: what accuracy is measured against."""
    return [dnn.infer(frame) for frame in clip.frames[::step]]


def evaluate(
    clip: Clip,
    dnn: ServerDnn,
    method: Method,
    point: OperatingPoint,
    context: MethodContext,
    references: Sequence[Any],
    *,
    step: int = 1,
) -> Cell:
    """Encodes, decodes and runs the server DNN on every `step`-th frame; `references` are of those frames."""
    encoded = encode_clip(clip, method, point, context)
    start_ns = time.process_time_ns()
    decoded = decode_sampled(encoded, clip, step)
    decode_ms = (time.process_time_ns() - start_ns) / 1e6 / len(clip.frames)
    start_s = time.monotonic()
    results = [dnn.infer(frame) for frame in decoded]
    infer_ms = (time.monotonic() - start_s) * 1000 / max(1, len(decoded))
    return Cell(
        clip=clip.name,
        method=method.name,
        point=point,
        size_bytes=encoded.size_bytes,
        bitrate_bps=encoded.size_bytes * 8 / clip.duration_s,
        accuracy=dnn.task.clip_accuracy(results, references),
        label_accuracy=None if clip.labels is None else dnn.task.clip_accuracy(results, clip.labels[::step]),
        camera_ms_per_frame=sum(encoded.camera_ms) / len(encoded.camera_ms),
        stage_ms=encoded.stage_ms,
        server_ms_per_frame=decode_ms + infer_ms,
        encoded=encoded,
        results=results,
    )
