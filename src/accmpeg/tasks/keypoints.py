"""Person keypoints: results are `supervision.KeyPoints` in frame pixels, with their boxes in `data["xyxy"]`.

Object keypoint similarity (OKS, COCO) of a result with a reference, over the reference's visible keypoints:

    OKS = mean_i exp( −d_i² / (2 · s² · (2σ_i)²) ),   s² = 0.53 · area of the reference's box

d_i being distances in pixels. COCO's s² is the area of the person's outline, which a DNN does not give; 0.53
is the customary share of a box that a person fills. A reference without visible keypoints counts all of them.
Accuracy is COCO's OKS AP (mean over thresholds 0.50 to 0.95), and PCK: the share of visible reference
keypoints that the matched result (OKS ≥ 0.5) puts within 0.2 of the box diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.tasks.base import ClipAccuracy, Dense, TaskName
from accmpeg.tasks.detection import class_ids_of, detection_agreement, pooled_f1
from accmpeg.tasks.matching import FrameMatches, clip_average_precision, match

__all__ = ["KeypointTask", "key_points", "oks_matrix", "oks_sigmas"]

COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
BOX_AREA_SHARE = 0.53
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MATCH_OKS = 0.5
PCK_SHARE_OF_DIAGONAL = 0.2


def key_points(
    points: NDArray[np.float32],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[Any],
) -> sv.KeyPoints:
    """n results: points `(n, k, 3)` with their confidence, boxes `(n, 4)`, scores and classes `(n,)`."""
    return sv.KeyPoints(
        xy=np.ascontiguousarray(points[..., :2]),
        keypoint_confidence=np.ascontiguousarray(points[..., 2]),
        detection_confidence=scores,
        class_id=class_ids,
        data={"xyxy": boxes},
    )


@dataclass(frozen=True, slots=True)
class KeypointTask:
    """Keypoints with the score and visibility thresholds of one server DNN."""

    score_threshold: float = 0.25
    visibility_threshold: float = 0.5
    name: ClassVar[TaskName] = "keypoints"

    def frame_accuracy(self, result: sv.KeyPoints, reference: sv.KeyPoints) -> float:
        """OKS AP of one frame; without references 1 if nothing is above the threshold, else 0."""
        return self._oks_ap([self._matches(result, reference)])

    def clip_accuracy(
        self, results: Sequence[sv.KeyPoints], references: Sequence[sv.KeyPoints]
    ) -> ClipAccuracy:
        """`value` = OKS AP pooled over the clip; extras: oks_ap50, pck, f1, f1_per_frame_mean, …"""
        pairs = list(zip(results, references, strict=True))
        frames = [self._matches(*pair) for pair in pairs]
        per_frame = [self._oks_ap([frame]) for frame in frames]
        counts = np.sum([self._pck_counts(*pair) for pair in pairs], axis=0) if pairs else np.zeros(2)
        extras = {
            "oks_ap50": clip_average_precision(frames, 0.5, self.score_threshold),
            "pck": float(counts[0] / counts[1]) if counts[1] else 1.0,
        }
        extras |= pooled_f1(frames, MATCH_OKS, self.score_threshold)
        return ClipAccuracy(self._oks_ap(frames), float(np.mean(per_frame)) if per_frame else 1.0, extras)

    def object_boxes(self, result: sv.KeyPoints) -> NDArray[np.float32]:
        """Boxes of the people at or above the score threshold, `(n, 4)`."""
        return boxes_of(self._sure(result))

    def similarity(self, result: sv.KeyPoints, reference: sv.KeyPoints) -> NDArray[Any]:
        """OKS, by the reference's boxes and visible keypoints."""
        return oks_matrix(result.xy, reference.xy, self._visible(reference), boxes_of(reference))

    def agreement(self, dense: Dense, reference: sv.KeyPoints) -> Any:
        """`detection_agreement` with OKS in place of IoU."""
        import torch

        sure = self._sure(reference)
        assert dense.keypoints is not None
        device = dense.keypoints.device
        boxes = boxes_of(sure)
        if len(sure) == 0:
            return detection_agreement(dense, sv.Detections.empty(), None, self.score_threshold)
        wanted = torch.as_tensor(np.asarray(sure.xy, np.float32), device=device)
        apart = (wanted[:, None] - dense.keypoints[None, :, :, :2]).square().sum(dim=3)
        weights = torch.as_tensor(self._visible(sure), device=device).float()
        falloff = torch.as_tensor(_falloff(boxes, wanted.shape[1]), device=device).float()
        oks = ((-apart * falloff[:, None]).exp() * weights[:, None]).sum(dim=2)
        oks = oks / weights.sum(dim=1).clamp(min=1)[:, None]
        people = sv.Detections(xyxy=boxes, class_id=class_ids_of(sure), confidence=_scores(sure))
        return detection_agreement(dense, people, oks, self.score_threshold)

    def _oks_ap(self, frames: Sequence[FrameMatches]) -> float:
        thresholds = [
            clip_average_precision(frames, float(threshold), self.score_threshold)
            for threshold in OKS_THRESHOLDS
        ]
        return float(np.mean(thresholds))

    def _matches(self, result: sv.KeyPoints, reference: sv.KeyPoints) -> FrameMatches:
        sure = self._sure(reference)
        oks = self.similarity(result, sure)
        return FrameMatches(_scores(result), class_ids_of(result), class_ids_of(sure), oks)

    def _pck_counts(self, result: sv.KeyPoints, reference: sv.KeyPoints) -> tuple[int, int]:
        sure, found = self._sure(reference), self._sure(result)
        visible = self._visible(sure)
        frame = self._matches(found, sure)
        diagonal = np.linalg.norm(boxes_of(sure)[:, 2:] - boxes_of(sure)[:, :2], axis=1)
        close = 0
        for i, j in enumerate(match(frame.class_aware, frame.scores, MATCH_OKS)):
            if j >= 0:
                apart = np.linalg.norm(found.xy[i] - sure.xy[j], axis=1)
                close += int((visible[j] & (apart <= PCK_SHARE_OF_DIAGONAL * diagonal[j])).sum())
        return close, int(visible.sum())

    def _sure(self, people: sv.KeyPoints) -> sv.KeyPoints:
        kept = people[_scores(people) >= self.score_threshold] if len(people) else people
        assert isinstance(kept, sv.KeyPoints)
        return kept

    def _visible(self, people: sv.KeyPoints) -> NDArray[np.bool_]:
        """Which keypoints count, `(n, K)`."""
        if people.keypoint_confidence is None or len(people) == 0:
            return np.ones(people.xy.shape[:2], np.bool_)
        visible = people.keypoint_confidence >= self.visibility_threshold
        return np.asarray(visible | ~visible.any(axis=1, keepdims=True))


