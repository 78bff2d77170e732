"""AWStream: the best of many resolutions, frame rates and QPs, learnt from a profile of the clip."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import av
import numpy as np

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.clip import Clip
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, Stream, StreamFormat
from accmpeg.evaluation.methods.skipping import ChosenFrames, LastResult
from accmpeg.media.decoder import Decoder

__all__ = [
    "ROWS",
    "Configuration",
    "Profile",
    "Profiled",
    "pareto_front",
    "profile_frames",
    "profile_key",
]

PROFILE_FRAMES = 12
"""At most; fewer where the bench's warm-up would be over before the adapted stream has begun."""
_LEAST_PROFILE_FRAMES = 5
"""A quarter of the frame rate needs a second frame."""
_QPS = (20, 28, 36, 44)
_FRAME_STEPS = (1, 2, 4)
_SHORTEST_SIDE_PX = 16


@dataclass(frozen=True, order=True)
class Configuration:
    """One setting of the three knobs: stream size, every how many frames one is sent, QP."""

    width_px: int
    height_px: int
    frame_step: int
    qp: int


@dataclass(frozen=True)
class Profiled:
    """What a configuration costs and gives: bytes of a whole GOP (keyframe included), accuracy 0 to 1."""

    configuration: Configuration
    size_bytes: float
    accuracy: float


@dataclass(frozen=True)
class Profile:
    """The Pareto front, rising in bytes and accuracy, and the bytes of full size and rate by QP."""

    front: Sequence[Profiled]
    full_bytes: dict[int, float]

    def budget_bytes(self, point: OperatingPoint, gop_s: float) -> float:
        """What a GOP may cost: as much as full size and full rate at that QP, or the bitrate's share."""
        if point.quality is None:
            return (point.bitrate_bps or 0) * gop_s / 8
        return self.full_bytes[min(max(round(point.quality), min(self.full_bytes)), max(self.full_bytes))]

    def best(self, budget_bytes: float) -> Configuration:
        """The most accurate configuration within a budget; the cheapest where none is."""
        within = [row for row in self.front if row.size_bytes <= budget_bytes * (1 + 1e-9)]
        return (within[-1] if within else self.front[0]).configuration


