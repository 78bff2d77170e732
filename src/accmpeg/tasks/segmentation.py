"""Semantic segmentation: results are class maps `(h, w)` at the DNN's own resolution.

A map covers exactly the frame; it is uint8, and uint16 for more than 255 classes. Accuracy is mIoU over the
classes that the reference holds, from the pixel counts of the whole clip; pixel agreement goes with it.
Reference pixels of `ignored_class` (255 of uint8: unlabelled in true labels) do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from accmpeg.tasks.base import ClipAccuracy, Dense, TaskName

__all__ = ["IGNORED", "ClassMap", "PixelCounts", "SegmentationTask", "class_map_type", "ignored_class"]

IGNORED = 255

ClassMap = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class SegmentationTask:
    """Semantic segmentation; it has no objects and no threshold."""

    name: ClassVar[TaskName] = "segmentation"

    def frame_accuracy(self, result: ClassMap, reference: ClassMap) -> float:
        """mIoU of one frame."""
        return PixelCounts.of(result, reference).mean_iou()

    def clip_accuracy(self, results: Sequence[ClassMap], references: Sequence[ClassMap]) -> ClipAccuracy:
        """`value` = mIoU of the pooled confusion matrix; extras: pixel_agreement, iou_CLASS per class id."""
        frames = [PixelCounts.of(*pair) for pair in zip(results, references, strict=True)]
        nothing = np.zeros(0, np.int64)
        pooled = sum(frames, PixelCounts(nothing, nothing, nothing))
        total = pooled.reference.sum()
        extras = {"pixel_agreement": float(pooled.both.sum() / total) if total else 1.0}
        extras |= {f"iou_{class_id}": iou for class_id, iou in pooled.ious().items()}
        per_frame = float(np.mean([frame.mean_iou() for frame in frames])) if frames else 1.0
        return ClipAccuracy(pooled.mean_iou(), per_frame, extras)

    def object_boxes(self, result: ClassMap) -> None:
        """None: a class map has no objects."""
        return

    def similarity(self, result: ClassMap, reference: ClassMap) -> None:
        """None: a class map has no objects."""
        return

    def agreement(self, dense: Dense, reference: ClassMap) -> Any:
        """Mean soft IoU over the classes of the reference, a scalar tensor.

        With p the softmax of the logits (1 or 0 for finished classes) and y the reference as 0 and 1,
        IoU_c = Σ p·y / Σ (p + y − p·y).
        """
        import torch

        shown = dense.logits if dense.class_map is None else dense.class_map
        assert shown is not None
        ignored = ignored_class(reference)
        labels = torch.as_tensor(_resized(reference, shown.shape[-2:]).astype(np.int64), device=shown.device)
        counted = labels != ignored
        present = np.unique(reference[reference != ignored]).astype(np.int64)
        if len(present) == 0:
            return shown.sum() * 0.0
        # One index for all classes: the backward pass of one per class fills a whole map of zeros for each.
        classes = torch.as_tensor(present, device=shown.device)
        if dense.class_map is None:
            p = shown.softmax(dim=0).index_select(0, classes)
        else:
            p = (shown == classes[:, None, None]).to(torch.float32)
        p = p * counted
        y = (labels == classes[:, None, None]).to(p.dtype)
        shared = (p * y).sum(dim=(1, 2))
        return (shared / (p.sum(dim=(1, 2)) + y.sum(dim=(1, 2)) - shared).clamp(min=1e-6)).mean()


def class_map_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """What class maps of so many classes are stored as: one value is left for `ignored_class`."""
    return np.uint8 if classes <= IGNORED else np.uint16


def ignored_class(labels: ClassMap) -> int:
    """The value of pixels that do not count: the largest of the map's type, `IGNORED` for uint8."""
    return int(np.iinfo(labels.dtype).max)


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Pixels per class: of the reference, of the result, and of both at once."""

    reference: NDArray[np.int64]
    result: NDArray[np.int64]
    both: NDArray[np.int64]

    @classmethod
    def of(cls, result: ClassMap, reference: ClassMap) -> "PixelCounts":
        """A result of another resolution is sampled at the reference's pixels."""
        counted = reference != ignored_class(reference)
        right, found = reference[counted], _resized(result, reference.shape)[counted]
        length = int(max(right.max(), found.max())) + 1 if right.size else 0
        return cls(
            np.bincount(right, minlength=length),
            np.bincount(found, minlength=length),
            np.bincount(right[right == found], minlength=length),
        )

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(
            _sum(self.reference, other.reference),
            _sum(self.result, other.result),
            _sum(self.both, other.both),
        )

    def ious(self) -> dict[int, float]:
        """IoU of each class of the reference."""
        union = self.reference + self.result - self.both
        return {int(i): float(self.both[i] / union[i]) for i in np.flatnonzero(self.reference)}

    def mean_iou(self) -> float:
        ious = self.ious()
        return float(np.mean(list(ious.values()))) if ious else 1.0


def _sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _resized(labels: ClassMap, shape: tuple[int, ...]) -> ClassMap:
    """Nearest-neighbour samples of a class map at another resolution of the same picture."""
    if labels.shape == tuple(shape):
        return labels
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, labels.shape, strict=True)
    )
    return np.asarray(labels[rows[:, None], cols[None, :]])
