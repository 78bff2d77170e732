"""Our map: an offset per macroblock by its accuracy gradient, coarser outside objects."""

from dataclasses import dataclass, field

import numpy as np

from accmpeg.media.grid import box_mean_3x3, combine_3x3, gaussian_blur
from accmpeg.steering.policy import FloatMap, MapHistory, centred

__all__ = ["GradedPolicy"]


@dataclass
class GradedPolicy:
    """An offset per macroblock, in proportion to the log of its AccGrad.

    ```
    a      = max(AccGrad, its 3×3 mean)                     thin objects keep their neighbours
    l      = log2(a + 0.05·median(a)), blurred by 0.7 MB    noise in flat areas is worth nothing
    raw    = −alpha·l + outside_penalty·outside             outside = 1 − P(object)/threshold, at least 0
    offset = clip(raw + k, lowest, highest)
    ```
    P(object) is first grown by one macroblock, so that the edges of objects stay inside. k makes the mean
    over the last `history_maps` maps zero, so a frame with more in it gets more bits, but no frame's own mean
    moves further than `frame_shift` from zero: where the model sees nothing, the picture stays about as good
    as plain video. In a rate-controlled stream k makes the bit-weighted mean of each map zero.

    The limits −11 and +13 are the −6 and +18 about a mean of +5 with a base QP 5 finer.
    """

    alpha: float = 1.0
    outside_penalty: float = 12.0
    lowest: float = -11.0
    highest: float = 13.0
    blur_macroblocks: float = 0.7
    object_threshold: float = 0.5
    frame_shift: float = 4.0
    history_maps: int = 12
    name: str = "graded"
    _history: MapHistory = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.lowest < 0 < self.highest:
            raise ValueError(f"0 must lie between lowest {self.lowest} and highest {self.highest}")
        self._history = MapHistory(self.history_maps)

    def qp_offsets(
        self,
        accgrad_log2: FloatMap,
        objects: FloatMap | None = None,
        bit_weights: FloatMap | None = None,
    ) -> FloatMap:
        """See `QualityPolicy.qp_offsets`."""
        raw = self._raw(accgrad_log2, objects)
        if bit_weights is not None:
            shift = centred(raw.ravel(), self.lowest, self.highest, bit_weights.ravel())
        else:
            running = centred(self._history.add(raw), self.lowest, self.highest)
            own = centred(raw.ravel(), self.lowest, self.highest)
            shift = min(max(running, own - self.frame_shift), own + self.frame_shift)
        offsets = np.clip(raw + np.float32(shift), self.lowest, self.highest)
        return np.asarray(np.rint(offsets), dtype=np.float32)

    def _raw(self, accgrad_log2: FloatMap, objects: FloatMap | None) -> FloatMap:
        # In units of the frame's own peak, so that exp2 neither overflows nor vanishes.
        peak_log2 = accgrad_log2.max()
        accgrad = np.exp2(np.maximum(accgrad_log2 - peak_log2, -60.0)).astype(np.float32)
        protected = np.maximum(accgrad, box_mean_3x3(accgrad))
        floor = 0.05 * float(np.median(protected)) + 1e-12
        level = gaussian_blur(np.log2(protected + np.float32(floor)), self.blur_macroblocks)
        raw = -self.alpha * (level + peak_log2)
        if objects is not None:
            raw = raw + self.outside_penalty * outside_objects(objects, self.object_threshold)
        return np.asarray(raw, dtype=np.float32)


def outside_objects(objects: FloatMap, threshold: float) -> FloatMap:
    """1 where no object is near, 0 where one is likely; `objects` grown by one macroblock first."""
    grown = combine_3x3(np.maximum, objects)
    return np.asarray(np.clip(1 - grown / np.float32(max(threshold, 1e-3)), 0, 1), dtype=np.float32)
