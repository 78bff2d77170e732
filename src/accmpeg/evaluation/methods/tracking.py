"""Boxes that follow their pixels by sparse optical flow, and results that move with them."""

from typing import Any

import av
import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.media.frames import plane_view
from accmpeg.tasks.keypoints import boxes_of

__all__ = ["BoxTracker", "grey_picture", "moved_result", "surest"]

_LONG_SIDE_PX = 640
_POINTS_PER_BOX = 10
_WINDOW_PX = 15
_RETURN_ERROR_PX = 1.0
_SCALE_LIMITS = (0.9, 1.1)

Grey = NDArray[np.uint8]
Boxes = NDArray[np.float32]


def grey_picture(frame: av.VideoFrame) -> Grey:
    """The luma of a frame, its long side at most 640 pixels."""
    luma = plane_view(frame, 0)
    scale = _LONG_SIDE_PX / max(luma.shape)
    if scale >= 1:
        return luma.copy()
    size = (max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


class BoxTracker:
    """Follows boxes `(n, 4)`, in fractions of the picture, from one grey picture to the next."""

    def __init__(self, picture: Grey, boxes: Boxes) -> None:
        self._picture = picture
        self._size = np.asarray([picture.shape[1], picture.shape[0]] * 2, np.float32)
        self._boxes = np.asarray(boxes, np.float32).reshape(-1, 4) * self._size
        found = [_points_in(picture, box) for box in self._boxes]
        self._points = np.concatenate([np.zeros((0, 2), np.float32), *found])
        self._owners = np.repeat(np.arange(len(found)), [len(points) for points in found])
        self._started_with = len(self._points)

    @property
    def boxes(self) -> Boxes:
        """The boxes now, in fractions of the picture; they may lie outside."""
        return np.asarray(self._boxes / self._size, np.float32)

    @property
    def kept_share(self) -> float:
        """The share of the points that has not been lost; 1 without any."""
        return len(self._points) / self._started_with if self._started_with else 1.0

    def follow(self, picture: Grey) -> None:
        """Moves and scales each box by the median of its points; one without points stays where it is."""
        before, self._picture = self._picture, picture
        if not len(self._points):
            return
        window = (_WINDOW_PX, _WINDOW_PX)
        start = self._points[:, None]
        # The stubs know no None, which asks OpenCV for an array of its own.
        flow: Any = cv2.calcOpticalFlowPyrLK
        there, seen, _ = flow(before, picture, start, None, winSize=window)
        back, seen_back, _ = flow(picture, before, there, None, winSize=window)
        returned = np.linalg.norm(back - start, axis=2)[:, 0] <= _RETURN_ERROR_PX
        kept = returned & (seen[:, 0] > 0) & (seen_back[:, 0] > 0)
        old, new, owners = self._points[kept], np.asarray(there)[kept, 0], self._owners[kept]
        for owner in np.unique(owners):
            mine = owners == owner
            self._boxes[owner] = _moved_box(self._boxes[owner], old[mine], new[mine])
        self._points, self._owners = new, owners


def _points_in(picture: Grey, box: Boxes) -> NDArray[np.float32]:
    """Corners inside a box, `(n, 2)`; its centre where there are none."""
    height, width = picture.shape
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), (x0 + 1, y0 + 1), (width, height))
    apart_px = max(2.0, min(x1 - x0, y1 - y0) / 6)
    corners = cv2.goodFeaturesToTrack(picture[y0:y1, x0:x1], _POINTS_PER_BOX, 0.01, apart_px)
    if corners is None or not len(corners):
        return np.asarray([[(x0 + x1) / 2, (y0 + y1) / 2]], np.float32)
    return np.asarray(corners.reshape(-1, 2) + np.asarray([x0, y0]), np.float32)


def _moved_box(box: Boxes, old: NDArray[np.float32], new: NDArray[np.float32]) -> Boxes:
    shift = np.median(new - old, axis=0)
    scale = 1.0
    if len(old) >= 4:
        spread_old = np.linalg.norm(old - old.mean(axis=0), axis=1)
        spread_new = np.linalg.norm(new - new.mean(axis=0), axis=1)
        scale = float(np.clip(np.median(spread_new / np.maximum(spread_old, 1e-3)), *_SCALE_LIMITS))
    centre, half = (box[:2] + box[2:]) / 2 + shift, (box[2:] - box[:2]) / 2 * scale
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def surest(result: Any, most: int) -> Any:
    """The `most` objects of a detection or keypoint result that have the highest scores."""
    scores = result.detection_confidence if isinstance(result, sv.KeyPoints) else result.confidence
    if scores is None or len(scores) <= most:
        return result
    kept = np.zeros(len(scores), np.bool_)
    kept[np.argsort(-scores, kind="stable")[:most]] = True
    return result[kept]


def moved_result(result: Any, boxes_px: Boxes, size_px: tuple[int, int]) -> Any:
    """A detection or keypoint result whose boxes have moved to `boxes_px` `(n, 4)`, cut at the frame's edges.

    Keypoints move and scale with their box; objects that have left the frame are dropped.
    """
    limits = np.asarray([*size_px, *size_px], np.float32)
    cut = np.clip(boxes_px, 0, limits)
    inside = ((cut[:, 2:] - cut[:, :2]) >= 1).all(axis=1)
    if not isinstance(result, sv.KeyPoints):
        return sv.Detections(
            xyxy=cut[inside],
            confidence=None if result.confidence is None else result.confidence[inside],
            class_id=None if result.class_id is None else result.class_id[inside],
        )
    if not len(result):
        return result
    old = boxes_of(result)
    scale = (boxes_px[:, 2:] - boxes_px[:, :2]) / np.maximum(old[:, 2:] - old[:, :2], 1e-3)
    xy = (result.xy - old[:, None, :2]) * scale[:, None] + boxes_px[:, None, :2]
    confidence, visible = result.detection_confidence, result.keypoint_confidence
    return sv.KeyPoints(
        xy=xy[inside].astype(np.float32),
        keypoint_confidence=None if visible is None else visible[inside],
        detection_confidence=None if confidence is None else confidence[inside],
        class_id=None if result.class_id is None else result.class_id[inside],
        data={"xyxy": cut[inside]},
    )
