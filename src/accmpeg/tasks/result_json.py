"""A task's result as JSON, for cameras, subscribers and files, and back.

```
detection     {"task": "detection", "objects": [{"class", "class_id", "score", "box_xyxy"}, …]}
keypoints     … each object also has "keypoints": [[x, y, visibility], …]
instances     … each object also has "mask": {"offset_px", "size_px", "runs"}; "size_px" is the frame's
segmentation  {"task": "segmentation", "size_px": [w, h], "classes": {"0": "road"}, "runs": [class, length]}
```

Coordinates are pixels of the camera's own frames. `runs` go through rows from the top left; those of a mask
begin with the zeros.

This stands beside the tasks, not in `protocol`: writing and reading need the results' own types, which the
wire lies below. A message carries the document unread, so a camera needs none of them, and who reads results
needs neither a server nor a server DNN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import WireError
from accmpeg.tasks.base import TaskName, class_name
from accmpeg.tasks.keypoints import boxes_of, key_points
from accmpeg.tasks.segmentation import IGNORED, ClassMap

__all__ = ["RUN_LIMIT", "from_json", "to_json"]

RUN_LIMIT = 60_000
"""Class maps with more runs are halved in size until they fit: a message's header has a limit."""


def to_json(result: Any, *, task: TaskName, classes: Sequence[str], score_threshold: float) -> dict[str, Any]:
    """The result of one frame as plain lists, numbers and strings.

    Args:
        result: What a server DNN found: `supervision.Detections` or `KeyPoints`, or a class map `(h, w)`.
        task: The DNN's.
        classes: Their names, by class id.
        score_threshold: Objects below it are left out.

    Returns:
        A document that `json.dumps` takes and `from_json` reads.
    """
    if task == "segmentation":
        return _class_map(result, classes)
    if isinstance(result, sv.KeyPoints):
        boxes, confidence = boxes_of(result), result.detection_confidence
    else:
        boxes, confidence = result.xyxy, result.confidence
    scores = np.ones(len(boxes)) if confidence is None else np.asarray(confidence, float)
    class_ids = np.zeros(len(boxes), int) if result.class_id is None else np.asarray(result.class_id)
    objects = []
    for i in np.flatnonzero(scores >= score_threshold):
        class_id = int(class_ids[i])
        found: dict[str, Any] = {
            "class": class_name(class_id, classes),
            "class_id": class_id,
            "score": round(float(scores[i]), 4),
            "box_xyxy": _rounded(boxes[i]),
        }
        if isinstance(result, sv.KeyPoints):
            found["keypoints"] = _points(result, int(i))
        elif result.mask is not None:
            found["mask"] = _mask(result.mask, int(i), boxes[i])
        objects.append(found)
    document: dict[str, Any] = {"task": task, "objects": objects}
    if task == "instances" and result.mask is not None:
        height_px, width_px = result.mask.shape[1:]
        document["size_px"] = [int(width_px), int(height_px)]
    return document


def from_json(document: dict[str, Any]) -> Any:
    """`supervision.Detections` or `KeyPoints`, or the class map `(h, w)`, of what `to_json` wrote.

    Raises:
        WireError: The document is anything else.
    """
    try:
        if document["task"] == "segmentation":
            return _class_map_back(document)
        objects = document["objects"]
        boxes = np.array([each["box_xyxy"] for each in objects], np.float32).reshape(-1, 4)
        scores = np.array([each["score"] for each in objects], np.float32)
        class_ids = np.array([each["class_id"] for each in objects], np.int64)
        if document["task"] == "keypoints":
            return _people(objects, boxes, scores, class_ids)
        mask = None
        if document["task"] == "instances" and "size_px" in document:
            width_px, height_px = _size(document["size_px"])
            mask = _masks_back(objects, boxes, (height_px, width_px))
        return sv.Detections(xyxy=boxes, mask=mask, confidence=scores, class_id=class_ids)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a result that can't be read: {type(error).__name__} {error}") from None


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 1) for value in values]


def _points(people: sv.KeyPoints, index: int) -> list[list[float]]:
    points = np.asarray(people.xy[index], float)
    sure = people.keypoint_confidence
    visible = np.ones(len(points)) if sure is None else np.asarray(sure[index], float)
    return [[*_rounded(point), round(float(seen), 3)] for point, seen in zip(points, visible, strict=True)]


