"""x264 at a constant QP: the baseline of the AccMPEG paper."""

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint, StreamFormat

__all__ = ["ConstantQp"]


class ConstantQp:
    """One QP for every macroblock of every frame, the paper's own baseline."""

    name = "constant-qp"
    source = "Du et al., MLSys 2022, section 6; x264 --qp"

    def open(self, stream: StreamFormat, point: OperatingPoint, context: MethodContext) -> SteeredEncoder:
        return SteeredEncoder(stream.settings(point, aq_mode=None), None)