def _open(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """The resolution, frame rate and QP that are the most accurate at the bytes of the operating point.

    Zhang et al., *AWStream: Adaptive Wide-Area Streaming Analytics*, SIGCOMM 2018. The first 12 frames are
    sent at full size and rate, QP `quality`. From them comes the profile: 3 sizes (the source's, that at
    which the server DNN sees it, half of that) × 3 frame rates (all, half, a quarter) × QPs 20 to 44 (four
    measured, those between interpolated), each with its bytes and its accuracy against the server DNN on the
    pristine frames. From then on the configuration on the Pareto front runs that is the most accurate among
    those that cost no more than full size and rate at QP `quality` (or than `bitrate_bps`), its frames at
    once, in a stream that begins with a keyframe; for a frame left out the server gets a notice of 8 bytes
    and uses its last result again.

    The profile, its frames and the change of streams lie inside the bench's warm-up: nothing measured pays
    for them, as the paper's offline profile is made of training footage before the stream begins. Measured
    is the adapted stream alone, with a keyframe of its own in every GOP. A clip with a shorter warm-up has a
    shorter profile.

    Departures. The paper's profile comes from other footage and is refreshed online when bandwidth is left;
    ours is of the clip's own first half second and stays. Its run time follows a measured bandwidth through
    probing; here the operating point stands for the bandwidth, so one configuration runs. Accuracy is the
    task's own instead of F1. Lower frame rates are scored with the results of the full rate's frames, so
    that each picture is looked at once; the bytes are those of real encodes.
    """
    return _Adapting(stream, point, session)


ROWS = (
    Method(
        name="awstream",
        family="skipping",
        size="own",
        source="Zhang et al., SIGCOMM 2018",
        open=_open,
    ),
)


class _Adapting:
    def __init__(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> None:
        self._format, self._point, self._session = stream, point, session
        self._last = LastResult(session)
        self._frames = ChosenFrames(session, stream.settings(point, aq_mode=None))
        self._frame_step = 1
        self._profile_frames = min(max(session.clip.warm_frames - 1, _LEAST_PROFILE_FRAMES), PROFILE_FRAMES)

    def push(self, index: int, frame: av.VideoFrame) -> None:
        if index == self._profile_frames:
            self._adapt()
        if (index - self._profile_frames) % self._frame_step == 0:
            self._deliver(self._frames.send(index, frame))
        else:
            self._last.reuse(index)

    def finish(self) -> None:
        self._deliver(self._frames.finish())

    def _deliver(self, decoded: list[tuple[int, av.VideoFrame]]) -> None:
        self._last.deliver(decoded)

    def _adapt(self) -> None:
        session, stream = self._session, self._format
        key = profile_key(session.clip)
        profile = session.context.shared.get(key)
        if profile is None:
            pristine = [session.frame(index) for index in range(self._profile_frames)]
            profile = session.context.shared[key] = profile_frames(pristine, stream, session)
        gop_s = stream.gop_frames / float(stream.frame_rate)
        best = profile.best(profile.budget_bytes(self._point, gop_s))
        quality = self._point.quality
        if quality is not None and best == Configuration(
            stream.width_px, stream.height_px, 1, round(quality)
        ):
            return
        self._deliver(self._frames.finish())
        settings = _format(stream, best).settings(OperatingPoint(quality=best.qp), aq_mode=None)
        # Named by its size, because what a stage costs depends on it.
        self._frames = ChosenFrames(session, settings, stream=f"{best.width_px}x{best.height_px}")
        self._frame_step = best.frame_step


def profile_key(clip: Clip) -> str:
    """Of a clip's profile in the context's `shared`: it is made once for all operating points."""
    return f"awstream {clip.name} {len(clip.frames)}"


def _format(stream: StreamFormat, configuration: Configuration) -> StreamFormat:
    return replace(
        stream,
        width_px=configuration.width_px,
        height_px=configuration.height_px,
        frame_rate=stream.frame_rate / configuration.frame_step,
    )


def profile_frames(frames: Sequence[av.VideoFrame], stream: StreamFormat, session: Session) -> Profile:
    """Measures the grid of configurations on pristine frames; nothing of it counts in the session."""
    dnn, task = session.context.dnn, session.context.dnn.task
    references = [dnn.infer(frame) for frame in frames]
    full = (stream.width_px, stream.height_px)
    rows: list[Profiled] = []
    full_bytes: dict[int, float] = {}
    for width_px, height_px in _sizes(stream, session):
        sizes: dict[int, list[float]] = {step: [] for step in _FRAME_STEPS}
        accuracies: dict[int, list[float]] = {step: [] for step in _FRAME_STEPS}
        for qp in _QPS:
            for step in _FRAME_STEPS:
                tried = Configuration(width_px, height_px, step, qp)
                size_bytes, decoded = _encode(frames, stream, tried, decode=step == 1)
                if step == 1:
                    results = [dnn.infer(frame, full) for frame in decoded]
                held = [results[index - index % step] for index in range(len(frames))]
                sizes[step].append(size_bytes)
                accuracies[step].append(task.clip_accuracy(held, references).value)
        for step in _FRAME_STEPS:
            for qp in range(_QPS[0], _QPS[-1] + 1):
                # Bytes fall about exponentially with QP.
                size_bytes = float(np.exp2(np.interp(qp, _QPS, np.log2(sizes[step]))))
                accuracy = float(np.interp(qp, _QPS, accuracies[step]))
                rows.append(Profiled(Configuration(width_px, height_px, step, qp), size_bytes, accuracy))
                if step == 1 and (width_px, height_px) == full:
                    full_bytes[qp] = size_bytes
    return Profile(pareto_front(rows), full_bytes)


def pareto_front(rows: Iterable[Profiled]) -> list[Profiled]:
    """The rows that no other beats in both bytes and accuracy, cheapest first.

    >>> points = [(3, 0.9), (1, 0.5), (2, 0.4), (4, 0.9)]
    >>> rows = [Profiled(Configuration(16, 16, 1, 30), *point) for point in points]
    >>> [(row.size_bytes, row.accuracy) for row in pareto_front(rows)]
    [(1, 0.5), (3, 0.9)]
    """
    front: list[Profiled] = []
    for row in sorted(rows, key=lambda row: (row.size_bytes, -row.accuracy, row.configuration)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front


def _sizes(stream: StreamFormat, session: Session) -> list[tuple[int, int]]:
    """The source's size, that at which the server DNN sees it (`InputCard.seen_size_px`) and half of that."""
    seen = session.context.dnn.card.input.seen_size_px(stream.width_px, stream.height_px)
    half = (2 * round(seen[0] / 4), 2 * round(seen[1] / 4))
    sizes = [(stream.width_px, stream.height_px), seen, half]
    return [size for size in dict.fromkeys(sizes) if min(size) >= _SHORTEST_SIDE_PX or size == sizes[0]]


def _encode(
    frames: Sequence[av.VideoFrame], stream: StreamFormat, tried: Configuration, *, decode: bool
) -> tuple[float, list[av.VideoFrame]]:
    """Bytes of a whole GOP, estimated from some frames of it, and the decoded frames if wanted."""
    settings = _format(stream, tried).settings(OperatingPoint(quality=tried.qp), aq_mode=None)
    with SteeredEncoder(settings, None) as steered:
        units = [unit for frame in frames[:: tried.frame_step] for unit in steered.encode(frame)]
        units += steered.flush()
        decoded: list[av.VideoFrame] = []
        if decode:
            with Decoder(
                steered.encoder.decoder_name,
                steered.encoder.parameter_sets,
                width_px=tried.width_px,
                height_px=tried.height_px,
            ) as decoder:
                decoded = [frame for unit in units for frame in decoder.decode(unit)] + decoder.flush()
    # A profile is shorter than a GOP: its keyframe would weigh far more in it than in the stream.
    others = [unit.size_bytes for unit in units[1:]]
    in_gop = stream.gop_frames / tried.frame_step - 1
    return units[0].size_bytes + float(np.mean(others)) * in_gop, decoded
