"""The JSON description beside an ONNX file, as the keys of a card.

It says in words what a card says in keys (`input.letterbox`: "keep aspect ratio, … centred"). What the words
do not settle is left open, and asked for.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accmpeg.errors import CardError

__all__ = ["MAY_BE_NONE", "Answers", "from_description", "read_description"]

Answers = dict[str, Any]
MAY_BE_NONE = ("input.size_multiple", "nms_iou")
"""Keys of which nothing is an answer."""


def read_description(path: Path) -> dict[str, Any] | None:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CardError(f"{path} can't be read as a description: {error}") from error
    if not isinstance(described, dict) or not all(
        isinstance(described.get(section, {}), dict) for section in ("input", "outputs")
    ):
        raise CardError(
            f"{path} is not a description: expected objects under 'input' and 'outputs'; move it away if "
            "it is another program's"
        )
    return described


def from_description(described: Mapping[str, Any]) -> Answers:
    """The card keys that a description settles; whatever it words in another way stays open."""
    entry = described.get("input", {})
    text = {key: str(value).lower() for key, value in entry.items()}
    found: Answers = {"task": _task(str(described.get("task", "")).lower())}
    match entry.get("native"):
        case [_, _, int(height_px), int(width_px)]:
            found["input.height_px"], found["input.width_px"] = height_px, width_px
    multiple = re.search(r"multiples? of (\d+)", text.get("dynamic", ""))
    if multiple:
        # A native size that the stated multiple does not divide works too: then so does their common divisor.
        native = (found.get("input.height_px", 0), found.get("input.width_px", 0))
        found["input.size_multiple"] = math.gcd(int(multiple[1]), *native)
    elif "height" not in text.get("dynamic", "height"):
        found["input.size_multiple"] = None
    if text.get("colour") in ("rgb", "bgr"):
        found["input.colour"] = text["colour"]
    found |= _normalisation(text.get("range", ""), text.get("normalisation", ""))
    found |= _letterbox(text.get("letterbox", ""))
    found |= _head(described.get("outputs", {}))
    for key in ("classes", "score_threshold", "licence", "name"):
        if key in described:
            found[key] = described[key]
    nms_iou = described.get("nms_iou")
    if isinstance(nms_iou, int | float):
        found["nms_iou"] = nms_iou
    elif "not needed" in str(nms_iou):
        found["nms_iou"] = None
    if "keypoints" in described:
        found["keypoints.names"] = described["keypoints"]
        found["keypoints.visibility_threshold"] = described.get("keypoint_visibility_threshold", 0.5)
    source = described.get("source")
    if isinstance(source, dict):
        found["source"] = "/".join(str(source[k]) for k in ("repository", "commit", "path") if k in source)
    return {key: value for key, value in found.items() if value is not None or key in MAY_BE_NONE}


def _task(text: str) -> str | None:
    words = {
        "keypoint": "keypoints",
        "instance segmentation": "instances",
        "semantic segmentation": "segmentation",
        "object detection": "detection",
    }
    return next((task for word, task in words.items() if word in text), None)


def _normalisation(value_range: str, rule: str) -> Answers:
    unit = 255.0 if value_range.startswith("0..1") else 1.0
    triple = r"\[([^\]]+)\]"
    if both := re.search(rf"\(x-{triple}\)/{triple}", rule):
        mean, std = ([float(v) * unit for v in group.split(",")] for group in both.groups())
        return {"input.mean": mean, "input.std": std}
    if only := re.search(rf"x-{triple}", rule):
        return {"input.mean": [float(v) * unit for v in only[1].split(",")], "input.std": [unit] * 3}
    if "pixel/127.5-1" in rule:
        return {"input.mean": [127.5] * 3, "input.std": [127.5] * 3}
    if rule.startswith("none") and value_range.startswith("0.."):
        return {"input.mean": [0.0] * 3, "input.std": [unit] * 3}
    return {}


def _letterbox(text: str) -> Answers:
    found: Answers = {}
    if "top-left" in text:
        found["input.letterbox"] = "top-left"
    elif "centred" in text:
        found["input.letterbox"] = "centre"
    elif "plain" in text and "resize" in text:
        found["input.letterbox"] = "stretch"
    if pad := re.search(r"value (\d+)", text):
        found["input.pad_value"] = float(pad[1])
    return found


def _head(outputs: Mapping[str, Any]) -> Answers:
    text = json.dumps(outputs, ensure_ascii=False).lower()
    rows_first = "rows 0-3: cx,cy,w,h" in text
    if rows_first and "mask coefficients" in text:
        return {"head.name": "yolo_seg", "head.outputs": list(outputs)}
    if rows_first and "visibility" in text:
        return {"head.name": "yolo_pose"}
    if rows_first:
        return {"head.name": "yolo"}
    if "score = objectness" in text:
        return {"head.name": "yolo_objectness"}
    if bins := re.search(r"x (\d+) bins", text):
        strides = re.search(r"stride ([\d,]+)", text)
        found: Answers = {"head.name": "nanodet", "head.parameters": {"bins": int(bins[1])}}
        if strides:
            found["head.parameters"]["strides"] = [int(s) for s in strides[1].strip(",").split(",")]
        return found
    if "queries" in text and {"logits", "boxes"} <= set(outputs):
        activation = "sigmoid" if "sigmoid" in text else "softmax"
        return {
            "head.name": "detr",
            "head.outputs": ["logits", "boxes"],
            "head.parameters": {"activation": activation},
        }
    return {"head.name": "logits"} if "argmax" in text else {}
