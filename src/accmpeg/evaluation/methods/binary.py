"""AccMPEG as published: two quality levels by predicted accuracy gradient, no adaptive quantisation."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from accmpeg.camera import SteeredEncoder
from accmpeg.evaluation.bench.session import Session
from accmpeg.evaluation.methods.base import Method, OperatingPoint, SteeredStream, Stream, StreamFormat
from accmpeg.steering import BinaryPolicy
from accmpeg.steering.policy import FloatMap

__all__ = ["ROWS", "FixedThresholdPolicy", "binary_policy"]

_SPAN_QP = 10
_TOP_SHARE = 0.2


def binary_policy(point: OperatingPoint) -> BinaryPolicy:
    """The paper's policy about an operating point: its 30/40 pair, shifted."""
    high = 30 if point.quality is None else round(point.quality)
    return BinaryPolicy(qp_high=high, qp_low=min(51, high + _SPAN_QP), top_share=_TOP_SHARE)


@dataclass
class FixedThresholdPolicy:
    """The binary policy with one threshold for the whole stream, as published.

    The paper sets 0.2 on the output of its own network, a probability. Our AccModel predicts log2 AccGrad,
    whose scale is each server DNN's own, so 0.2 means nothing on it. The threshold here is what a fifth of
    the macroblocks of the first `calibration_maps` maps exceed, and is fixed from then on: the high area
    grows and shrinks with what there is to see, which the top fifth of every map can't.
    """

    policy: BinaryPolicy
    calibration_maps: int
    name: str = "binary, fixed threshold"
    threshold_log2: float = 0.0
    _seen: list[FloatMap] = field(default_factory=list, repr=False)

    def qp_offsets(
        self,
        accgrad_log2: FloatMap,
        objects: FloatMap | None = None,
        bit_weights: FloatMap | None = None,
    ) -> FloatMap:
        """See `QualityPolicy.qp_offsets`."""
        if len(self._seen) < self.calibration_maps:
            self._seen.append(accgrad_log2.ravel())
            self.threshold_log2 = float(np.quantile(np.concatenate(self._seen), 1 - self.policy.top_share))
        fixed = replace(self.policy, threshold_log2=self.threshold_log2)
        return fixed.qp_offsets(accgrad_log2, objects, bit_weights)


def _open(fixed: bool, stream: StreamFormat, point: OperatingPoint, session: Session) -> Stream:
    """QP `quality` in the high macroblocks grown by one, 10 coarser elsewhere."""
    context = session.context
    policy: BinaryPolicy | FixedThresholdPolicy = binary_policy(point)
    if fixed:
        maps = -(-session.clip.warm_frames // context.every)
        policy = FixedThresholdPolicy(binary_policy(point), max(1, maps))
    steered = SteeredEncoder(
        stream.settings(point, aq_mode=None, steerable=True),
        context.need_accmodel("binary"),
        policy,
        every=context.every,
    )
    return SteeredStream(session, steered)


_BINARY = Method(
    name="binary",
    family="accmpeg",
    source="Du et al., MLSys 2022, section 4",
    needs=frozenset({"accmodel"}),
    knobs={"threshold": "top-fifth"},
    open=partial(_open, False),
)

ROWS = (_BINARY, _BINARY.with_knob("threshold", "fixed", partial(_open, True)))
