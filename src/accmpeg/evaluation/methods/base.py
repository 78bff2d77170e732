"""What a method is to the bench: a declared row, which opens a stream at an operating point."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, Protocol

import av

from accmpeg.camera import SteeredEncoder
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.bench.cache import CodedFrame
from accmpeg.evaluation.bench.session import MethodContext, Session, stage_of
from accmpeg.media.encoder import AccessUnit, EncoderSettings

__all__ = [
    "DNN_SIZE_SHIFT",
    "Family",
    "Method",
    "MethodContext",
    "Need",
    "OperatingPoint",
    "Size",
    "SteeredStream",
    "Stream",
    "StreamFormat",
    "also_at_dnn_size",
    "answered",
    "code_frame",
    "encode_counted",
    "keep_seen",
]

DNN_SIZE_SHIFT = -6
"""A stream at the DNN's size needs a finer QP for the same accuracy: half the size, a step of 2 in
quantisation."""

IP_RATIO = 1.4
"""Keyframes are 2.9 QP finer than P frames: x264's default, in every method."""

B_FRAMES = 2

Family = Literal["stock", "accmpeg", "feedback", "region", "skipping", "oracle", "plugin"]
"""Stock x264; maps by accuracy gradients; maps by the server's own answers; regions sent finer or alone;
frames or pixels left out; true gradients, which no system has; somebody else's."""

Size = Literal["source", "dnn", "own"]
"""Of the streams: the source's, `StreamFormat.at_dnn_size`, or the method's own choice."""

Need = Literal["accmodel", "objects", "boxes", "gradient"]
"""An AccModel; its `objects` map; a server DNN whose results have boxes; one that can be differentiated."""


@dataclass(frozen=True)
class OperatingPoint:
    """How fine a stream is: either a `quality` (a QP or CRF, smaller is finer) or a `bitrate_bps`.

    Methods at an exact QP round a fractional `quality`.
    """

    quality: float | None = None
    bitrate_bps: int | None = None

    def __post_init__(self) -> None:
        if (self.quality is None) == (self.bitrate_bps is None):
            raise ValueError("an operating point has either a quality or a bitrate_bps")

    def __str__(self) -> str:
        return (
            f"q{self.quality:g}" if self.quality is not None else f"{(self.bitrate_bps or 0) / 1000:g} kbit/s"
        )


@dataclass(frozen=True)
class StreamFormat:
    """What all methods share on one clip: the fair settings."""

    width_px: int
    height_px: int
    frame_rate: Fraction
    time_base: Fraction
    preset: str = "veryfast"
    gop_frames: int = 250

    def settings(
        self,
        point: OperatingPoint,
        *,
        aq_mode: int | None,
        steerable: bool = False,
        b_frames: int = 0,
        mbtree_frames: int = 0,
    ) -> EncoderSettings:
        """These settings at an operating point.

        Without an `aq_mode` every block of a P frame has the exact QP asked for, one of a keyframe that of
        x264's I/P ratio below it. mb-tree is off unless it has frames to look ahead.
        """
        flat = aq_mode is None
        params = {"ipratio": f"{IP_RATIO}"}
        if flat and point.quality is not None:
            # With a qcomp of exactly 1 x264 leaves the first keyframe, and only that, without the I/P ratio.
            params["qcomp"] = "0.9999"
        return EncoderSettings(
            width_px=self.width_px,
            height_px=self.height_px,
            frame_rate=self.frame_rate,
            time_base=self.time_base,
            preset=self.preset,
            gop_frames=self.gop_frames,
            qp=None if point.quality is None or not flat else round(point.quality),
            crf=None if flat else point.quality,
            bitrate_bps=point.bitrate_bps,
            aq_mode=1 if flat and point.bitrate_bps is not None else aq_mode,
            aq_strength=0.0001 if flat and point.bitrate_bps is not None else None,
            steerable=steerable,
            b_frames=b_frames,
            mbtree_frames=mbtree_frames,
            extra={"x264-params": ":".join(f"{name}={value}" for name, value in params.items())},
        )

    def at_dnn_size(self, dnn: ServerDnn) -> "StreamFormat":
        """The same at the server DNN's size, as `--size dnn` chooses it: what "@dnn" means in every row.

        That is the size at which the DNN sees the frames; frames less than 1.4 times as large stay as they
        are (see `InputCard.stream_size_px`).
        """
        width_px, height_px = dnn.card.input.stream_size_px(self.width_px, self.height_px)
        return replace(self, width_px=width_px, height_px=height_px)


class Stream(Protocol):
    """A method at work on one clip; its session is the only way to bytes, costs and results."""

    def push(self, index: int, frame: av.VideoFrame) -> None:
        """Takes the frame that was just captured (yuv420p, source size; not to be changed)."""
        ...

    def finish(self) -> None:
        """The clip is over: delivers what is still owed and frees what is held."""
        ...


