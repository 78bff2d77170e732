"""The map a perfect AccModel would give: the true accuracy gradients. Not a system: an upper bound."""

from dataclasses import dataclass
from typing import Literal

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import (
    INPUT_SIZE_SHIFT,
    OperatingPoint,
    SteeredStream,
    Stream,
    StreamFormat,
)
from accmpeg.evaluation.methods.binary import binary_policy
from accmpeg.evaluation.session import Session

__all__ = ["Oracle"]


@dataclass(frozen=True)
class Oracle:
    """`oracle-binary` and `oracle-graded`: the policies on true gradients and the DNN's own objects."""

    policy: Literal["binary", "graded"]
    at_input_size: bool = False
    source = "upper bound; gradients as in Du et al., MLSys 2022, section 4"
    needs_accmodel = False

    @property
    def quality_shift(self) -> int:
        return INPUT_SIZE_SHIFT if self.at_input_size else 0

    @property
    def name(self) -> str:
        return f"oracle-{self.policy}{'@dnn' if self.at_input_size else ''}"

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        context = session.context
        if self.at_input_size:
            stream = stream.at_stream_size(context.dnn)
        graded = self.policy == "graded"
        steered = SteeredEncoder(
            stream.settings(point, aq_mode=1 if graded else None, steerable=True),
            context.oracle(),
            "graded" if graded else binary_policy(point),
            every=context.every,
        )
        return SteeredStream(session, steered)
