"""Instance masks: results are `supervision.Detections` with one mask per object, at the frame's size.

Accuracy is as for detection, with the IoU of masks in place of that of boxes. Masks may be dense arrays or
`supervision.CompactMask`, which keeps a clip's masks in memory at a hundredth of the size.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.tasks.base import Dense, TaskName
from accmpeg.tasks.detection import (
    DetectionTask,
    above,
    class_ids_of,
    detection_agreement,
    torch_iou,
)

__all__ = ["InstanceTask"]


@dataclass(frozen=True, slots=True)
class InstanceTask(DetectionTask):
    """Instance segmentation: detection whose overlap is that of masks."""

    name: ClassVar[TaskName] = "instances"

    def similarity(self, result: sv.Detections, reference: sv.Detections) -> NDArray[Any]:
        """IoU of masks."""
        if len(result) == 0 or len(reference) == 0:
            return np.zeros((len(result), len(reference)))
        assert result.mask is not None
        assert reference.mask is not None
        return np.asarray(sv.mask_iou_batch(result.mask, reference.mask))

    def agreement(self, dense: Dense, reference: sv.Detections) -> Any:
        """`detection_agreement` where overlap is the mean of box IoU and soft mask IoU.

        The soft mask IoU is taken at the prototypes' resolution, inside the reference's box, and only for the
        candidate that fits a reference best: the others do not reach the maximum anyway.
        """
        import torch

        sure = above(reference, self.score_threshold)
        assert dense.boxes_xyxy is not None
        assert dense.scores is not None
        device = dense.boxes_xyxy.device
        overlap = torch_iou(
            torch.as_tensor(np.asarray(sure.xyxy, np.float32), device=device), dense.boxes_xyxy
        )
        if len(sure):
            class_ids = torch.as_tensor(class_ids_of(sure), device=device)
            best = (dense.scores[:, class_ids].T * overlap).detach().argmax(dim=1)
            mask_iou = self._soft_mask_iou(dense, sure, best)
            at_best = torch.zeros_like(overlap).scatter(1, best[:, None], 1.0)
            overlap = at_best * (overlap + mask_iou[:, None]) / 2
        return detection_agreement(dense, sure, overlap, self.score_threshold)

    def _soft_mask_iou(self, dense: Dense, sure: sv.Detections, candidates: Any) -> Any:
        """Soft IoU `(n,)` of each reference's mask with that of its candidate."""
        import torch

        assert dense.prototypes is not None
        assert dense.mask_coefficients is not None
        _, rows, cols = dense.prototypes.shape
        logits = torch.einsum("nm,mhw->nhw", dense.mask_coefficients[candidates], dense.prototypes)
        wanted = torch.as_tensor(_shrunk_masks(sure, rows, cols), device=logits.device)
        inside = torch.as_tensor(_box_cells(sure, dense.frame_size_px, rows, cols), device=logits.device)
        soft = logits.sigmoid() * inside
        shared = (soft * wanted).sum(dim=(1, 2))
        union = soft.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2)) - shared
        return shared / union.clamp(min=1e-6)


def _shrunk_masks(objects: sv.Detections, rows: int, cols: int) -> NDArray[np.float32]:
    """Masks sampled at the centres of `rows` × `cols` cells, `(n, rows, cols)`."""
    assert objects.mask is not None
    _, height, width = objects.mask.shape
    y = ((np.arange(rows) + 0.5) * height / rows).astype(np.intp)
    x = ((np.arange(cols) + 0.5) * width / cols).astype(np.intp)
    return np.stack([np.asarray(mask)[y[:, None], x] for mask in objects.mask]).astype(np.float32)


def _box_cells(
    objects: sv.Detections, frame_size_px: tuple[int, int], rows: int, cols: int
) -> NDArray[np.float32]:
    """1 for the cells that an object's box touches, `(n, rows, cols)`."""
    width_px, height_px = frame_size_px
    x, y = np.arange(cols) * width_px / cols, np.arange(rows) * height_px / rows
    x0, y0, x1, y1 = (np.asarray(objects.xyxy)[:, side, None] for side in range(4))
    in_x = (x + width_px / cols > x0) & (x < x1)
    in_y = (y + height_px / rows > y0) & (y < y1)
    return (in_y[:, :, None] & in_x[:, None, :]).astype(np.float32)