def _people(
    objects: list[dict[str, Any]],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
) -> sv.KeyPoints:
    count = len(objects[0]["keypoints"]) if objects else 0
    points = np.array([each["keypoints"] for each in objects], np.float32).reshape(len(objects), count, 3)
    return key_points(points, boxes, scores, class_ids)


def _runs(flat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The values and lengths of the runs in a 1-D array."""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], np.diff(np.concatenate([starts, [len(flat)]]))


def _mask(masks: Any, index: int, box: NDArray[np.floating[Any]]) -> dict[str, Any]:
    if isinstance(masks, sv.CompactMask):
        crop = masks.crop(index)
        x, y = (int(value) for value in masks.offsets[index])
    else:
        height_px, width_px = masks.shape[1:]
        x, y = max(0, int(box[0])), max(0, int(box[1]))
        right, bottom = min(width_px, int(np.ceil(box[2]))), min(height_px, int(np.ceil(box[3])))
        crop = np.asarray(masks[index][y : max(bottom, y + 1), x : max(right, x + 1)])
    values, lengths = _runs(crop.ravel())
    runs = [0, *lengths.tolist()] if values[0] else lengths.tolist()
    return {"offset_px": [x, y], "size_px": [int(crop.shape[1]), int(crop.shape[0])], "runs": runs}


def _masks_back(
    objects: list[dict[str, Any]], boxes: NDArray[np.float32], shape: tuple[int, int]
) -> sv.CompactMask:
    parts = []
    for each, box in zip(objects, boxes, strict=True):
        x, y = (int(value) for value in each["mask"]["offset_px"])
        width, height = _size(each["mask"]["size_px"])
        if not (0 <= x <= shape[1] - width and 0 <= y <= shape[0] - height):
            raise ValueError("a mask outside its frame")
        lengths = np.asarray(each["mask"]["runs"], np.int64)
        flat = _unroll(np.arange(len(lengths)) % 2 == 1, lengths, width * height)
        dense = np.zeros((1, *shape), np.bool_)
        dense[0, y : y + height, x : x + width] = flat.reshape(height, width)
        parts.append(sv.CompactMask.from_dense(dense, box[None], shape))
    return (
        sv.CompactMask.merge(parts)
        if parts
        else sv.CompactMask.from_dense(np.zeros((0, *shape), bool), boxes, shape)
    )


def _class_map(labels: NDArray[Any], classes: Sequence[str]) -> dict[str, Any]:
    values, lengths = _runs(labels.ravel())
    while len(values) > RUN_LIMIT:
        labels = np.ascontiguousarray(labels[::2, ::2])
        values, lengths = _runs(labels.ravel())
    runs = np.stack([values.astype(np.int64), lengths], axis=1).ravel().tolist()
    present = np.unique(values).tolist()
    return {
        "task": "segmentation",
        "size_px": [int(labels.shape[1]), int(labels.shape[0])],
        "classes": {str(i): class_name(i, classes) for i in present},
        "runs": runs,
    }


def _class_map_back(document: dict[str, Any]) -> ClassMap:
    width, height = _size(document["size_px"])
    runs = np.asarray(document["runs"], np.int64).reshape(-1, 2)
    if len(runs) and not (runs[:, 0].min() >= 0 and runs[:, 0].max() <= 65535):
        raise ValueError("a class outside 0 to 65535")
    number = np.uint8 if len(runs) == 0 or runs[:, 0].max() <= IGNORED else np.uint16
    flat = _unroll(runs[:, 0].astype(number), runs[:, 1], width * height)
    return flat.reshape(height, width)


def _unroll(values: NDArray[Any], lengths: NDArray[np.int64], total: int) -> NDArray[Any]:
    # Checked before anything is allocated: the document may come from anyone.
    if (len(lengths) and (lengths.min() < 0 or lengths.max() > total)) or int(lengths.sum()) != total:
        raise ValueError(f"runs that do not add up to {total} pixels")
    return np.repeat(values, lengths)


def _size(size_px: Any) -> tuple[int, int]:
    width, height = (int(value) for value in size_px)
    if not (1 <= width <= 16384 and 1 <= height <= 16384):
        raise ValueError(f"a size of {width}x{height}")
    return width, height