def oks_sigmas(keypoints: int) -> NDArray[np.float64]:
    """COCO's per-keypoint constants for its 17 keypoints; for any other set 1/17 for each."""
    return np.asarray(COCO_SIGMAS) if keypoints == len(COCO_SIGMAS) else np.full(keypoints, 1 / 17)


def oks_matrix(
    result_xy: NDArray[Any],
    reference_xy: NDArray[Any],
    visible: NDArray[np.bool_],
    reference_boxes_xyxy: NDArray[Any],
) -> NDArray[np.float64]:
    """OKS of every pair, `(n, m)`: points `(n, K, 2)` and `(m, K, 2)`, `visible` `(m, K)`, boxes `(m, 4)`."""
    if len(result_xy) == 0 or len(reference_xy) == 0:
        return np.zeros((len(result_xy), len(reference_xy)))
    apart = np.square(result_xy[:, None].astype(np.float64) - reference_xy[None]).sum(axis=3)
    similarity = np.exp(-apart * _falloff(reference_boxes_xyxy, reference_xy.shape[1])[None])
    return np.asarray((similarity * visible).sum(axis=2) / np.maximum(visible.sum(axis=1), 1))


def _falloff(boxes_xyxy: NDArray[Any], keypoints: int) -> NDArray[np.float64]:
    """1 / (2 · s² · (2σ)²), `(m, K)`."""
    sides = boxes_xyxy[:, 2:].astype(np.float64) - boxes_xyxy[:, :2]
    area = np.maximum(sides.prod(axis=1) * BOX_AREA_SHARE, 1.0)
    return np.asarray(1 / (2 * area[:, None] * (2 * oks_sigmas(keypoints)[None]) ** 2))


def boxes_of(people: sv.KeyPoints) -> NDArray[np.float32]:
    """The boxes `(n, 4)`: as reported, or around the keypoints where there are none."""
    if "xyxy" in people.data:
        return np.asarray(people.data["xyxy"], np.float32).reshape(-1, 4)
    if len(people) == 0:
        return np.zeros((0, 4), np.float32)
    return np.concatenate([people.xy.min(axis=1), people.xy.max(axis=1)], axis=1).astype(np.float32)


def _scores(people: sv.KeyPoints) -> NDArray[np.float32]:
    if people.detection_confidence is None:
        return np.ones(len(people), np.float32)
    return np.asarray(people.detection_confidence, np.float32)
