"""Semantic segmentation outputs at any resolution: logits, one channel for two classes, or finished classes.

`logits` reads `(C, h, w)` or `(h, w, C)`, one logit per class and pixel (with `activation = "none"` the
probability). `binary` reads one channel, `(1, h, w)`, `(h, w, 1)` or `(h, w)`: the probability (with
`activation = "sigmoid"` the logit) of the second of the card's two classes.
`class_map` reads the number of each pixel's class, as after argmax: it has no gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accmpeg.dnn.heads.base import check_activation, expect, namespace
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import CardError, DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = ["BinaryHead", "ClassMapHead", "LogitsHead"]

SURE = 1e-6
"""Probabilities are kept this far from 0 and 1: their logits are then finite."""


@dataclass(frozen=True, slots=True)
class LogitsHead:
    """Per-pixel class logits, cropped to the part that shows the frame; `activation` "none" is for
    probabilities."""

    classes: int
    activation: str = "softmax"
    ranks: ClassVar[tuple[int, ...]] = (3,)

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise CardError(
                "head.name = 'logits' with one class makes every pixel that class: for a network with one "
                "channel say head.name = 'binary' and two classes, such as background and the one"
            )
        check_activation(self.activation, ("softmax", "none"))

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        if len(outputs) == 1 and outputs[0].ndim == 3 and outputs[0].shape[0] == 1:
            raise DnnError(
                f"the head 'logits' reads {self.classes} channels, the network gave one: say head.name = "
                "'binary' for a probability or logit (and two classes), 'class_map' for finished classes"
            )
        if len(outputs) == 1 and outputs[0].shape[-1:] == (self.classes,) != outputs[0].shape[:1]:
            outputs = [namespace(outputs[0]).moveaxis(outputs[0], -1, 0)]  # channels last
        expect(outputs, "logits", [(self.classes, "h", "w")])
        logits = geometry.crop(outputs[0])
        if self.activation == "none":
            xp = namespace(logits)
            logits = xp.log(xp.clip(logits, SURE, 1))
        return Dense(logits=logits, frame_size_px=(geometry.frame_width, geometry.frame_height))


@dataclass(frozen=True, slots=True)
class BinaryHead:
    """One channel for two classes; a pixel is the second from `threshold` (a probability) on."""

    classes: int
    activation: str = "none"
    threshold: float = 0.5
    ranks: ClassVar[tuple[int, ...]] = (3,)

    def __post_init__(self) -> None:
        if self.classes != 2:
            raise CardError(
                "head.name = 'binary' tells two classes apart: name both, such as background and the other, "
                f"not {self.classes}"
            )
        check_activation(self.activation)
        if not 0 < self.threshold < 1:
            raise CardError(f"head.parameters.threshold is between 0 and 1, not {self.threshold}")

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        outputs = [_plane(output) for output in outputs]
        expect(outputs, "binary", [("h", "w")])
        logit = geometry.crop(outputs[0])
        xp = namespace(logit)
        if self.activation == "none":
            if xp is np and (logit.min() < -1e-3 or logit.max() > 1 + 1e-3):
                raise DnnError(
                    f"the network gave values from {float(logit.min()):.3g} to {float(logit.max()):.3g}, "
                    "which are no probabilities: for logits say head.parameters.activation = 'sigmoid' in "
                    "the card, and export masks of 0 to 255 divided by 255"
                )
            logit = xp.clip(logit, SURE, 1 - SURE)
            logit = xp.log(logit) - xp.log(1 - logit)
        logit = logit - math.log(self.threshold / (1 - self.threshold))
        return Dense(
            logits=xp.stack([xp.zeros_like(logit), logit]),
            frame_size_px=(geometry.frame_width, geometry.frame_height),
        )


@dataclass(frozen=True, slots=True)
class ClassMapHead:
    """The class of each pixel, `(h, w)`, `(1, h, w)` or `(h, w, 1)`, of any number type."""

    classes: int
    ranks: ClassVar[tuple[int, ...]] = (2,)

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        outputs = [_plane(output) for output in outputs]
        expect(outputs, "class_map", [("h", "w")])
        found = np.asarray(geometry.crop(outputs[0]))
        numbers = found.astype(np.int64)
        lowest, highest = int(numbers.min()), int(numbers.max())
        if lowest < 0 or highest >= self.classes or (numbers != found).any():
            raise DnnError(
                f"the head 'class_map' reads whole numbers from 0 to {self.classes - 1}, the network gave "
                f"values from {float(found.min()):.3g} to {float(found.max()):.3g}: correct head.name or "
                "classes in the card"
            )
        return Dense(class_map=numbers, frame_size_px=(geometry.frame_width, geometry.frame_height))


def _plane(output: Array) -> Array:
    """An output without the axis of its only channel, which is the first or the last."""
    if output.ndim == 3 and output.shape[0] == 1:
        return output[0]
    return output[..., 0] if output.ndim == 3 and output.shape[2] == 1 else output
