"""True labels of clips, in COCO's detection format.

`images` name the frames: by `frame_index` (from 0) where they have one, else by the number in `file_name`, be
it padded with zeros or not; names without a number count in their order. Numbers begin at 0 or 1, or anywhere
where all frames are labelled. Frames after the last labelled one have no labels; one between others must have
its entry, for else no one could tell which frames are meant.

Boxes with `iscrowd` or `ignore`, those of a category that is called so (`DontCare`, `ignored regions`), and
`info.unlabelled_zones` (boxes `[x0, y0, x1, y1]`, for all frames), are regions in which objects were not
labelled one by one: `unlabelled_xyxy` of a frame. Folders in `file_name` may stand with either slash.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from accmpeg.errors import EvaluationError
from accmpeg.media.footage import natural_order

__all__ = ["read_coco", "unlabelled_xyxy"]

log = logging.getLogger(__name__)

_UNLABELLED = "unlabelled_xyxy"
_REGION = re.compile(r"(don'?t[ _-]?care|ignored?)([ _-]?(region|area|zone)s?)?", re.IGNORECASE)
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before a picture's name
_NEARLY_ALL = 0.9  # of a clip's frames
_COUNT = "give each image a frame_index, which counts the clip's frames from 0"
_FAR_OUT = 0.25  # of the boxes: most tools cut those of what is half outside


def read_coco(
    path: Path,
    picture_names: Sequence[str] | None = None,
    *,
    size_px: tuple[int, int] | None = None,
    count_frames: Callable[[], int] | None = None,
) -> tuple[list[sv.Detections], tuple[str, ...]]:
    """Labels per frame, boxes in source pixels, and the names that their class ids count.

    `picture_names`: the files of a clip that is a folder of pictures, in their order. With them, images
    without `frame_index` are paired by name, so that numbers may be missing among the pictures. `size_px`:
    the clip's, which its labels must be of where they say a size. `count_frames`: of the clip, asked where it
    decides what numbers in names mean.
    Raises `EvaluationError` for a file that is no COCO detection file, or whose images can't be told apart.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark before it
        categories = sorted(document["categories"], key=_by_id)
        numbers = {_id(category["id"]): number for number, category in enumerate(categories)}
        names = tuple(str(category["name"]).strip() for category in categories)
        images = _in_frame_order(document["images"], picture_names, count_frames)
        _check_size(images, size_px)
        zones = [[float(edge) for edge in zone] for zone in _zones(document)]
        frames = {_id(image["id"]): _Frame(crowds=list(zones)) for image in images}
        if len(frames) < len(images) or len(numbers) < len(categories):
            raise ValueError("two images or two categories have one id")
        for annotation in document["annotations"]:
            image_id, category_id = _id(annotation["image_id"]), _id(annotation["category_id"])
            if image_id not in frames:
                raise ValueError(f"an annotation is of image {image_id}, and images has none of that id")
            if category_id not in numbers:
                raise ValueError(f"an annotation is of category {category_id}, and categories has no such id")
            frame, corners = frames[image_id], _corners(annotation["bbox"])
            is_region = any(
                int(annotation.get(key) or 0) for key in ("iscrowd", "ignore")
            )  # "0" in some files
            if is_region or _REGION.fullmatch(names[numbers[category_id]]):
                frame.crowds.append(corners)
            else:
                frame.objects.append(corners)
                frame.classes.append(numbers[category_id])
        labels = [frames[_id(image["id"])].detections() for image in images]
        _check_boxes(np.concatenate([each.xyxy for each in labels]), size_px)
        return labels, names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path} is no COCO detection file ({type(error).__name__}: {error}): it needs images, "
            "annotations with bbox, and categories"
        ) from error
    except _UnclearFramesError as error:
        raise EvaluationError(f"{path} {error}") from error


