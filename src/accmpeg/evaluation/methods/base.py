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

__all__ = ["Method", "MethodContext", "StreamFormat", "TrueScores", "need_accmodel"]


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
        *,
        qp: int | None = None,
        crf: float | None = None,
        bitrate_bps: int | None = None,
        aq_mode: int | None = None,
        steerable: bool = False,
    ) -> EncoderSettings:
        """These settings with one way to set the rate."""
        return EncoderSettings(
            width_px=self.width_px,
            height_px=self.height_px,
            frame_rate=self.frame_rate,
            time_base=self.time_base,
            preset=self.preset,
            gop_frames=self.gop_frames,
            qp=qp,
            crf=crf,
            bitrate_bps=bitrate_bps,
            aq_mode=aq_mode,
            steerable=steerable,
        )


class TrueScores:
    """True scores in an AccModel's place; each frame of a clip is labelled once, whatever the number of encodes.

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

    The bench hands `open` the shared format and a quality level (a QP or CRF, smaller is finer), feeds frames
    to the stream one at a time and never shows it a later one.
    """

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    def open(self, stream: StreamFormat, quality: int, context: MethodContext) -> SteeredEncoder: ...


def need_accmodel(context: MethodContext, method: str) -> AccModel:
    """The context's AccModel; raises UsageError where there is none."""
    if context.accmodel is None:
        raise UsageError(f"the method {method} needs an AccModel: give one with --accmodel")
    return context.accmodel
