"""From `Dense` to a task's result: thresholds, suppression, masks. NumPy only.

Results keep every candidate above a low floor, not only those above the card's score threshold: average
precision is taken over all confidences.
"""

from typing import Any

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard
from accmpeg.tasks.base import Dense
from accmpeg.tasks.keypoints import key_points
from accmpeg.tasks.matching import nms
from accmpeg.tasks.segmentation import ClassMap, class_map_type

__all__ = ["SCORE_FLOOR", "result_of"]

SCORE_FLOOR = 0.01
"""Candidates below this score (or below the card's threshold, if that is lower) are never reported."""

MAX_CANDIDATES = 1000
MAX_RESULTS = 300


def result_of(dense: Dense, card: DnnCard, *, sure_only: bool = False) -> Any:
    """The task's result for one frame; `sure_only` keeps what the card's threshold keeps, and no candidates.

    Suppression goes from high scores to low ones, so the sure results are the same either way. Suppressing
    a thousand candidates costs 2 ms, as much as a tenth of a small network.
    """
    if card.task == "segmentation":
        if dense.class_map is not None:
            return dense.class_map.astype(class_map_type(len(card.classes)))
        assert dense.logits is not None
        return class_map(dense.logits)
    floor = card.score_threshold if sure_only else min(SCORE_FLOOR, card.score_threshold)
    chosen, scores, class_ids = _choose(dense, card, floor)
    boxes = _boxes(dense, chosen)
    if card.task == "keypoints":
        points = np.asarray(dense.keypoints)[chosen].astype(np.float32)
        return key_points(points, boxes, scores, class_ids)
    mask = None
    if card.task == "instances":
        mask = instance_masks(dense, chosen, boxes)
    return sv.Detections(xyxy=boxes, mask=mask, confidence=scores, class_id=class_ids)


def class_map(logits: NDArray[np.floating[Any]]) -> ClassMap:
    """The best class of each pixel, `(C, h, w)` to `(h, w)`; of several equal ones the last."""
    best = logits.max(axis=0)
    number = class_map_type(len(logits))
    labels = np.zeros(best.shape, number)
    # Five times faster than argmax along the first axis.
    for class_id in range(1, len(logits)):
        np.maximum(labels, (logits[class_id] == best).view(np.uint8) * number(class_id), out=labels)
    return labels


def instance_masks(dense: Dense, chosen: NDArray[np.intp], boxes: NDArray[np.float32]) -> sv.CompactMask:
    """Masks `(n, height, width)` of the frame: where Σ coefficient·prototype is above 0, inside the box."""
    prototypes = np.asarray(dense.prototypes, np.float32)
    _, rows, cols = prototypes.shape
    logits = np.tensordot(np.asarray(dense.mask_coefficients)[chosen].astype(np.float32), prototypes, 1)
    width_px, height_px = dense.frame_size_px
    scale_x, scale_y = cols / width_px, rows / height_px
    # One frame-sized canvas, cleaned after each mask: clearing a new one for each took most of the time.
    canvas = np.zeros((1, height_px, width_px), np.bool_)
    parts = [sv.CompactMask.from_dense(canvas[:0], boxes[:0], (height_px, width_px))]
    for logit, box in zip(logits, boxes, strict=True):
        x0, y0 = np.floor(box[:2]).astype(int)
        x1, y1 = np.ceil(box[2:]).astype(int)
        if x1 > x0 and y1 > y0:
            # Only the box is enlarged, from cell centres to pixel centres.
            to_cells = np.array(
                [[scale_x, 0, (x0 + 0.5) * scale_x - 0.5], [0, scale_y, (y0 + 0.5) * scale_y - 0.5]]
            )
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            size = (int(x1 - x0), int(y1 - y0))
            large = cv2.warpAffine(logit, to_cells, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            canvas[0, y0:y1, x0:x1] = large > 0
        parts.append(sv.CompactMask.from_dense(canvas, box[None], (height_px, width_px)))
        canvas[0, y0:y1, x0:x1] = False
    return sv.CompactMask.merge(parts)


def _choose(
    dense: Dense, card: DnnCard, floor: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.int64]]:
    scores = np.asarray(dense.scores)
    best = scores.max(axis=1)
    candidates = np.flatnonzero(best >= floor)
    if len(candidates) > MAX_CANDIDATES:
        candidates = candidates[np.argpartition(-best[candidates], MAX_CANDIDATES)[:MAX_CANDIDATES]]
    class_ids = scores[candidates].argmax(axis=1)
    if card.nms_iou is not None:
        boxes = np.asarray(dense.boxes_xyxy)[candidates]
        kept = nms(boxes, best[candidates], class_ids, card.nms_iou, MAX_RESULTS)
    else:
        kept = np.argsort(-best[candidates], kind="stable")[:MAX_RESULTS]
    chosen = candidates[kept]
    return chosen, best[chosen].astype(np.float32), class_ids[kept].astype(np.int64)


def _boxes(dense: Dense, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    """Boxes of the chosen candidates, cut at the frame's edges."""
    boxes = np.asarray(dense.boxes_xyxy)[chosen].astype(np.float32)
    width_px, height_px = dense.frame_size_px
    limits = np.asarray([width_px, height_px, width_px, height_px], np.float32)
    return np.clip(boxes, 0, limits)
