"""Stock x264 at a constant rate factor, with adaptive quantisation off or in one of its three modes."""

from dataclasses import dataclass

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import (
    INPUT_SIZE_SHIFT,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
)
from accmpeg.evaluation.session import Session

__all__ = ["AdaptiveQuantisation"]


@dataclass(frozen=True)
class AdaptiveQuantisation:
    """CRF with `--aq-mode`: 0 off, 1 variance, 2 auto-variance, 3 auto-variance biased to dark scenes."""

    mode: int
    at_input_size: bool = False
    source = "x264 --crf --aq-mode"
    needs_accmodel = False

    @property
    def quality_shift(self) -> int:
        return INPUT_SIZE_SHIFT if self.at_input_size else 0

    @property
    def name(self) -> str:
        return f"aq-{self.mode}{'@dnn' if self.at_input_size else ''}"

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        if self.at_input_size:
            stream = stream.at_input_size(session.context.dnn)
        return SteeredStream(session, SteeredEncoder(stream.settings(point, aq_mode=self.mode), None))
