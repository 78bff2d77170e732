"""What a method is to the bench: something that opens a stream at an operating point."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from accmpeg.accmodel.runtime import AccModel, Scores
from accmpeg.camera import SteeredEncoder
from accmpeg.errors import UsageError
from accmpeg.media.encoder import EncoderSettings

__all__ = ["Method", "MethodContext", "OperatingPoint", "StreamFormat", "TrueScores", "need_accmodel"]


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


class TrueScores:
    """True scores in an AccModel's place; each frame of a clip is labelled once for all encodes.

    Not a system: it costs a pass through the server DNN per map and knows what a camera can't.
    """

    object_threshold = 0.5

    def __init__(self, dnn_card: Path) -> None:
        from accmpeg.accgrad.worker import Labeller, LabelSettings

        self._labeller = Labeller(dnn_card, LabelSettings())
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
    """What a method may use on one clip: the server DNN, its AccModel, how often maps are renewed."""

    dnn_card: Path
    accmodel: AccModel | None = None
    every: int = 10
    _oracle: TrueScores | None = field(default=None, init=False, repr=False)

    def oracle(self) -> TrueScores:
        """The clip's true scores, shared by all methods and operating points."""
        if self._oracle is None:
            self._oracle = TrueScores(self.dnn_card)
        return self._oracle


class Method(Protocol):
    """One system compared. `source` names the paper or documentation it follows.

    The bench hands `open` the shared format and an operating point, feeds frames to the stream one at a time
    and never shows it a later one.
    """

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    def open(self, stream: StreamFormat, point: OperatingPoint, context: MethodContext) -> SteeredEncoder: ...


def need_accmodel(context: MethodContext, method: str) -> AccModel:
    """The context's AccModel; raises UsageError where there is none."""
    if context.accmodel is None:
        raise UsageError(f"the method {method} needs an AccModel: give one with --accmodel")
    return context.accmodel
