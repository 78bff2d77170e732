"""AccMPEG as published: two quality levels by predicted accuracy gradient, no adaptive quantisation."""

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import OperatingPoint, SteeredStream, Stream, StreamFormat
from accmpeg.evaluation.session import Session
from accmpeg.policy import BinaryPolicy

__all__ = ["Binary", "binary_policy"]

_SPAN_QP = 10


def binary_policy(point: OperatingPoint) -> BinaryPolicy:
    """The paper's policy about an operating point: its 30/40 pair, shifted."""
    high = 30 if point.quality is None else point.quality
    return BinaryPolicy(qp_high=high, qp_low=min(51, high + _SPAN_QP))


class Binary:
    """QP `quality` in the top fifth by score grown by a macroblock, 10 coarser elsewhere."""

    name = "binary"
    source = "Du et al., MLSys 2022, section 4"

    def open(self, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
        context = session.context
        steered = SteeredEncoder(
            stream.settings(point, aq_mode=None, steerable=True),
            context.need_accmodel(self.name),
            binary_policy(point),
            every=context.every,
        )
        return SteeredStream(session, steered)
