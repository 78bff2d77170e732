"""AccMPEG as published: two quality levels by predicted accuracy gradient, no adaptive quantisation."""

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import MethodContext, StreamFormat, need_accmodel
from accmpeg.policy import BinaryPolicy

__all__ = ["Binary", "binary_policy"]

_SPAN_QP = 10


def binary_policy(quality: int) -> BinaryPolicy:
    """The paper's policy about a quality level: its 30/40 pair, shifted."""
    return BinaryPolicy(qp_high=quality, qp_low=min(51, quality + _SPAN_QP))


class Binary:
    """QP `quality` in the top fifth by score grown by a macroblock, 10 coarser elsewhere."""

    name = "binary"
    source = "Du et al., MLSys 2022, section 4"

    def open(self, stream: StreamFormat, quality: int, context: MethodContext) -> SteeredEncoder:
        return SteeredEncoder(
            stream.settings(qp=quality, steerable=True),
            need_accmodel(context, self.name),
            binary_policy(quality),
            every=context.every,
        )
