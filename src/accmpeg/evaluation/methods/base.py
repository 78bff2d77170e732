"""What a method is to the bench: something that opens a stream at an operating point."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import av

from accmpeg.camera import SteeredEncoder
from accmpeg.dnn.base import ServerDnn
from accmpeg.evaluation.session import MethodContext, Session
from accmpeg.media.encoder import EncoderSettings

__all__ = ["Method", "MethodContext", "OperatingPoint", "SteeredStream", "Stream", "StreamFormat"]


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
        width_px, height_px = dnn.input_size_px(self.width_px, self.height_px)
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

    The bench hands `open` the shared format and an operating point, pushes frames to the stream one at a time
    and never shows it a later one.
    """

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream: ...


class SteeredStream:
    """The plain case: every frame is encoded, sent, decoded and seen by the server DNN."""

    def __init__(self, session: Session, steered: SteeredEncoder) -> None:
        self._session, self._steered = session, steered
        self._next = 0
        steered.times.total_ms.pop("open", None)

    def push(self, index: int, frame: av.VideoFrame) -> None:
        del index
        session, steered = self._session, self._steered
        before = dict(steered.times.total_ms)
        with session.camera("other"):
            units = steered.encode(frame)
        for stage, total_ms in steered.times.total_ms.items():
            session.split_stage("camera: other", f"camera: {stage}", total_ms - before.get(stage, 0.0))
        session.upload(units)
        self._deliver(session.decode(units, steered.encoder))

    def finish(self) -> None:
        session, steered = self._session, self._steered
        with session.camera("encode"):
            units = steered.flush()
        session.upload(units)
        self._deliver([*session.decode(units, steered.encoder), *session.flush_decoder()])
        steered.close()

    def _deliver(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            self._session.deliver(self._next, frame)
            self._next += 1
