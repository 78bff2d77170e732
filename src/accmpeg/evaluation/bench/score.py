"""The score S: how much of a reference a result says, from 0 to 1, and smoothly.

Objects (detection, keypoints, instances), paired one-to-one and class-aware, weigh w by their score:

    S = 2 · Σ_pairs min(w, w')·g / (Σ w of the result + Σ w' of the reference)
    g = clip((sim − 0.3) / 0.4, 0, 1),   sim the IoU of boxes, OKS, or the IoU of masks

Segmentation: IoU per class, weighted by how often the reference has it. All sums run over a whole clip before
they are divided, so every object counts once.

```
result, FrameReference ─▶ frame_counts ─▶ Counts (n, 3) ─▶ added up over frames ─▶ score
```

>>> score(np.array([[6.0, 8.0, 8.0]]), "detection")
0.75

docs/concepts/score.md has an example by hand, and what the figures mean.
"""

from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from accmpeg.dnn.card import DnnCard
from accmpeg.evaluation.bench.references import FrameReference, object_boxes, object_weights
from accmpeg.tasks.base import Task, TaskName
from accmpeg.tasks.detection import MATCH_IOU, class_ids_of, confidence_of
from accmpeg.tasks.matching import FloatArray, iou_matrix, match
from accmpeg.tasks.segmentation import PixelCounts

__all__ = ["Counts", "frame_counts", "judged_result", "score", "scores"]

Counts = NDArray[np.float64]
"""`(n, 3)`: what both say (I), what the result says (P), what the reference says (R). One row of sums of
weights for tasks with objects, one row of pixels per class for segmentation. Counts of frames add up."""

NO_SIMILARITY, FULL_SIMILARITY = 0.3, 0.7
IGNORED_IOU = 0.3
TIE_BREAK = 1e-7
SHARE_IN_REGION = 0.5


def score(counts: Counts, task_name: TaskName) -> float:
    """S of the counts of any number of frames, 0 to 1; NaN where there was nothing to find and nothing was
    found."""
    return float(scores(counts, task_name))


def scores(counts: NDArray[np.float64], task_name: TaskName) -> NDArray[np.float64]:
    """S of many sums of counts at once: `(…, n, 3)` gives `(…)`."""
    both, result, reference = np.moveaxis(counts, -1, 0)
    if task_name == "segmentation":
        union = result + reference - both
        iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
        share, whole = (reference * iou).sum(axis=-1), reference.sum(axis=-1)
    else:
        share, whole = 2 * both.sum(axis=-1), (result + reference).sum(axis=-1)
    undefined = np.full(np.shape(whole), np.nan)
    # Sums of the same weights in another order may differ by their last bit.
    return np.asarray(np.minimum(1.0, np.divide(share, whole, out=undefined, where=whole > 0)))


def frame_counts(task: Task, result: Any, reference: FrameReference, card: DnnCard) -> Counts:
    """The counts of one frame. `card` is that of the server DNN, whose threshold the weights go by."""
    if task.name == "segmentation":
        pixels = PixelCounts.of(result, reference.result)
        counts = np.zeros((len(card.classes), 3))
        for column, each in enumerate((pixels.both, pixels.result, pixels.reference)):
            counts[: len(each), column] = each[: len(counts)]
        return counts
    result, weights = _weighty(result, card)
    wanted, wanted_weights = _weighty(reference.result, card)
    boxes, class_ids = object_boxes(result), _counted_classes(result, reference)
    spare = _excused(boxes, class_ids, reference)
    both = 0.0
    if len(result) and len(wanted):
        similarity = task.similarity(result, wanted)
        assert similarity is not None
        similarity = similarity.astype(np.float64)
        gain = np.clip((similarity - NO_SIMILARITY) / (FULL_SIMILARITY - NO_SIMILARITY), 0.0, 1.0)
        gain = gain * np.minimum(weights[:, None], wanted_weights[None, :])
        gain *= class_ids[:, None] == class_ids_of(wanted)[None, :]
        # Of two boxes that gain the same, the nearer one: else a surer box that is no one's fault could take
        # the place of the right one, and count.
        rows, cols = linear_sum_assignment(gain * (1 + TIE_BREAK * similarity), maximize=True)
        both = float(gain[rows, cols].sum())
        spare[rows[gain[rows, cols] > 0]] = False
    return np.asarray([[both, float(weights[~spare].sum()), float(wanted_weights.sum())]])


def judged_result(
    result: sv.Detections, reference: FrameReference, match_iou: float = MATCH_IOU
) -> sv.Detections:
    """The detections that can be right or wrong by a reference, with the classes that they count as.

    Left out are those that are no one's fault and match nothing at `match_iou`, so that average precision and
    F1 (`task.clip_accuracy`) can be taken of what is left.
    """
    class_ids = _counted_classes(result, reference)
    spare = _excused(object_boxes(result), class_ids, reference)
    if spare.any():
        same = class_ids[:, None] == class_ids_of(reference.result)[None, :]
        similarity = np.where(same, iou_matrix(result.xyxy, reference.result.xyxy), -1.0)
        spare &= match(similarity, confidence_of(result), match_iou) < 0
    kept = result[~spare]
    assert isinstance(kept, sv.Detections)
    kept.class_id = class_ids[~spare]
    return kept


def _weighty(result: Any, card: DnnCard) -> tuple[Any, NDArray[np.float64]]:
    """The objects that weigh anything: most candidates of a result do not."""
    weights = object_weights(result, card)
    kept = weights > 0
    return (result if kept.all() else result[kept]), weights[kept]


def _counted_classes(result: Any, reference: FrameReference) -> NDArray[np.int64]:
    class_ids = class_ids_of(result)
    return class_ids if reference.counts_as is None else reference.counts_as[class_ids]


def _excused(
    boxes_xyxy: NDArray[np.float32], class_ids: NDArray[np.int64], reference: FrameReference
) -> NDArray[np.bool_]:
    """Which results are no one's fault unless they are right, `(n,)`."""
    spare = class_ids < 0
    if reference.min_height_px > 0:
        spare |= boxes_xyxy[:, 3] - boxes_xyxy[:, 1] < reference.min_height_px
    if len(reference.ignored):
        spare |= (iou_matrix(boxes_xyxy, reference.ignored) >= IGNORED_IOU).any(axis=1)
    if len(reference.unlabelled):
        spare |= _lies_in(boxes_xyxy, reference.unlabelled).any(axis=1)
    return np.asarray(spare)


def _lies_in(boxes_xyxy: FloatArray, regions_xyxy: FloatArray) -> NDArray[np.bool_]:
    """Whether half of a box, or its centre, is inside a region: `(n, z)`."""
    low = np.maximum(boxes_xyxy[:, None, :2], regions_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], regions_xyxy[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    centre = ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2)[:, None]
    inside = ((centre >= regions_xyxy[None, :, :2]) & (centre <= regions_xyxy[None, :, 2:])).all(axis=2)
    return np.asarray(inside | (shared >= SHARE_IN_REGION * np.maximum(area, 1e-9)[:, None]))
