"""Our map: graded offsets by predicted accuracy gradient and objects, on adaptive quantisation."""

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint, StreamFormat, need_accmodel

__all__ = ["Graded"]


class Graded:
    """CRF `quality` with aq-mode 1 and the graded policy's offsets."""

    name = "graded"
    source = "this project: accmpeg.policy.graded"

    def open(self, stream: StreamFormat, point: OperatingPoint, context: MethodContext) -> SteeredEncoder:
        return SteeredEncoder(
            stream.settings(point, aq_mode=1, steerable=True),
            need_accmodel(context, self.name),
            "graded",
            every=context.every,
        )
