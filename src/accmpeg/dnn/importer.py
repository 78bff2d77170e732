"""Making cards: from the JSON description beside an ONNX file, from the file itself, and from answers."""

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from av import VideoFrame
from pydantic import ValidationError

from accmpeg.dnn.base import ServerDnn
from accmpeg.dnn.card import CARD_SUFFIX, DnnCard, explain, write_card
from accmpeg.dnn.check import misread
from accmpeg.dnn.description import MAY_BE_NONE, Answers, from_description, read_description
from accmpeg.dnn.heads import HEADS, get_head
from accmpeg.dnn.onnx_adapter import OnnxNetwork, open_session
from accmpeg.dnn.picture_input import PictureInput
from accmpeg.dnn.ultralytics import OTHER_TASKS, from_metadata
from accmpeg.dnn.weights import sha256_of
from accmpeg.errors import CardError, DnnError, UsageError
from accmpeg.tasks.base import TaskName

__all__ = ["QUESTIONS", "Ask", "Imported", "find_models", "import_model"]

Ask = Callable[[str, str, str | None], str]
"""Asks a person: key, question, default; returns the answer as text."""

QUESTIONS: Mapping[str, str] = {
    "task": "Task (detection, segmentation, keypoints, instances)",
    "classes": "Class names, separated by commas, or a text file with one per line",
    "input.width_px": "Input width in pixels",
    "input.height_px": "Input height in pixels",
    "input.size_multiple": "Multiple that other input sizes must have, or 'none' if the size is fixed",
    "input.colour": "Channel order (rgb, bgr)",
    "input.mean": "Mean subtracted per channel, on the 0..255 scale (three numbers)",
    "input.std": "Divisor per channel, on the 0..255 scale (three numbers; 255,255,255 for 0..1)",
    "input.letterbox": "How a frame of another shape is fitted (stretch, centre, top-left)",
    "head.name": f"Output layout ({', '.join(HEADS)})",
    "score_threshold": "Score threshold, 0 to 1",
    "nms_iou": "IoU above which duplicates are suppressed, or 'none'",
    "keypoints.names": "Keypoint names, separated by commas, or a text file with one per line",
}
"""What a card needs and an ONNX file does not tell, with the question that asks for it."""

