"""Semantic segmentation: results are class maps `(h, w)` uint8 at the DNN's own resolution.

A map covers exactly the frame. Accuracy is mIoU over the classes that the reference holds, from one confusion
matrix of the whole clip; pixel agreement goes with it. Reference pixels of `IGNORED` (unlabelled in true
labels) do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from accmpeg.tasks.base import ClipAccuracy, Dense, TaskName

__all__ = ["IGNORED", "ClassMap", "SegmentationTask", "confusion_matrix"]

IGNORED = 255

ClassMap = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SegmentationTask:
    """Semantic segmentation; it has no objects and no threshold."""

    name: ClassVar[TaskName] = "segmentation"

    def frame_accuracy(self, result: ClassMap, reference: ClassMap) -> float:
        """mIoU of one frame."""
        return _mean_iou(confusion_matrix(result, reference))

    def clip_accuracy(self, results: Sequence[ClassMap], references: Sequence[ClassMap]) -> ClipAccuracy:
        """`value` = mIoU of the pooled confusion matrix; extras: pixel_agreement, iou_CLASS per class id."""
        pooled = np.zeros((IGNORED, IGNORED), np.int64)
        per_frame = []
        for result, reference in zip(results, references, strict=True):
            counts = confusion_matrix(result, reference)
            per_frame.append(_mean_iou(counts))
            pooled += counts
        total = pooled.sum()
        ious = _class_ious(pooled)
        extras = {"pixel_agreement": float(np.trace(pooled) / total) if total else 1.0}
        extras |= {f"iou_{class_id}": iou for class_id, iou in ious.items()}
        return ClipAccuracy(_mean_iou(pooled), float(np.mean(per_frame)) if per_frame else 1.0, extras)

    def object_boxes(self, result: ClassMap) -> None:
        """None: a class map has no objects."""
        return

    def similarity(self, result: ClassMap, reference: ClassMap) -> None:
        """None: a class map has no objects."""
        return

    def agreement(self, dense: Dense, reference: ClassMap) -> Any:
        """Mean soft IoU over the classes of the reference, a scalar tensor.

        With p the softmax of the logits and y the reference as 0 and 1, IoU_c = Σ p·y / Σ (p + y − p·y).
        """
        import torch

        logits = dense.logits
        assert logits is not None
        labels = torch.as_tensor(
            _resized(reference, logits.shape[-2:]).astype(np.int64), device=logits.device
        )
        counted = labels != IGNORED
        present = np.unique(reference[reference != IGNORED]).astype(np.int64)
        if len(present) == 0:
            return logits.sum() * 0.0
        # One index for all classes: the backward pass of one per class fills a whole map of zeros for each.
        classes = torch.as_tensor(present, device=logits.device)
        p = logits.softmax(dim=0).index_select(0, classes) * counted
        y = (labels == classes[:, None, None]).to(p.dtype)
        shared = (p * y).sum(dim=(1, 2))
        return (shared / (p.sum(dim=(1, 2)) + y.sum(dim=(1, 2)) - shared).clamp(min=1e-6)).mean()


def confusion_matrix(result: ClassMap, reference: ClassMap) -> NDArray[np.int64]:
    """Pixel counts `(255, 255)`, reference class × result class.

    A result of another resolution is sampled at the reference's pixels.
    """
    result = _resized(result, reference.shape)
    counted = reference != IGNORED
    pairs = reference[counted].astype(np.int64) * 256 + result[counted]
    return np.bincount(pairs, minlength=65536).reshape(256, 256)[:IGNORED, :IGNORED]


def _class_ious(counts: NDArray[np.int64]) -> dict[int, float]:
    present = np.flatnonzero(counts.sum(axis=1))
    hits = np.diagonal(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return {int(class_id): float(hits[class_id] / union[class_id]) for class_id in present}


def _mean_iou(counts: NDArray[np.int64]) -> float:
    ious = _class_ious(counts)
    return float(np.mean(list(ious.values()))) if ious else 1.0


def _resized(labels: ClassMap, shape: tuple[int, ...]) -> ClassMap:
    """Nearest-neighbour samples of a class map at another resolution of the same picture."""
    if labels.shape == tuple(shape):
        return labels
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, labels.shape, strict=True)
    )
    return np.asarray(labels[rows[:, None], cols[None, :]])
