"""Results drawn on frames, for pictures, reports and overlay videos: the only place that draws them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import SinkError
from accmpeg.tasks.base import class_name
from accmpeg.tasks.detection import above
from accmpeg.tasks.keypoints import boxes_of

__all__ = ["draw", "write_png"]

Picture = NDArray[np.uint8]

COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
SEGMENT_OPACITY = 0.5
VISIBILITY_THRESHOLD = 0.5


def draw(
    frame_rgb: Picture, result: Any, classes: Sequence[str], *, score_threshold: float = 0.25
) -> Picture:
    """A copy of a frame `(h, w, 3)` RGB uint8 with a result of any task drawn on it.

    Detections and instance masks get boxes labelled with class and score, people their skeletons, class maps
    blended colours with the names of the larger regions. Results below `score_threshold` are left out.
    """
    # OpenCV and supervision draw with blue first.
    picture = np.ascontiguousarray(frame_rgb[..., ::-1])
    if isinstance(result, sv.KeyPoints):
        picture = _draw_people(picture, result, classes, score_threshold)
    elif isinstance(result, sv.Detections):
        sure = above(result, score_threshold)
        if sure.mask is not None and len(sure):
            picture = sv.MaskAnnotator(opacity=SEGMENT_OPACITY).annotate(picture, sure)
        picture = _draw_boxes(picture, sure, classes)
    else:
        picture = _draw_class_map(picture, np.asarray(result), classes)
    return np.ascontiguousarray(picture[..., ::-1])


def write_png(path: str | Path, picture_rgb: Picture) -> None:
    """Writes a picture `(h, w, 3)` RGB uint8 as PNG; raises `SinkError`."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(picture_rgb[..., ::-1]))
    try:
        Path(path).write_bytes(data.tobytes())
    except OSError as error:
        raise SinkError(f"can't write the picture {path}: {error.strerror}") from error


def _line_px(picture: Picture) -> int:
    return max(1, int(max(picture.shape[:2]) / 640 + 0.5))


def _draw_boxes(picture: Picture, found: sv.Detections, classes: Sequence[str]) -> Picture:
    if len(found) == 0:
        return picture
    class_ids = found.class_id if found.class_id is not None else np.zeros(len(found), int)
    scores = found.confidence if found.confidence is not None else [None] * len(found)
    labels = [
        class_name(int(class_id), classes) + ("" if score is None else f" {score:.2f}")
        for class_id, score in zip(class_ids, scores, strict=True)
    ]
    line_px = _line_px(picture)
    picture = sv.BoxAnnotator(thickness=line_px).annotate(picture, found)
    writer = sv.LabelAnnotator(text_scale=0.4 * line_px, text_thickness=max(1, line_px // 2), text_padding=2)
    return np.asarray(writer.annotate(picture, found, labels=labels), np.uint8)


def _draw_people(
    picture: Picture, people: sv.KeyPoints, classes: Sequence[str], score_threshold: float
) -> Picture:
    scores = people.detection_confidence
    if scores is not None and len(people):
        kept = people[scores >= score_threshold]
        assert isinstance(kept, sv.KeyPoints)
        people = kept
    found = sv.Detections(
        xyxy=boxes_of(people), confidence=people.detection_confidence, class_id=people.class_id
    )
    picture = _draw_boxes(picture, found, classes)
    line_px = _line_px(picture)
    for i, points in enumerate(people.xy):
        colour = sv.ColorPalette.DEFAULT.by_idx(i + 1).as_bgr()
        confidence = people.keypoint_confidence
        visible = np.ones(len(points), bool) if confidence is None else confidence[i] >= VISIBILITY_THRESHOLD
        at = [(round(float(x)), round(float(y))) for x, y in points]
        for a, b in COCO_SKELETON if len(points) == 17 else ():
            if visible[a] and visible[b]:
                cv2.line(picture, at[a], at[b], colour, line_px, cv2.LINE_AA)
        for point, seen in zip(at, visible, strict=True):
            if seen:
                cv2.circle(picture, point, line_px + 1, colour, -1, cv2.LINE_AA)
    return picture


def _draw_class_map(picture: Picture, labels: NDArray[Any], classes: Sequence[str]) -> Picture:
    height, width = picture.shape[:2]
    labels = np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST))
    numbers = range(int(labels.max()) + 1)
    colours = np.array([sv.ColorPalette.DEFAULT.by_idx(i).as_bgr() for i in numbers], np.uint8)
    blended = cv2.addWeighted(colours[labels], SEGMENT_OPACITY, picture, 1 - SEGMENT_OPACITY, 0)
    background = [i for i, name in enumerate(classes) if name.startswith("background")]
    picture = np.where(np.isin(labels, background)[..., None], picture, blended).astype(np.uint8)
    scale = 0.4 * _line_px(picture)
    for class_id in np.flatnonzero(np.bincount(labels.ravel()) > 0.005 * labels.size):
        if class_id in background:
            continue
        # The point deepest inside the class's regions: a name there names them.
        inside = np.pad((labels == class_id).astype(np.uint8), 1)
        _, _, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
        name = class_name(int(class_id), classes)
        (text_width, text_height), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        left = int(np.clip(x - text_width // 2, 0, max(0, width - text_width)))
        bottom = int(np.clip(y + text_height // 2, text_height + 3, height - 3))
        corners = (left - 3, bottom - text_height - 3), (left + text_width + 3, bottom + 3)
        cv2.rectangle(picture, *corners, colours[class_id].tolist(), -1)
        ink = (0, 0, 0) if colours[class_id].mean() > 128 else (255, 255, 255)
        cv2.putText(picture, name, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return picture
