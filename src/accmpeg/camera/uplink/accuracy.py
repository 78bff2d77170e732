"""How predicted accuracy moves with the bitrate: where more bits stop paying.

The AccModel predicts, for each macroblock B, how much accuracy would change between the low quality that its
labels were made with (QP `qp_low`) and the high one (`qp_high`): a(B). Between the two, and a little beyond,
the error of the picture grows like the quantiser's step, which doubles every 6 QP:

```
d(q)     = (2^((q − high)/6) − 1) / (2^((low − high)/6) − 1), at least 0          0 at high, 1 at low
q(B)     = the frame's QP + the map's offset at B − 6·log2(bitrate / bitrate now)
loss     = Σ a(B)·d(q(B)) / Σ a(B)                             0: nothing left to gain, 1: as bad as low
```
so doubling the bitrate is taken to buy 6 QP. That is coarse; it only has to say when nearly all of the
accuracy gradient lies at QPs where nothing more is gained.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AccuracyCurve"]

FloatMap = NDArray[np.float32]

_QP_PER_DOUBLING = 6.0
_BISECTION_STEPS = 30


@dataclass(frozen=True)
class AccuracyCurve:
    """The curve at one moment: maps `(rows, cols)`, the frame's QP, and the bitrate that gave it."""

    accgrad_log2: FloatMap
    qp_offsets: FloatMap
    frame_qp: float
    bitrate_bps: float
    qp_high: float = 24.0
    qp_low: float = 40.0

    def loss(self, bitrate_bps: float) -> float:
        """Share of the predicted accuracy between low and high quality that is lost at a bitrate."""
        weights = np.exp2(self.accgrad_log2 - self.accgrad_log2.max(), dtype=np.float64)
        qp = self.frame_qp + self.qp_offsets - _QP_PER_DOUBLING * np.log2(bitrate_bps / self.bitrate_bps)
        span = 2 ** ((self.qp_low - self.qp_high) / 6) - 1
        error = np.maximum(np.exp2((np.minimum(qp, 51.0) - self.qp_high) / 6) - 1, 0) / span
        return float((weights * error).sum() / weights.sum())

    def enough_bps(self, lowest_bps: int, highest_bps: int, tolerance: float = 0.02) -> int:
        """The least bitrate that loses no more than `tolerance`; `highest_bps` if none does."""
        if self.loss(highest_bps) > tolerance:
            return highest_bps
        low, high = float(lowest_bps), float(highest_bps)
        for _ in range(_BISECTION_STEPS):
            middle = (low * high) ** 0.5
            if self.loss(middle) > tolerance:
                low = middle
            else:
                high = middle
        return int(high) + 1