@dataclass(frozen=True)
class Method:
    """One row of a comparison, as data: nothing is ever read from a method's name.

    The bench hands `open` the shared format and an operating point, pushes frames to the stream one at a time
    and never shows it a later one. `open` raises UsageError where the method makes no sense.
    """

    name: str
    family: Family
    source: str
    """The paper or documentation that it follows."""
    open: Callable[[StreamFormat, OperatingPoint, Session], Stream] = field(repr=False)
    size: Size = "source"
    needs: frozenset[Need] = frozenset()
    knobs: Mapping[str, float | str] = field(default_factory=dict, hash=False)
    """This row's own settings, beyond those that all share."""
    chunk_frames: int = 1
    """How many frames are gathered before any of them is answered; with 1 each goes at once."""
    quality_shift: int = 0
    """Added to the common operating points, for streams that need a finer QP for the same accuracy."""
    system: str = ""
    """What rows have in common that differ in size or in a knob only; the name of a row without siblings."""
    code: str = field(default="", repr=False)
    """Of a plug-in: a hash of its code, by `find_methods`. Figures of other code are not its own."""

    def __post_init__(self) -> None:
        if not self.name or "," in self.name or any(letter.isspace() for letter in self.name):
            raise ValueError(f"a method can't be called {self.name!r}: give a name without commas and spaces")
        if self.chunk_frames < 1:
            raise ValueError(f"{self.name} gathers {self.chunk_frames} frames: give 1 or more")
        if not self.system:
            object.__setattr__(self, "system", self.name)

    def with_knob(
        self, knob: str, value: float | str, open: Callable[[StreamFormat, OperatingPoint, Session], Stream]
    ) -> "Method":
        """The row of the same system with one knob elsewhere, called `NAME:KNOB=VALUE`."""
        shown = f"{value:g}" if isinstance(value, float) else value
        return replace(self, name=f"{self.name}:{knob}={shown}", knobs={**self.knobs, knob: value}, open=open)


def also_at_dnn_size(method: Method) -> tuple[Method, Method]:
    """A method at the source's size, and the same at the server DNN's, called `NAME@dnn`."""

    def open_small(stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        return method.open(stream.at_dnn_size(session.context.dnn), point, session)

    small = replace(
        method,
        name=f"{method.name}@dnn",
        size="dnn",
        quality_shift=method.quality_shift + DNN_SIZE_SHIFT,
        open=open_small,
    )
    return method, small


def code_frame(steered: SteeredEncoder, frame: av.VideoFrame | None) -> CodedFrame:
    """Encodes a frame, or flushes for None, and reads off what each stage of the encoder took."""
    units = steered.flush() if frame is None else steered.encode(frame)
    return CodedFrame(units, _taken_ms(steered))


def encode_counted(
    session: Session, steered: SteeredEncoder, frame: av.VideoFrame | None, *, stream: str = "main"
) -> list[AccessUnit]:
    """Encodes a frame, or flushes at None, each stage counted as the camera's under its own name."""
    coded = code_frame(steered, frame)
    for stage, work_ms in coded.stage_ms.items():
        session.spent("camera", stage_of(stage, stream), work_ms)
    return list(coded.units)


def _taken_ms(steered: SteeredEncoder) -> dict[str, float]:
    return {stage: ms for stage, ms in steered.times.take().items() if ms}


def answered(session: Session, index: int, frame: av.VideoFrame) -> Any:
    """The server DNN's result on a decoded frame, delivered as that of source frame `index`, for methods that
    go on to use it: unlike `Session.deliver` it always runs the DNN."""
    result = session.infer(frame)
    keep_seen(session, index, frame)
    session.deliver_result(index, result)
    return result


def keep_seen(session: Session, index: int, frame: av.VideoFrame) -> None:
    """Keeps what the server DNN saw of a frame if it is wanted for a picture, at the source's size."""
    if index in session.keep:
        session.seen[index] = frame.reformat(width=session.clip.width_px, height=session.clip.height_px)


class SteeredStream:
    """The plain case: every frame is encoded, sent, decoded and seen by the server DNN.

    As in the camera, a map that is due is made when the frame has been sent.

    A stream without maps is a function of the clip and the settings alone: it is taken from the context's
    cache if it was made before, with the CPU times that it took then.
    """

    def __init__(self, session: Session, steered: SteeredEncoder) -> None:
        self._session, self._steered = session, steered
        self._next = 0
        self._coded: list[CodedFrame] = []
        self._cache = None if steered.settings.steerable else session.context.streams
        self._kept = None if self._cache is None else self._cache.read(steered.settings)
        steered.times.take()

    def push(self, index: int, frame: av.VideoFrame) -> None:
        coded = self._kept[index] if self._kept is not None else code_frame(self._steered, frame)
        self._coded.append(coded)
        self._send(coded)
        self._steered.renew_map()
        for stage, work_ms in _taken_ms(self._steered).items():
            self._session.spent("camera", stage, work_ms, after=True)

    def finish(self) -> None:
        coded = self._kept[-1] if self._kept is not None else code_frame(self._steered, None)
        self._send(coded)
        if self._cache is not None and self._kept is None:
            self._cache.write(self._steered.settings, [*self._coded, coded])
        self._deliver(self._session.flush_decoder())
        self._steered.close()

    def _send(self, coded: CodedFrame) -> None:
        session = self._session
        for stage, work_ms in coded.stage_ms.items():
            session.spent("camera", stage, work_ms)
        session.upload(coded.units)
        if coded.units:
            self._deliver(session.decode(coded.units, self._steered.encoder))

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            self._session.deliver(self._next, frame)
            self._next += 1
