"""Results as named arrays, for files: `.npz` holds them without pickling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import supervision as sv
from numpy.typing import NDArray

__all__ = ["result_arrays", "result_from_arrays"]

_DETECTIONS = ("xyxy", "mask", "confidence", "class_id")
_KEYPOINTS = ("xy", "keypoint_confidence", "detection_confidence", "class_id")
_CLASSES = "classes"


def result_arrays(result: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a task's result, by name; boxes and points are in pixels of the frame."""
    if isinstance(result, np.ndarray):
        return {_CLASSES: result}
    # Asked by type, because `KeyPoints.confidence` is a deprecated alias that warns.
    names = _KEYPOINTS if isinstance(result, sv.KeyPoints) else _DETECTIONS
    arrays = {name: getattr(result, name) for name in names} | dict(result.data)
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


def result_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The result that `result_arrays` was given."""
    if _CLASSES in arrays:
        return arrays[_CLASSES]
    if "xy" in arrays:
        points_data: dict[str, Any] = {
            name: array for name, array in arrays.items() if name not in _KEYPOINTS
        }
        return sv.KeyPoints(**{name: arrays[name] for name in _KEYPOINTS if name in arrays}, data=points_data)
    data: dict[str, Any] = {name: array for name, array in arrays.items() if name not in _DETECTIONS}
    own: dict[str, Any] = {name: arrays[name] for name in _DETECTIONS if name in arrays}
    return sv.Detections(**own, data=data)
