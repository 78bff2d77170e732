"""True labels of clips, in COCO's detection format, and their classes as a server DNN numbers them.

`images` name the frames: by `frame_index` where they have one, else in the order of `file_name`. A frame
without an entry has no labels of its own and ends the labelled part.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

from accmpeg.errors import EvaluationError

__all__ = ["in_classes_of", "read_coco"]


def read_coco(path: Path) -> tuple[list[sv.Detections], tuple[str, ...]]:
    """Labels per frame, boxes in source pixels, and the names that their class ids count.

    Raises `EvaluationError` for a file that is no COCO detection file.
    """
    try:
        document = json.loads(path.read_text())
        categories = sorted(document["categories"], key=lambda category: int(category["id"]))
        numbers = {category["id"]: number for number, category in enumerate(categories)}
        images = sorted(
            document["images"], key=lambda image: (image.get("frame_index", -1), str(image["file_name"]))
        )
        boxes: dict[Any, list[tuple[list[float], int]]] = {image["id"]: [] for image in images}
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd"):
                boxes[annotation["image_id"]].append((annotation["bbox"], numbers[annotation["category_id"]]))
        labels = [_detections(boxes[image["id"]]) for image in images]
        return labels, tuple(str(category["name"]) for category in categories)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path} is no COCO detection file ({type(error).__name__}: {error}): it needs images, "
            "annotations with bbox, and categories"
        ) from error


def _detections(found: Sequence[tuple[list[float], int]]) -> sv.Detections:
    if not found:
        return sv.Detections.empty()
    corners = np.asarray([box for box, _ in found], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return sv.Detections(
        xyxy=corners,
        class_id=np.asarray([number for _, number in found]),
        confidence=np.ones(len(found), np.float32),
    )


def in_classes_of(
    labels: Sequence[sv.Detections], names: Sequence[str], classes: Sequence[str]
) -> list[sv.Detections] | None:
    """Labels with a server DNN's class numbers; classes that it does not know are left out.

    None where it knows none of them: its results can't be judged by these labels.
    """
    known: Mapping[int, int] = {
        number: list(classes).index(name) for number, name in enumerate(names) if name in classes
    }
    if not known:
        return None
    return [_renumbered(frame, known) for frame in labels]


def _renumbered(frame: sv.Detections, known: Mapping[int, int]) -> sv.Detections:
    if frame.class_id is None or len(frame) == 0:
        return sv.Detections.empty()
    kept = np.isin(frame.class_id, list(known))
    if not kept.any():
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=frame.xyxy[kept],
        confidence=None if frame.confidence is None else frame.confidence[kept],
        class_id=np.asarray([known[int(number)] for number in frame.class_id[kept]]),
    )
