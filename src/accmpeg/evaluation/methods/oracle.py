"""The map a perfect AccModel would give: the true accuracy gradients. Not a system: an upper bound."""

from dataclasses import dataclass
from typing import Literal

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.methods.base import MethodContext, OperatingPoint, StreamFormat
from accmpeg.evaluation.methods.binary import binary_policy

__all__ = ["Oracle"]


@dataclass(frozen=True)
class Oracle:
    """`oracle-binary` and `oracle-graded`: the policies on true gradients and the DNN's own objects."""

    policy: Literal["binary", "graded"]
    source = "upper bound; gradients as in Du et al., MLSys 2022, section 4"

    @property
    def name(self) -> str:
        return f"oracle-{self.policy}"

    def open(self, stream: StreamFormat, point: OperatingPoint, context: MethodContext) -> SteeredEncoder:
        model = context.oracle()
        if self.policy == "binary":
            settings = stream.settings(point, aq_mode=None, steerable=True)
            return SteeredEncoder(settings, model, binary_policy(point), every=context.every)
        settings = stream.settings(point, aq_mode=1, steerable=True)
        return SteeredEncoder(settings, model, "graded", every=context.every)
