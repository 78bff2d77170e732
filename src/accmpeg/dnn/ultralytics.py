"""What Ultralytics writes into its ONNX files, as text: class names, task, sizes; YOLOv5 only names."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["OTHER_TASKS", "from_metadata"]

TASKS = {"detect": "detection", "segment": "instances", "pose": "keypoints", "semantic": "segmentation"}
OTHER_TASKS = {"obb": "rotated boxes", "classify": "classification", "depth": "depth estimation"}
MASK_COEFFICIENTS = 32


def from_metadata(told: Mapping[str, str], outputs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The card keys that a file's metadata and the shapes of its outputs settle."""
    found: dict[str, Any] = {}
    names = _read(told.get("names"))
    if isinstance(names, dict):
        names = [name for _, name in sorted(names.items(), key=lambda item: str(item[0]).zfill(9))]
    if isinstance(names, list) and names:
        found["classes"] = [str(name) for name in names]
    task = TASKS.get(told.get("task", ""))
    if told.get("author") != "Ultralytics" or task is None or not outputs or "classes" not in found:
        return found
    match _read(told.get("imgsz")), _read(told.get("stride")):
        case [int(height_px), int(width_px)], int(stride):
            sizes = {"height_px": height_px, "width_px": width_px, "size_multiple": stride}
            found |= {f"input.{key}": value for key, value in sizes.items()}
    match _read(told.get("kpt_names")):
        case {0: [*points]}:
            found["keypoints.names"] = [str(name) for name in points]
    is_rtdetr = "rtdetr" in told.get("description", "").lower() or told.get("head") == "RTDETRDecoder"
    found |= _segments(outputs) if task == "segmentation" else _objects(told, outputs, task, is_rtdetr)
    return found | {
        "task": task,
        "input.colour": "rgb",
        "input.mean": [0.0] * 3,
        "input.std": [255.0] * 3,
        "input.letterbox": "stretch" if is_rtdetr or found["head.name"] == "rtdetr" else "centre",
        "score_threshold": 0.25,
        "nms_iou": 0.45 if found["head.name"].startswith("yolo") else None,
        "licence": told.get("license", ""),
    }


def _segments(outputs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Newer versions finish the class map inside."""
    return {"head.name": "class_map" if len(outputs[0]) == 3 else "logits"}


def _objects(
    told: Mapping[str, str], outputs: Sequence[Sequence[Any]], task: str, is_rtdetr: bool
) -> dict[str, Any]:
    columns, classes = (list(outputs[0]) or [None])[-1], len(_read(told["names"]))
    match _read(told.get("kpt_shape")):
        case [int(keypoints), int(each)]:
            values = keypoints * each
        case _:
            values = 0
    # Without suppression the last axis is that of the anchors; it has no number where sizes are open.
    ends = {"detection": 6, "instances": 6 + MASK_COEFFICIENTS, "keypoints": 6 + values}
    chooses = _chooses(told) if isinstance(columns, str) else columns == ends[task]
    # RT-DETR of two classes has six columns in older versions, too; these do not name its head.
    if is_rtdetr and chooses and ("head" in told or classes != 2):
        parameters = {"columns": "cx,cy,w,h,score,class", "units": "fractions"}
        return {"head.name": "end2end", "head.parameters": parameters}
    if task == "detection" and (is_rtdetr or columns == 4 + classes != ends[task]):
        return {"head.name": "rtdetr"}
    kind = {"detection": "", "instances": "_seg", "keypoints": "_pose"}[task]
    return {"head.name": f"{'end2end' if chooses else 'yolo'}{kind}"}


def _chooses(told: Mapping[str, str]) -> bool:
    """Whether the network chooses its objects itself; older versions don't say so of YOLOv10."""
    options = _read(told.get("args"))
    suppresses = isinstance(options, dict) and options.get("nms") is True
    return suppresses or told.get("end2end") == "True" or "yolov10" in told.get("description", "").lower()


def _read(text: str | None) -> Any:
    """A Python literal; None for anything else."""
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
