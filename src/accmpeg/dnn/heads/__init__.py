"""Heads: how a network's raw outputs are read. One file per layout, one row here, named by the card."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.heads.base import Head
from accmpeg.dnn.heads.boxes import BoxesHead, FinalHead, FinalKeypointsHead
from accmpeg.dnn.heads.detr import DetrHead
from accmpeg.dnn.heads.logits import LogitsHead
from accmpeg.dnn.heads.nanodet import NanodetHead
from accmpeg.dnn.heads.yolo import YoloHead, YoloPoseHead, YoloSegHead
from accmpeg.dnn.heads.yolo_objectness import YoloObjectnessHead
from accmpeg.errors import CardError

__all__ = ["HEADS", "Head", "HeadRow", "get_head"]


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head's class and the tasks that it can answer."""

    make: Callable[..., Head]
    task: str


HEADS: Mapping[str, HeadRow] = {
    "yolo": HeadRow(YoloHead, "detection"),
    "yolo_pose": HeadRow(YoloPoseHead, "keypoints"),
    "yolo_seg": HeadRow(YoloSegHead, "instances"),
    "yolo_objectness": HeadRow(YoloObjectnessHead, "detection"),
    "nanodet": HeadRow(NanodetHead, "detection"),
    "detr": HeadRow(DetrHead, "detection"),
    "boxes": HeadRow(BoxesHead, "detection"),
    "final": HeadRow(FinalHead, "detection"),
    "final_keypoints": HeadRow(FinalKeypointsHead, "keypoints"),
    "logits": HeadRow(LogitsHead, "segmentation"),
}


def get_head(card: DnnCard) -> Head:
    """The head that a card names, with its parameters; raises `CardError` naming the nearest valid key."""
    row = HEADS.get(card.head.name)
    if row is None:
        raise CardError(
            f"{card.name}: there is no head '{card.head.name}': {_hint(card.head.name, list(HEADS))}"
        )
    if row.task != card.task:
        fitting = [name for name, other in HEADS.items() if other.task == card.task]
        raise CardError(
            f"{card.name}: the head '{card.head.name}' is for {row.task}, the card's task is {card.task}: "
            f"choose one of {', '.join(fitting)}"
        )
    known = list(signature(row.make).parameters)
    given: dict[str, Any] = {"classes": len(card.classes)}
    if "keypoints" in known and card.keypoints is not None:
        given["keypoints"] = len(card.keypoints.names)
    own = [name for name in known if name not in given]
    for name in card.head.parameters:
        if name not in own:
            raise CardError(f"{card.name}: the head has no parameter '{name}': {_hint(name, own)}")
    return row.make(**given, **card.head.parameters)


def _hint(name: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    return (
        f"did you mean '{near[0]}'?"
        if near
        else f"choose one of {', '.join(valid)}"
        if valid
        else "it has none"
    )
