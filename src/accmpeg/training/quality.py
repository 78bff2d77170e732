"""How well predicted scores agree with true accuracy gradients, on one frame and over a set of frames.

The figure that matters is the **top share**: give high quality to the fifth of the macroblocks with the
highest predicted score; what part of the AccGrad that the truly highest fifth holds do they hold?

>>> import numpy as np
>>> top_share(np.array([[3.0, 2.0, 1.0, 0.0, 0.0]]), np.log2([[4.0, 8.0, 2.0, 1.0, 1.0]]))
0.5
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TOP_FRACTION",
    "FrameQuality",
    "frame_quality",
    "mean_quality",
    "threshold_for_recall",
    "top_share",
]

TOP_FRACTION = 0.2

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """Agreement on a frame, or its mean over frames; a figure that a frame does not define is NaN.

    `top_share_all` counts every frame. `top_share` leaves out those where a server DNN that reports objects
    reports none: there is no accuracy to hold there, only rejected candidates to rank.
    """

    top_share: float
    top_share_all: float
    rank_correlation: float
    log_correlation: float
    objects_iou: float
    objects_recall: float


def top_share(predicted: FloatArray, accgrad_log2: FloatArray) -> float:
    """AccGrad held by the predicted top fifth, relative to that of the true top fifth; in [0, 1]."""
    accgrad = np.exp2(accgrad_log2.astype(np.float64) - accgrad_log2.max()).ravel()
    count = max(1, round(TOP_FRACTION * accgrad.size))
    chosen = np.argpartition(-predicted.ravel(), count - 1)[:count]
    best = np.partition(accgrad, accgrad.size - count)[-count:]
    return float(accgrad[chosen].sum() / best.sum())


def frame_quality(
    predicted: FloatArray,
    accgrad_log2: FloatArray,
    objects_probability: FloatArray | None = None,
    objects: NDArray[np.bool_] | None = None,
    threshold: float = 0.5,
) -> FrameQuality:
    """Compares predicted `(rows, cols)` maps with a label's; IoU and recall count macroblocks."""
    iou = recall = float("nan")
    if objects_probability is not None and objects is not None:
        found = objects_probability >= threshold
        both = np.count_nonzero(found & objects)
        if found.any() or objects.any():
            iou = both / np.count_nonzero(found | objects)
        if objects.any():
            recall = both / np.count_nonzero(objects)
    share = top_share(predicted, accgrad_log2)
    return FrameQuality(
        float("nan") if objects is not None and not objects.any() else share,
        share,
        _correlation(_ranks(predicted), _ranks(accgrad_log2)),
        _correlation(predicted, accgrad_log2),
        iou,
        recall,
    )


def mean_quality(frames: Sequence[FrameQuality]) -> FrameQuality:
    """The mean of each figure over the frames that define it."""
    return FrameQuality(*(_mean([getattr(f, name) for f in frames]) for name in FrameQuality.__slots__))


def threshold_for_recall(probability: FloatArray, objects: NDArray[np.bool_], recall: float) -> float:
    """The highest threshold that at least `recall` of the true macroblocks reach; 0.5 if there are none."""
    positives = np.sort(np.asarray(probability)[np.asarray(objects, np.bool_)])
    if positives.size == 0:
        return 0.5
    return float(positives[int((1 - recall) * positives.size)])


def _ranks(values: FloatArray) -> FloatArray:
    ranks = np.empty(values.size)
    ranks[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size)
    return ranks


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = (x.astype(np.float64).ravel() - x.mean(dtype=np.float64) for x in (a, b))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
