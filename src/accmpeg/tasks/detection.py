"""Object detection: results are `supervision.Detections` with boxes in frame pixels.

Accuracy is AP@0.5 over all confidences (COCO's 101 points, mean over the classes of the reference, pooled
over the clip) and F1 at the DNN's score threshold with one-to-one, class-aware matching. Only references
at or above the threshold count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.tasks.base import ClipAccuracy, Dense, TaskName
from accmpeg.tasks.matching import (
    FrameMatches,
    clip_average_precision,
    f1_counts,
    f1_score,
    iou_matrix,
    nms,
)

__all__ = [
    "FALSE_POSITIVE_WEIGHT",
    "DetectionTask",
    "detection_agreement",
    "false_positive_scores",
    "pooled_f1",
]

MATCH_IOU = 0.5
FALSE_POSITIVE_WEIGHT = 1 / 6
"""What a spurious detection costs in the agreement, as a share of what a found object earns."""
TOP_SCORES_WITHOUT_REFERENCE = 10


@dataclass(frozen=True, slots=True)
class DetectionTask:
    """Detection with the score threshold of one server DNN."""

    score_threshold: float = 0.25
    name: ClassVar[TaskName] = "detection"

    def frame_accuracy(self, result: sv.Detections, reference: sv.Detections) -> float:
        """AP@0.5 of one frame; without references 1 if nothing is above the threshold, else 0."""
        return clip_average_precision([self._matches(result, reference)], MATCH_IOU, self.score_threshold)

    def clip_accuracy(
        self, results: Sequence[sv.Detections], references: Sequence[sv.Detections]
    ) -> ClipAccuracy:
        """`value` = AP@0.5 pooled over the clip; extras: f1, f1_per_frame_mean, precision, recall."""
        frames = [self._matches(*pair) for pair in zip(results, references, strict=True)]
        per_frame = [clip_average_precision([frame], MATCH_IOU, self.score_threshold) for frame in frames]
        return ClipAccuracy(
            clip_average_precision(frames, MATCH_IOU, self.score_threshold),
            float(np.mean(per_frame)) if per_frame else 1.0,
            pooled_f1(frames, MATCH_IOU, self.score_threshold),
        )

    def object_boxes(self, result: sv.Detections) -> NDArray[np.float32]:
        """Boxes of the detections at or above the score threshold, `(n, 4)`."""
        return np.asarray(above(result, self.score_threshold).xyxy, np.float32)

    def similarity(self, result: sv.Detections, reference: sv.Detections) -> NDArray[Any]:
        """IoU of boxes."""
        return iou_matrix(result.xyxy, reference.xyxy)

    def agreement(self, dense: Dense, reference: sv.Detections) -> Any:
        """See `detection_agreement`; IoU of boxes is the overlap."""
        import torch

        sure = above(reference, self.score_threshold)
        boxes = dense.boxes_xyxy
        assert boxes is not None
        wanted = torch.as_tensor(np.asarray(sure.xyxy, np.float32), device=boxes.device)
        return detection_agreement(dense, sure, torch_iou(wanted, boxes), self.score_threshold)

    def _matches(self, result: sv.Detections, reference: sv.Detections) -> FrameMatches:
        sure = above(reference, self.score_threshold)
        return FrameMatches(
            confidence_of(result),
            class_ids_of(result),
            class_ids_of(sure),
            self.similarity(result, sure),
        )


def pooled_f1(
    frames: Sequence[FrameMatches], similarity_threshold: float, score_threshold: float
) -> dict[str, float]:
    """F1, precision and recall pooled over frames, and the mean F1 of the frames."""
    counts = [f1_counts(frame, similarity_threshold, score_threshold) for frame in frames]
    hits, spurious, missed = (sum(count) for count in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return {
        "f1": f1_score(hits, spurious, missed),
        "f1_per_frame_mean": float(np.mean([f1_score(*count) for count in counts])) if counts else 1.0,
        "precision": hits / (hits + spurious) if hits + spurious else 1.0,
        "recall": hits / (hits + missed) if hits + missed else 1.0,
    }


def detection_agreement(dense: Dense, sure: sv.Detections, overlap: Any, score_threshold: float) -> Any:
    """Differentiable agreement of candidates with reference detections, a scalar tensor.

        Acc = (1/n) · [ Σ_ref max_j score_j[class of ref] · overlap(ref, j)  −  (1/6) · Σ_spurious score ]

    with n = max(1, number of references), `overlap` `(references, N)`, and spurious the candidates that would
    be reported (above the threshold and not suppressed) yet overlap no reference of their class by half.
    Without references it is −(1/6) of the sum of the ten best scores, so that a gradient remains.
    """
    import torch

    scores = dense.scores
    assert scores is not None
    if len(scores) == 0:
        # Nothing was said, so nothing can be moved: zero, with a gradient of zero.
        return scores.sum()
    if len(sure) == 0:
        best = scores.amax(dim=1)
        count = min(TOP_SCORES_WITHOUT_REFERENCE, len(best))
        return -FALSE_POSITIVE_WEIGHT * torch.topk(best, count).values.sum()
    class_ids = torch.as_tensor(class_ids_of(sure), device=scores.device)
    found = (scores[:, class_ids].T * overlap).amax(dim=1).sum()
    spurious = false_positive_scores(dense, sure, score_threshold)
    return (found - FALSE_POSITIVE_WEIGHT * spurious.sum()) / len(sure)


def false_positive_scores(dense: Dense, sure: sv.Detections, score_threshold: float) -> Any:
    """Scores `(n,)`, with gradient, of the candidates that would be reported but match no reference."""
    assert dense.scores is not None
    assert dense.boxes_xyxy is not None
    best, best_class = dense.scores.max(dim=1)
    reported = (best.detach() >= score_threshold).nonzero()[:, 0]
    boxes = dense.boxes_xyxy[reported].detach().cpu().numpy()
    class_ids = best_class[reported].cpu().numpy()
    kept = nms(boxes, best[reported].detach().cpu().numpy(), class_ids, MATCH_IOU)
    same_class = class_ids[kept][:, None] == class_ids_of(sure)[None, :]
    matched = (same_class & (iou_matrix(boxes[kept], sure.xyxy) >= MATCH_IOU)).any(axis=1)
    return best[reported[kept[~matched].tolist()]]


def torch_iou(a: Any, b: Any) -> Any:
    """IoU of box tensors `(n, 4)` and `(m, 4)`, differentiable; `(n, m)`."""
    low, high = a[:, None, :2].maximum(b[None, :, :2]), a[:, None, 2:].minimum(b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=1) for box in (a, b))
    return shared / (area_a[:, None] + area_b[None, :] - shared).clamp(min=1e-6)


def above(result: sv.Detections, score_threshold: float) -> sv.Detections:
    """The detections at or above a score; true labels, which carry no score, all count."""
    if result.confidence is None:
        return result
    kept = result[result.confidence >= score_threshold]
    assert isinstance(kept, sv.Detections)
    return kept


def confidence_of(result: sv.Detections) -> NDArray[np.float32]:
    """Scores `(n,)`; 1 for detections without any (true labels)."""
    if result.confidence is None:
        return np.ones(len(result), np.float32)
    return np.asarray(result.confidence, np.float32)


def class_ids_of(result: sv.Detections | sv.KeyPoints) -> NDArray[np.int64]:
    """Class ids `(n,)`; 0 for objects without any."""
    if result.class_id is None:
        return np.zeros(len(result), np.int64)
    return np.asarray(result.class_id, np.int64)
