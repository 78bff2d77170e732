"""Semantic segmentation outputs `(C, h, w)`: one logit per class and pixel, at any resolution."""

from collections.abc import Sequence
from dataclasses import dataclass

from accmpeg.dnn.heads.base import expect
from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.tasks.base import Array, Dense

__all__ = ["LogitsHead"]


@dataclass(frozen=True, slots=True)
class LogitsHead:
    """Per-pixel class logits, cropped to the part that shows the frame."""

    classes: int

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        expect(outputs, "logits", [(self.classes, None, None)])
        return Dense(
            logits=geometry.crop(outputs[0]), frame_size_px=(geometry.frame_width, geometry.frame_height)
        )
