"""The paper's two-level map: high quality where the accuracy gradient is high, low elsewhere."""

from dataclasses import dataclass

import numpy as np

from accmpeg.media.grid import dilate
from accmpeg.steering.policy import FloatMap, centred

__all__ = ["BinaryPolicy"]


@dataclass(frozen=True)
class BinaryPolicy:
    """Two quality levels by AccGrad (Du et al., MLSys 2022, section 4).

    A macroblock is high when its AccGrad exceeds `threshold_log2`, or, without a threshold, when it is among
    the `top_share` of the frame; the high area then grows by `dilate_macroblocks`. High macroblocks have QP
    `qp_high`, the others `qp_low`; offsets are relative to `qp_high`.
    """

    qp_high: int = 30
    qp_low: int = 40
    top_share: float = 0.2
    threshold_log2: float | None = None
    dilate_macroblocks: int = 1
    name: str = "binary"

    def __post_init__(self) -> None:
        if not 0 < self.top_share <= 1:
            raise ValueError(f"top_share is a share of the frame, above 0 and up to 1, not {self.top_share}")
        if self.qp_low < self.qp_high:
            raise ValueError(f"qp_low {self.qp_low} is finer than qp_high {self.qp_high}")

    def qp_offsets(
        self,
        accgrad_log2: FloatMap,
        objects: FloatMap | None = None,
        bit_weights: FloatMap | None = None,
    ) -> FloatMap:
        """See `QualityPolicy.qp_offsets`; `objects` is not used, as in the paper."""
        del objects
        if self.threshold_log2 is not None:
            high = accgrad_log2 > self.threshold_log2
        else:
            count = max(1, round(self.top_share * accgrad_log2.size))
            high = np.zeros(accgrad_log2.shape, dtype=np.bool_)
            # Stable, for a flat map would otherwise be all high: ties go in reading order.
            high.flat[np.argsort(-accgrad_log2.ravel(), kind="stable")[:count]] = True
        span = self.qp_low - self.qp_high
        offsets = np.where(dilate(high, self.dilate_macroblocks), 0, span).astype(np.float32)
        if bit_weights is not None:
            offsets += np.float32(round(centred(offsets.ravel(), -span - 1, span + 1, bit_weights.ravel())))
        return offsets
