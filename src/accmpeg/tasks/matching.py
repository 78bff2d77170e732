"""Boxes and one-to-one matching: IoU, non-maximum suppression, greedy matching, average precision.

All of it is NumPy on plain arrays, so detection, instance masks (mask IoU) and keypoints (OKS) share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FrameMatches",
    "average_precision",
    "clip_average_precision",
    "f1_counts",
    "f1_score",
    "iou_matrix",
    "match",
    "nms",
]

FloatArray = NDArray[np.number[Any]]
IntArray = NDArray[np.integer[Any]]

NMS_BLOCK = 96
RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def iou_matrix(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of every pair of boxes; `(n, 4)` and `(m, 4)` give `(n, m)`.

    >>> iou_matrix(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0]])).round(4).tolist()
    [[0.3333]]
    """
    a, b = np.asarray(a_xyxy).reshape(-1, 4), np.asarray(b_xyxy).reshape(-1, 4)
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = np.maximum(a[:, 2] - a[:, 0], 0) * np.maximum(a[:, 3] - a[:, 1], 0)
    area_b = np.maximum(b[:, 2] - b[:, 0], 0) * np.maximum(b[:, 3] - b[:, 1], 0)
    union = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def nms(
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    class_ids: IntArray,
    max_iou: float,
    most: int | None = None,
) -> NDArray[np.intp]:
    """Class-aware greedy non-maximum suppression; indices of the kept boxes, best score first.

    A box goes when a kept box of its class with a higher score overlaps it by more than `max_iou`. Only the
    best `most` are returned.
    """

    def clashes(some: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
        overlap = iou_matrix(boxes_xyxy[some], boxes_xyxy[others]) > max_iou
        return np.asarray(overlap & (class_ids[some][:, None] == class_ids[others][None, :]))

    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(0, np.intp)
    # In blocks of falling score: comparing all pairs at once took four times as long in crowded frames.
    for first in range(0, len(order), NMS_BLOCK):
        block = order[first : first + NMS_BLOCK]
        block = block[~clashes(block, kept).any(axis=1)]
        inside = np.triu(clashes(block, block), 1)
        keep: NDArray[np.bool_] = np.ones(len(block), np.bool_)
        # Each pass settles at least one more box, and most of them at once: the greedy loop's own result.
        while not np.array_equal(settled := ~np.any(inside[keep], axis=0), keep):
            keep = settled
        kept = np.concatenate([kept, block[keep]])
        if most is not None and len(kept) >= most:
            break
    return kept[:most]


def match(similarity: FloatArray, scores: FloatArray, threshold: float) -> NDArray[np.intp]:
    """One-to-one greedy matching, best score first, as COCO's evaluation does it.

    `similarity` is `(n, m)` between n results and m references: an IoU or OKS, −1 where a pair may never
    match (other class). Returns for each result the index of its reference, or −1.
    """
    matched = np.full(len(scores), -1, np.intp)
    free = np.asarray(similarity, np.float64).copy()
    if free.size == 0:
        return matched
    for i in np.argsort(-scores, kind="stable"):
        # The last of equals, as pycocotools does.
        best = free.shape[1] - 1 - int(np.argmax(free[i, ::-1]))
        if free[i, best] >= min(threshold, 1 - 1e-10):
            matched[i] = best
            free[:, best] = -1
    return matched


@dataclass(frozen=True, slots=True)
class FrameMatches:
    """Results against references in one frame: what every pooled measure is made of.

    `scores` and `class_ids` `(n,)`; `reference_class_ids` `(m,)`; `similarity` `(n, m)`, class-blind.
    """

    scores: FloatArray
    class_ids: IntArray
    reference_class_ids: IntArray
    similarity: FloatArray

    @property
    def class_aware(self) -> FloatArray:
        """The similarity with −1 where the classes differ."""
        same = self.class_ids[:, None] == self.reference_class_ids[None, :]
        return np.where(same, self.similarity, -1.0)

    def above(self, score_threshold: float) -> "FrameMatches":
        """The same frame with only the results of at least this score."""
        kept = self.scores >= score_threshold
        return FrameMatches(
            self.scores[kept], self.class_ids[kept], self.reference_class_ids, self.similarity[kept]
        )


def average_precision(scores: FloatArray, correct: NDArray[np.bool_], references: int) -> float:
    """COCO's 101-point average precision of results pooled over frames.

    `correct[i]` says whether result i matched a reference; `references` is how many there are.
    """
    if references == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(correct[order])
    recall = true_positives / references
    precision = true_positives / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(order))].mean())


def clip_average_precision(
    frames: Sequence[FrameMatches], similarity_threshold: float, score_threshold: float
) -> float:
    """Average precision pooled over `frames`, mean over the classes that the references hold.

    Without any reference it is 1 where no result reaches `score_threshold`, else 0.
    """
    reference_classes = np.concatenate([frame.reference_class_ids for frame in frames] or [np.zeros(0, int)])
    if len(reference_classes) == 0:
        return float(not any((frame.scores >= score_threshold).any() for frame in frames))
    correct = [match(frame.class_aware, frame.scores, similarity_threshold) >= 0 for frame in frames]
    scores = np.concatenate([frame.scores for frame in frames])
    class_ids = np.concatenate([frame.class_ids for frame in frames])
    pooled = np.concatenate(correct)
    return float(
        np.mean(
            [
                average_precision(
                    scores[class_ids == wanted],
                    pooled[class_ids == wanted],
                    int((reference_classes == wanted).sum()),
                )
                for wanted in np.unique(reference_classes)
            ]
        )
    )


def f1_counts(
    frame: FrameMatches, similarity_threshold: float, score_threshold: float
) -> tuple[int, int, int]:
    """True positives, false positives and missed references of the results above the score threshold."""
    sure = frame.above(score_threshold)
    hits = int((match(sure.class_aware, sure.scores, similarity_threshold) >= 0).sum())
    return hits, len(sure.scores) - hits, len(sure.reference_class_ids) - hits


def f1_score(true_positives: int, false_positives: int, missed: int) -> float:
    """F1 = 2·TP / (2·TP + FP + FN); 1 where there is nothing to find and nothing was found."""
    total = 2 * true_positives + false_positives + missed
    return 2 * true_positives / total if total else 1.0