TENSORFLOW = ["detection_boxes", "detection_scores", "detection_classes"]
USUAL_NAMES = {
    "boxes": [["boxes", "scores"]],
    "centernet": [["hm", "wh", "reg"]],
    "logits": [["out"]],
    "detr": [
        ["logits", "boxes"],
        ["logits", "pred_boxes"],
        ["pred_logits", "pred_boxes"],
        ["labels", "dets"],
    ],
    "final": [
        ["boxes", "scores", "labels"],
        TENSORFLOW,
        ["dets", "labels"],
        ["det_boxes", "det_scores", "det_classes"],
        ["nmsed_boxes", "nmsed_scores", "nmsed_classes"],
        ["bboxes", "scores", "labels"],
    ],
    "final_keypoints": [["boxes", "scores", "labels", "keypoints"]],
}
"""By head, in its order; networks that name their outputs so have them in any order, and others beside."""
OF_TENSORFLOW = {"columns": "y1,x1,y2,x2", "units": "fractions", "first_label": 1}
"""What its detection API always means by these names."""
COCO_CLASSES, COCO_LABELS = 80, 90
NOT_FOR_SEGMENTATION = ("score_threshold", "nms_iou")
LISTS = ("classes", "keypoints.names", "head.outputs")
PARAMETERS = "head.parameters."
MOST_QUERIES = 1000
"""Outputs with more rows are candidates of a dense detector, not queries."""
OPTIONAL = (
    "input.layout",
    "input.pad_value",
    "keypoints.visibility_threshold",
    "source",
    "licence",
    "name",
    "head.outputs",
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one model: its card, or the reason why there is none."""

    model: Path
    card: Path | None
    note: str


def find_models(path: Path) -> list[Path]:
    """The ONNX files of a folder, or the one file; raises `UsageError` where there are none."""
    found = sorted(path.glob("*.onnx")) if path.is_dir() else [path] if path.is_file() else []
    if path.is_file() and path.suffix != ".onnx":
        raise UsageError(
            f"{path} is no ONNX file: export the network as one first (Ultralytics: yolo export "
            "format=onnx model=FILE.pt), or write its card by hand (docs/guides/server-dnn.md)"
        )
    if not found:
        raise UsageError(f"{path} is neither an ONNX file nor a folder with ONNX files")
    return found


def import_model(
    model: Path,
    cards: Path,
    *,
    data: Path | None = None,
    answers: Mapping[str, str] | None = None,
    ask: Ask | None = None,
    replace: bool = False,
) -> Imported:
    """Writes the card of one ONNX file into the folder `cards`, after running the network once with it.

    `answers` (key → text) win over the description; `ask` is called for what is open. The weights are
    named relative to the card where they lie inside `data` or beside it. Raises `CardError` naming the open
    keys if there is nobody to ask, `UsageError` for an answer that can't be meant, and what `load_dnn` does.
    """
    described = read_description(model.with_suffix(".json"))
    if described is not None and re.search(r"classification|backbone", str(described.get("task", "")), re.I):
        return Imported(model, None, f"skipped: {described['task']} is not a task of a server DNN")
    session = open_session(model)
    told = session.get_modelmeta().custom_metadata_map
    if told.get("task") in OTHER_TASKS:
        return Imported(model, None, f"skipped: {OTHER_TASKS[told['task']]} is not a task of a server DNN")
    outputs = [(output.shape, output.type) for output in session.get_outputs()]
    draft = from_metadata(told, [shape for shape, _ in outputs])
    draft |= _from_input(PictureInput(model, session.get_inputs()))
    if described is not None:
        draft |= from_description(described)
    for key, text in (answers or {}).items():
        if key.startswith(PARAMETERS):
            draft.setdefault("head.parameters", {})[key.removeprefix(PARAMETERS)] = _parse_parameter(text)
        else:
            draft[key] = _parse(key, text)
    _complete(draft, model, ask, _guess_head(outputs))
    names = {output.name.removesuffix(":0"): output.name for output in session.get_outputs()}
    usual = next((each for each in USUAL_NAMES.get(draft["head.name"], []) if {*each} <= {*names}), None)
    if usual:
        draft.setdefault("head.outputs", [names[name] for name in usual])
    if usual == TENSORFLOW:
        draft["head.parameters"] = OF_TENSORFLOW | draft.get("head.parameters", {})

    card_path = cards / f"{draft.get('name', model.stem)}{CARD_SUFFIX}"
    card = _build(draft, model, card_path, data)
    dnn = ServerDnn(card, OnnxNetwork(card, model, session), get_head(card))
    grey = _grey_frame(card)
    try:
        dnn.infer(grey)
    except DnnError as error:
        if "head.outputs" not in str(error):
            raise
        told_of = ", ".join(f"'{output.name}' {output.shape}" for output in session.get_outputs())
        raise DnnError(f"{error} (its outputs: {told_of})") from error
    wrong = misread(dnn, grey)
    if card_path.exists() and not replace:
        raise CardError(f"{card_path} exists: give --replace to write it anew")
    write_card(card, card_path)
    doubt = "" if wrong is None else f"; wrong as it stands: {wrong}"
    if card.head.parameters.get("first_label") == 1 and len(card.classes) == COCO_CLASSES:
        doubt += "; if these are COCO's classes, their labels go to 90: name the ten unused ones, too"
    reads_labels = card.head.name.startswith(("final", "end2end"))
    if reads_labels and "first_label" not in card.head.parameters and len(card.classes) == COCO_LABELS:
        doubt += "; if these are COCO's classes, they begin at 1: say head.parameters.first_label = 1"
    return Imported(model, card_path, f"{card.task}, head {card.head.name}{doubt}")


def _grey_frame(card: DnnCard) -> VideoFrame:
    """A frame whose height is an odd multiple of the card's: so a network that needs a larger one fails now,
    and not when frames of such a shape come."""
    multiple = card.input.size_multiple or 2
    height_px = multiple * (card.input.height_px * 5 // (8 * multiple) | 1)
    pixels = np.full((height_px, card.input.width_px, 3), 114, np.uint8)
    return VideoFrame.from_ndarray(pixels, format="rgb24")


def _from_input(picture: PictureInput) -> Answers:
    """The card keys that the file's input settles."""
    found: Answers = {"input.name": picture.name, "input.layout": picture.layout}
    if picture.height_px is not None and picture.width_px is not None:
        found |= {
            "input.height_px": picture.height_px,
            "input.width_px": picture.width_px,
            "input.size_multiple": None,
        }
    if picture.dtype.kind in "iu":
        found |= {"input.mean": [0.0] * 3, "input.std": [1.0] * 3}
    return found


def _guess_head(outputs: list[tuple[list[Any], str]]) -> str | None:
    """The likeliest layout from shapes and types of the outputs: a default for the question, no more."""
    shapes = [shape for shape, _ in outputs]
    if len(shapes) == 1 and len(shapes[0]) == 3 and "int" in outputs[0][1]:
        return "class_map"
    if len(shapes) == 1 and len(shapes[0]) == 4:
        return "class_map" if "int" in outputs[0][1] else "binary" if 1 in shapes[0][1::2] else "logits"
    rows, columns = ([None] * 2 + shapes[0])[-2:] if shapes else (None, None)
    is_dense = isinstance(rows, int) and rows > MOST_QUERIES
    if len(shapes) == 2 and len(shapes[1]) == 4:
        return "end2end_seg" if columns == 38 else "yolo_objectness_seg" if is_dense else "yolo_seg"
    if len(shapes) == 2:
        return "final" if columns == 5 else "boxes" if is_dense else "detr"
    if len(shapes) == 3:
        return "centernet" if all(len(shape) == 4 for shape in shapes) else "final"
    if len(shapes) == 1 and shapes[0]:
        if columns == 6 and not is_dense:
            return "end2end"
        if isinstance(rows, int) and isinstance(columns, int) and rows > columns:
            return "yolo_objectness" if is_dense else "rtdetr"
        return "yolo" if isinstance(rows, int) else "yolo_objectness"
    return None


def _complete(draft: Answers, model: Path, ask: Ask | None, likely: str | None) -> None:
    """Asks for every open key; raises `CardError` naming them all where nobody can be asked."""
    still_open = []
    for key, question in QUESTIONS.items():
        task = draft.get("task")
        if key in draft or (key == "keypoints.names" and task != "keypoints"):
            continue
        if key in NOT_FOR_SEGMENTATION and task == "segmentation":
            continue
        if ask is not None:
            # The task, which is asked for first, rules most heads out.
            fits = key == "head.name" and likely is not None and HEADS[likely].task == task
            default = "0.25" if key == "score_threshold" else likely if fits else None
            draft[key] = _parse(key, ask(key, question, default))
        else:
            still_open.append(key)
    if still_open:
        raise CardError(
            f"{model}: nothing says {', '.join(still_open)}: give each as --set key=value, or run this in a "
            "terminal to be asked"
        )


def _parse(key: str, text: str) -> Any:
    """An answer as the card's value."""
    if key not in QUESTIONS and key not in OPTIONAL:
        known = ", ".join((*QUESTIONS, *OPTIONAL, f"{PARAMETERS}NAME"))
        raise UsageError(f"--set {key}: choose one of {known}")
    if key in LISTS:
        return _names(key, text.strip())
    text = _bare(text)
    if key in MAY_BE_NONE and text.lower() == "none":
        return None
    if key == "task" and text not in get_args(TaskName):
        raise UsageError(f"task: choose one of {', '.join(get_args(TaskName))}, not '{text}'")
    if key in ("input.mean", "input.std"):
        try:
            return [float(value) for value in text.replace(",", " ").split()]
        except ValueError:
            raise UsageError(f"{key}: give three numbers such as 0,0,0, not '{text}'") from None
    return text


def _names(key: str, text: str) -> list[str]:
    """Names separated by commas, or the lines of a text file.

    Raises `UsageError` for a file whose lines do not count the network's classes.
    """
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").strip().splitlines()
        lines = [line for line in lines if not line.startswith("#")]
    except (OSError, UnicodeDecodeError):
        lines = []
    if text.endswith((".yaml", ".yml", ".json", ".pbtxt", ".xml", ".csv", ".py")):
        raise UsageError(f"{key}: {text} is no text file with one name per line: write one from it")
    if not lines and text.endswith((".txt", ".names")):
        raise UsageError(f"{key}: there is no file {text} that can be read")
    if len(lines) < 2:
        listed = _bare(lines[0] if lines else text).split(",")
        return [bare for name in listed if (bare := _bare(name))]
    names = [line.strip() for line in lines]
    if "" in names:
        raise UsageError(
            f"{key}: line {names.index('') + 1} of {text} is empty, and each line names the next class: "
            "write 'unused' there if the network has that class, or else take the line out"
        )
    numbers = [int(found[1]) for name in names if (found := re.match(r"(\d+)[\s:,]", name))]
    expected = range(numbers[0], numbers[0] + len(names)) if numbers else range(0)
    if len(numbers) == len(names) and numbers[0] in (0, 1) and numbers != [*expected]:
        lost = next(want for want, found in zip(expected, numbers, strict=True) if want != found)
        raise UsageError(
            f"{key}: the names in {text} are numbered, and {lost} is not in its place: write a line for each "
            "number, in order, such as 'unused' for a class that has no name"
        )
    return names


def _bare(text: str) -> str:
    """Without the brackets and quotes that a value has in a card."""
    return text.strip().strip("[]'\" ")


def _parse_parameter(text: str) -> Any:
    """A head's parameter: a number or list of whole numbers where it reads as one, else the text."""
    text = _bare(text)
    for read in (int, float, lambda value: [int(part) for part in value.split(",")]):
        with contextlib.suppress(ValueError):
            return read(text)
    return text


def _build(draft: Answers, model: Path, card_path: Path, data: Path | None) -> DnnCard:
    nested: dict[str, Any] = {"name": model.stem, "adapter": "onnx", "sha256": sha256_of(model)}
    for key, value in draft.items():
        section, _, name = key.rpartition(".")
        if value is not None:
            (nested.setdefault(section, {}) if section else nested)[name] = value
    weights, folder = model.resolve(), card_path.parent.resolve()
    near = weights.is_relative_to((data or folder).resolve())
    nested["model"] = Path(os.path.relpath(weights, folder)).as_posix() if near else str(weights)
    try:
        # Answers come as text; the card's own types are read out of it.
        return DnnCard.model_validate(nested)
    except ValidationError as error:
        raise CardError(f"{model}: {explain(error, DnnCard)}") from error
