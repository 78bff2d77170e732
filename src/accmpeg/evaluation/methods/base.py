"""What a method is to the bench: something that opens a stream at an operating point."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import av

from accmpeg.camera import SteeredEncoder
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.cache import CodedFrame
from accmpeg.evaluation.session import MethodContext, Session
from accmpeg.media.encoder import AccessUnit, EncoderSettings

__all__ = [
    "INPUT_SIZE_SHIFT",
    "Method",
    "MethodContext",
    "OperatingPoint",
    "SteeredStream",
    "Stream",
    "StreamFormat",
    "code_frame",
    "encode_counted",
]

INPUT_SIZE_SHIFT = -6
"""A stream at the DNN's input size needs a finer QP for the same accuracy: half the size, a step of 2 in
quantisation."""


@dataclass(frozen=True)
class OperatingPoint:
    """How fine a stream is: either a `quality` (a QP or CRF, smaller is finer) or a `bitrate_bps`."""

    quality: int | None = None
    bitrate_bps: int | None = None

    def __post_init__(self) -> None:
        if (self.quality is None) == (self.bitrate_bps is None):
            raise ValueError("an operating point has either a quality or a bitrate_bps")

    def __str__(self) -> str:
        return (
            f"q{self.quality}" if self.quality is not None else f"{(self.bitrate_bps or 0) / 1000:g} kbit/s"
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
        self, point: OperatingPoint, *, aq_mode: int | None, steerable: bool = False
    ) -> EncoderSettings:
        """These settings at an operating point; without an `aq_mode` blocks have the exact QP asked for."""
        flat = aq_mode is None
        return EncoderSettings(
            width_px=self.width_px,
            height_px=self.height_px,
            frame_rate=self.frame_rate,
            time_base=self.time_base,
            preset=self.preset,
            gop_frames=self.gop_frames,
            qp=point.quality if flat else None,
            crf=None if flat else point.quality,
            bitrate_bps=point.bitrate_bps,
            aq_mode=1 if flat and point.bitrate_bps is not None else aq_mode,
            aq_strength=0.0001 if flat and point.bitrate_bps is not None else None,
            steerable=steerable,
        )

    def at_input_size(self, dnn: ServerDnn) -> "StreamFormat":
        """The same at the size at which the server DNN sees the frames."""
        width_px, height_px = dnn.card.input.seen_size_px(self.width_px, self.height_px)
        return replace(self, width_px=width_px, height_px=height_px)

    def at_stream_size(self, dnn: ServerDnn) -> "StreamFormat":
        """The same at the size that `--size dnn` chooses: hardly larger frames stay as they are."""
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


class Method(Protocol):
    """One system compared. `source` names the paper or documentation it follows.

    `needs_accmodel` says whether its figures depend on the AccModel; `quality_shift` is added to every point
    of a sweep's common rate grid, so that methods whose streams are smaller cover about the same accuracies.
    Both are optional: True and 0 if absent.

    The bench hands `open` the shared format and an operating point, pushes frames to the stream one at a time
    and never shows it a later one.
    """

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream: ...


def code_frame(steered: SteeredEncoder, frame: av.VideoFrame | None) -> CodedFrame:
    """Encodes a frame, or flushes for None, and reads off what each stage of the encoder took."""
    before = dict(steered.times.total_ms)
    units = steered.flush() if frame is None else steered.encode(frame)
    spent = {stage: ms - before.get(stage, 0.0) for stage, ms in steered.times.total_ms.items()}
    return CodedFrame(units, {stage: ms for stage, ms in spent.items() if ms})


def encode_counted(
    session: Session, steered: SteeredEncoder, frame: av.VideoFrame | None
) -> list[AccessUnit]:
    """Encodes a frame, or flushes at None, each stage counted as the camera's under its own name."""
    coded = code_frame(steered, frame)
    for stage, work_ms in coded.stage_ms.items():
        session.spent("camera", stage, work_ms)
    return list(coded.units)


class SteeredStream:
    """The plain case: every frame is encoded, sent, decoded and seen by the server DNN.

    A stream without maps is a function of the clip and the settings alone: it is taken from the context's
    cache if it was made before, with the CPU times that it took then.
    """

    def __init__(self, session: Session, steered: SteeredEncoder) -> None:
        self._session, self._steered = session, steered
        self._next = 0
        self._coded: list[CodedFrame] = []
        self._cache = None if steered.settings.steerable else session.context.streams
        self._kept = None if self._cache is None else self._cache.read(steered.settings)
        steered.times.total_ms.clear()

    def push(self, index: int, frame: av.VideoFrame) -> None:
        coded = self._kept[index] if self._kept is not None else code_frame(self._steered, frame)
        self._coded.append(coded)
        self._send(coded)

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
