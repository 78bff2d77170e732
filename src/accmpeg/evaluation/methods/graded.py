"""Our map: graded offsets by predicted accuracy gradient and objects, on adaptive quantisation."""

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

__all__ = ["Graded"]


@dataclass(frozen=True)
class Graded:
    """CRF `quality` with aq-mode 1 and the graded policy's offsets."""

    at_input_size: bool = False
    source = "this project: accmpeg.policy.graded"

    @property
    def quality_shift(self) -> int:
        return INPUT_SIZE_SHIFT if self.at_input_size else 0

    @property
    def name(self) -> str:
        return "graded@dnn" if self.at_input_size else "graded"

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        context = session.context
        if self.at_input_size:
            stream = stream.at_stream_size(context.dnn)
        steered = SteeredEncoder(
            stream.settings(point, aq_mode=1, steerable=True),
            context.need_accmodel(self.name),
            "graded",
            every=context.every,
        )
        return SteeredStream(session, steered)
