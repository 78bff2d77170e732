"""Heads: how a network's raw outputs are read. One file per layout, one row here, named by the card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.heads.base import Head
from accmpeg.dnn.heads.boxes import BoxesHead, FinalHead, FinalKeypointsHead
from accmpeg.dnn.heads.centernet import CenterNetHead
from accmpeg.dnn.heads.detr import DetrHead, RtDetrHead
from accmpeg.dnn.heads.end2end import End2EndHead, End2EndPoseHead, End2EndSegHead
from accmpeg.dnn.heads.logits import BinaryHead, ClassMapHead, LogitsHead
from accmpeg.dnn.heads.nanodet import NanodetHead
from accmpeg.dnn.heads.yolo import YoloHead, YoloPoseHead, YoloSegHead
from accmpeg.dnn.heads.yolo_objectness import YoloObjectnessHead, YoloObjectnessSegHead
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import CardError, did_you_mean
from accmpeg.tasks.base import Array, Dense

__all__ = ["HEADS", "Head", "HeadRow", "get_head"]


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head's class, the task that it answers, and whether its outputs can carry a gradient."""

    make: Callable[..., Head]
    task: str
    has_gradient: bool = True
    units: str | None = "pixels"
    """Of the network's coordinates, where the card does not say; None: the head makes them itself."""


@dataclass(frozen=True, slots=True)
class _OfFractions:
    """A head of a network whose coordinates are fractions of its input."""

    head: Head

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.head.ranks

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        return self.head.dense(outputs, geometry.of_fractions())


HEADS: Mapping[str, HeadRow] = {
    "yolo": HeadRow(YoloHead, "detection"),
    "yolo_pose": HeadRow(YoloPoseHead, "keypoints"),
    "yolo_seg": HeadRow(YoloSegHead, "instances"),
    "yolo_objectness": HeadRow(YoloObjectnessHead, "detection"),
    "yolo_objectness_seg": HeadRow(YoloObjectnessSegHead, "instances"),
    "centernet": HeadRow(CenterNetHead, "detection", units=None),
    "nanodet": HeadRow(NanodetHead, "detection", units=None),
    "detr": HeadRow(DetrHead, "detection", units="fractions"),
    "rtdetr": HeadRow(RtDetrHead, "detection", units="fractions"),
    "end2end": HeadRow(End2EndHead, "detection"),
    "end2end_pose": HeadRow(End2EndPoseHead, "keypoints"),
    "end2end_seg": HeadRow(End2EndSegHead, "instances"),
    "boxes": HeadRow(BoxesHead, "detection"),
    "final": HeadRow(FinalHead, "detection"),
    "final_keypoints": HeadRow(FinalKeypointsHead, "keypoints"),
    "logits": HeadRow(LogitsHead, "segmentation", units=None),
    "binary": HeadRow(BinaryHead, "segmentation", units=None),
    "class_map": HeadRow(ClassMapHead, "segmentation", has_gradient=False, units=None),
}


def get_head(card: DnnCard) -> Head:
    """The head that a card names, with its parameters; raises `CardError` naming the nearest valid key."""
    row = HEADS.get(card.head.name)
    if row is None:
        raise CardError(
            f"{card.name}: there is no head '{card.head.name}': {did_you_mean(card.head.name, HEADS)}"
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
    parameters = dict(card.head.parameters)
    units = parameters.pop("units", row.units) if row.units else None
    if units not in (None, "pixels", "fractions"):
        raise CardError(
            f"{card.name}: head.parameters.units is 'pixels' or 'fractions' of the input, not {units!r}"
        )
    for name, value in parameters.items():
        if name not in own:
            valid = [*own, "units"] if row.units else own
            hint = did_you_mean(name, valid) if valid else "it has none"
            raise CardError(f"{card.name}: the head has no parameter '{name}': {hint}")
        wanted = signature(row.make).parameters[name].default
        if not _is_like(value, wanted):
            raise CardError(
                f"{card.name}: head.parameters.{name} = {value!r}: give something like {wanted!r}"
            )
    head = row.make(**given, **parameters)
    return _OfFractions(head) if units == "fractions" else head


def _is_like(value: object, default: object) -> bool:
    """Whether a parameter has the type of its default; a whole number is a float too."""
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, list if isinstance(default, tuple) else type(default))