def unlabelled_xyxy(labels: sv.Detections) -> NDArray[np.float32]:
    """The regions `(z, 4)` of a frame in which objects were not labelled one by one, in source pixels."""
    return np.asarray(labels.metadata.get(_UNLABELLED, ()), np.float32).reshape(-1, 4)


class _UnclearFramesError(Exception):
    """Why the frames of a label file can't be told; read on as one line after the file's name."""


@dataclass
class _Frame:
    """What is labelled in one frame: boxes as corners, their class numbers, and regions of many objects."""

    crowds: list[list[float]]
    objects: list[list[float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def detections(self) -> sv.Detections:
        return sv.Detections(
            xyxy=np.asarray(self.objects, np.float32).reshape(-1, 4),
            class_id=np.asarray(self.classes, np.int64),
            confidence=np.ones(len(self.objects), np.float32),
            metadata={_UNLABELLED: np.asarray(self.crowds, np.float32).reshape(-1, 4)},
        )


def _id(value: Any) -> str:
    """Tools write an id as a number in one place, and as text or with a decimal point in another."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _by_id(category: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Sorts numbers as numbers, before ids that are none."""
    text = _id(category["id"])
    return not text.isdecimal(), int(text) if text.isdecimal() else 0, text


def _in_frame_order(
    images: Sequence[Mapping[str, Any]],
    picture_names: Sequence[str] | None,
    count_frames: Callable[[], int] | None,
) -> list[Mapping[str, Any]]:
    """The images, that of the clip's first frame first."""
    if not images:
        raise _UnclearFramesError("has no images, so no frame is labelled: list every labelled frame in it")
    indexed = ["frame_index" in image for image in images]
    if any(indexed) and not all(indexed):
        raise _UnclearFramesError("gives only some of its images a frame_index: give it to all or to none")
    names = [] if all(indexed) else [_original(str(image["file_name"])) for image in images]
    if all(indexed):
        frames = [int(image["frame_index"]) for image in images]
        told = [f"frame_index {frame}" for frame in frames]
    elif picture_names is not None:
        told = [PurePosixPath(name).name for name in names]
        place = {name: number for number, name in enumerate(picture_names)}
        if not {*told} <= {*place}:  # they may have become JPEGs since
            stems = {PurePosixPath(name).stem: number for name, number in place.items()}
            given = {name: _UPLOADED.sub("", PurePosixPath(name).stem) for name in told}
            place = {name: stems[stem] for name, stem in given.items() if stem in stems}
        unknown = next((name for name in told if name not in place), None)
        if unknown is not None:
            raise _UnclearFramesError(f"labels {unknown}, which is none of the clip's pictures")
        frames = [place[name] for name in told]
    else:
        if len({PurePosixPath(name).name for name in names}) < len({*names}):
            raise _UnclearFramesError("has several folders with pictures of one name: give each clip its own")
        numbers, told = _numbers_in(names), names
        first, count = min(numbers), 0 if count_frames is None else count_frames()
        if len(names) < _NEARLY_ALL * count:
            if first > 1:
                raise _UnclearFramesError(
                    f"begins with number {first} and has {len(names)} images, and the clip has {count} "
                    f"frames: {_COUNT}"
                )
            _tell_few(names[0], len(names), count)
        frames = [number - first for number in numbers]
    order = sorted(range(len(images)), key=lambda index: frames[index])
    for expected, index in enumerate(order):
        if frames[index] == expected:
            continue
        if expected and frames[index] == frames[order[expected - 1]]:
            raise _UnclearFramesError(f"has two images for one frame ({told[index]}): leave one out")
        before = f" after {told[order[expected - 1]]}" if expected else " for the clip's first frame"
        raise _UnclearFramesError(
            f"has no image{before} (next is {told[index]}): every frame up to the last labelled one needs "
            "an entry in images, also where nothing is to be seen, and frame_index counts from 0; of a clip "
            "that was labelled in part, give the labelled pictures as a folder"
        )
    return [images[index] for index in order]


@cache  # workers open a clip several times
def _tell_few(name: str, labelled: int, frames: int) -> None:
    """The names of pictures that were taken from a video at a lower rate look the same."""
    log.warning(
        "%s and the other %d labelled pictures are taken for the first of the clip's %d frames; if they are "
        "every so many frames, %s",
        name,
        labelled - 1,
        frames,
        _COUNT,
    )


def _check_size(images: Sequence[Mapping[str, Any]], size_px: tuple[int, int] | None) -> None:
    """Boxes in pixels of another size lie beside the objects, and the scores would say that all are lost."""
    for image in images:
        # Some tools write numbers as text, or 0 for what they don't know.
        labelled_px = int(float(image.get("width") or 0)), int(float(image.get("height") or 0))
        if size_px is not None and all(labelled_px) and labelled_px != size_px:
            raise _UnclearFramesError(
                f"labels {image.get('file_name', 'frames')} in {labelled_px[0]}x{labelled_px[1]} pixels, "
                f"and the clip has {size_px[0]}x{size_px[1]}: scale the boxes, "
                "or give the clip that was labelled"
            )


def _check_boxes(xyxy: NDArray[np.float32], size_px: tuple[int, int] | None) -> None:
    """Boxes as fractions or as corners are read as others, which lie where nothing is."""
    sizes = xyxy[:, 2:] - xyxy[:, :2]
    if len(xyxy) and xyxy.max() <= 1.01 and sizes.max() > 0:
        raise _UnclearFramesError(
            "has bbox as fractions of the picture: give x, y, width and height in pixels"
        )
    if size_px is None or not len(xyxy):
        return
    corners_fit = (sizes > xyxy[:, :2]).all() and (sizes <= np.asarray(size_px) * 1.01).all()
    out = (xyxy[:, 2:] > np.asarray(size_px) * 1.05).any(axis=1).mean()
    if out > (_FAR_OUT if corners_fit else 2 * _FAR_OUT):
        raise _UnclearFramesError(
            f"has boxes of which {out:.0%} leave the picture: give x, y, width and height, and no corners, "
            "in pixels of the clip"
        )


def _original(name: str) -> str:
    """Roboflow makes NAME_jpg.rf.HASH.jpg of it, and parts of a data set, whose numbers leave some out."""
    return re.sub(r"_([^\W_]+)\.rf\.\w+\.\w+$", r".\1", name.replace("\\", "/"))


def _numbers_in(names: Sequence[str]) -> list[int]:
    """The last number in each name, where the names differ in nothing else or the numbers leave none out
    (some tools put a random word before each name); else the names' places in their order, from 0."""
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    split = [re.fullmatch(r"(.*?)(\d+)(\D*)", stem) for stem in stems]
    matched = [found for found in split if found is not None]
    if len(matched) == len(names):
        numbers = [int(found[2]) for found in matched]
        leaves_none_out = len({*numbers}) == len(numbers) == max(numbers) - min(numbers) + 1
        if leaves_none_out or len({(found[1], found[3]) for found in matched}) == 1:
            return numbers
    ranked = sorted(set(names), key=lambda name: [natural_order(Path(part)) for part in name.split("/")])
    return [ranked.index(name) for name in names]


def _zones(document: Mapping[str, Any]) -> Sequence[Any]:
    info = document.get("info") or {}
    zones = info.get("unlabelled_zones", [])
    for zone in zones:
        if len(zone) != 4:
            raise ValueError(f"info.unlabelled_zones has {zone}, which is no box of 4 numbers")
    return list(zones)


def _corners(box: Sequence[float]) -> list[float]:
    if len(box) != 4:
        raise ValueError(f"bbox {list(box)} is no box: x, y, width and height in pixels")
    x, y, width, height = (float(value) for value in box)
    if not all(np.isfinite([x, y, width, height])) or width < 0 or height < 0:
        raise ValueError(f"bbox {list(box)} is no box: x, y, width and height in pixels")
    return [x, y, x + width, y + height]
