"""What Ultralytics writes into its ONNX files, as text: class names, task, sizes; YOLOv5 only names."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["OTHER_TASKS", "from_metadata"]

TASKS = {"detect": "detection", "segment": "instances", "pose": "keypoints"}
OTHER_TASKS = {"obb": "rotated boxes", "classify": "classification"}
MASK_COEFFICIENTS = 32


def from_metadata(told: Mapping[str, str], outputs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The card keys that a file's metadata and the shapes of its outputs settle."""
    found: dict[str, Any] = {}
    names = _read(told.get("names"))
    if isinstance(names, dict):
        names = [*names.values()]
    if isinstance(names, list) and names:
        found["classes"] = [str(name) for name in names]
    task = TASKS.get(told.get("task", ""))
    if told.get("author") != "Ultralytics" or task is None or not outputs or "classes" not in found:
        return found
    match _read(told.get("imgsz")), _read(told.get("stride")):
        case [int(height_px), int(width_px)], int(stride):
            sizes = {"height_px": height_px, "width_px": width_px, "size_multiple": stride}
            found |= {f"input.{key}": value for key, value in sizes.items()}
    columns, classes = (list(outputs[0]) or [None])[-1], len(found["classes"])
    match _read(told.get("kpt_shape")):
        case [int(keypoints), int(each)]:
            values = keypoints * each
        case _:
            values = 0
    # Without suppression the last axis is that of the anchors.
    ends = {"detection": 6, "instances": 6 + MASK_COEFFICIENTS, "keypoints": 6 + values}
    kind = {"detection": "", "instances": "_seg", "keypoints": "_pose"}[task]
    is_rtdetr = "rtdetr" in told.get("description", "").lower()
    queries = task == "detection" and (is_rtdetr or columns == 4 + classes != ends[task])
    head = "rtdetr" if queries else f"end2end{kind}" if columns == ends[task] else f"yolo{kind}"
    return found | {
        "task": task,
        "input.colour": "rgb",
        "input.mean": [0.0] * 3,
        "input.std": [255.0] * 3,
        "input.letterbox": "stretch" if queries else "centre",
        "head.name": head,
        "score_threshold": 0.25,
        "nms_iou": 0.45 if head.startswith("yolo") else None,
        "licence": told.get("license", ""),
    }


def _read(text: str | None) -> Any:
    """A Python literal; None for anything else."""
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
