"""One method at one operating point on one clip, and what its stages cost.

```
source frames ─▶ method ─▶ session (bytes, costs) ─▶ server DNN ─▶ results of the wanted frames
```
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import av

from accmpeg.evaluation.bench.cache import stops_all
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.costs import ROUNDS, Costs, settle
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods import METHODS
from accmpeg.evaluation.methods.base import Method, MethodContext, OperatingPoint, StreamFormat

__all__ = ["PLAIN_METHOD", "rehearse", "run_method"]

PLAIN_METHOD = "aq-1"
"""Stock x264 at the source size: what every camera's cost is held against."""

_REHEARSED_FRAMES = 40
_TIMED_PASSES = 7
_NOTHING: frozenset[int] = frozenset()


def run_method(
    clip: Clip,
    method: Method,
    point: OperatingPoint,
    context: MethodContext,
    *,
    wanted: frozenset[int] = _NOTHING,
    costs: Costs | None = None,
    keep: frozenset[int] = _NOTHING,
) -> Session:
    """Feeds the clip to the method frame by frame; it never sees a frame before its turn.

    Raises `MethodError` for a method that cheats, and whatever the method raises.
    """
    session = Session(clip, context, wanted=wanted, costs=costs, keep=keep)
    stream_format = StreamFormat(clip.width_px, clip.height_px, clip.frame_rate, clip.time_base)
    stream = method.open(stream_format, point, session)
    try:
        for index in range(len(clip.frames)):
            stream.push(index, session.capture(index))
    finally:
        stream.finish()
    session.end()
    return session


def rehearse(
    clip: Clip,
    methods: Sequence[tuple[Method, OperatingPoint]],
    plain: OperatingPoint,
    context: MethodContext,
) -> Mapping[str, Costs]:
    """What the stages of each method cost on the first frames of a clip: medians of repeated rounds.

    A method may be there at several points: what it costs the camera is their mean. All methods take their
    turn in every round, plain x264 (at `plain`) among them, so that whatever slows the machine down slows all
    of them. A method that fails has no costs; its cells will say why.
    """
    short = replace(clip, frames=clip.frames[:_REHEARSED_FRAMES], labels=None)
    # Streams that were kept cost nothing; here everything has to be done.
    alone = replace(context, streams=None, shared={})
    runs = [
        (METHODS[PLAIN_METHOD], plain),
        *((method, point) for method, point in methods if method.name != PLAIN_METHOD),
    ]
    rounds: dict[str, list[Session]] = {}
    failed: set[str] = set()
    for _ in range(ROUNDS):
        for method, point in runs:
            if method.name in failed:
                continue
            try:
                rounds.setdefault(method.name, []).append(run_method(short, method, point, alone))
            except Exception as error:  # a plug-in may raise anything
                if stops_all(error):
                    raise
                failed.add(method.name)
    infer_ms = round(median(_timed_ms(context, frame) for frame in clip.frames[:_TIMED_PASSES]), 3)
    settled = {
        name: (settle([session.timings_ms for session in sessions]), sessions)
        for name, sessions in rounds.items()
        if name not in failed
    }
    plain_ms = _camera_ms(*settled[PLAIN_METHOD])
    return {
        name: Costs(
            stage_ms=stage_ms,
            camera_ms=_camera_ms(stage_ms, sessions),
            plain_camera_ms=plain_ms,
            infer_ms=infer_ms,
        )
        for name, (stage_ms, sessions) in settled.items()
    }


def _camera_ms(stage_ms: Mapping[str, float], sessions: Sequence[Session]) -> float:
    """Per source frame: every call of every stage on the camera, at its settled cost."""
    total_ms = sum(
        len(calls) * stage_ms[stage]
        for session in sessions
        for stage, calls in session.timings_ms.items()
        if stage.startswith("camera: ")
    )
    return round(total_ms / sum(len(session.clip.frames) for session in sessions), 4)


def _timed_ms(context: MethodContext, frame: av.VideoFrame) -> float:
    start_ns = time.process_time_ns()
    context.dnn.infer(frame)
    return (time.process_time_ns() - start_ns) / 1e6
