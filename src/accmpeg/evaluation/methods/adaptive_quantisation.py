"""Stock x264 at a constant rate factor, with adaptive quantisation off or in one of its three modes."""

from dataclasses import dataclass

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint, StreamFormat

__all__ = ["AdaptiveQuantisation"]


@dataclass(frozen=True)
class AdaptiveQuantisation:
    """CRF with `--aq-mode`: 0 off, 1 variance, 2 auto-variance, 3 auto-variance biased to dark scenes."""

    mode: int
    source = "x264 --crf --aq-mode"

    @property
    def name(self) -> str:
        return f"aq-{self.mode}"

    def open(self, stream: StreamFormat, point: OperatingPoint, context: MethodContext) -> SteeredEncoder:
        return SteeredEncoder(stream.settings(point, aq_mode=self.mode), None)
