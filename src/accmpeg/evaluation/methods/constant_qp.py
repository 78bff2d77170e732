"""x264 at a constant QP: the baseline of the AccMPEG paper."""

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

__all__ = ["ConstantQp"]


@dataclass(frozen=True)
class ConstantQp:
    """One QP for every macroblock of every frame, the paper's own baseline."""

    at_input_size: bool = False
    source = "Du et al., MLSys 2022, section 6; x264 --qp"
    needs_accmodel = False

    @property
    def quality_shift(self) -> int:
        return INPUT_SIZE_SHIFT if self.at_input_size else 0

    @property
    def name(self) -> str:
        return "constant-qp@dnn" if self.at_input_size else "constant-qp"

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        if self.at_input_size:
            stream = stream.at_input_size(session.context.dnn)
        return SteeredStream(session, SteeredEncoder(stream.settings(point, aq_mode=None), None))
