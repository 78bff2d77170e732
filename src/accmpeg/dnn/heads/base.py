"""What a head is: raw outputs of one picture to `Dense`, for NumPy arrays and PyTorch tensors alike."""

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = [
    "Head",
    "boxes_from_centres",
    "expect",
    "has_batch_axes",
    "namespace",
    "of_picture",
    "sigmoid",
    "softmax",
]


class Head(Protocol):
    """One output layout; made with the card's `head.parameters` as keyword arguments."""

    ranks: ClassVar[tuple[int, ...]]
    """How many axes each output of one picture has: a network's outputs have one more, or no batch axis."""

    def dense(self, outputs: Sequence[Array], geometry: InputGeometry) -> Dense:
        """Reads the outputs of one picture (no batch axis); raises `DnnError` for other shapes."""
        ...


def namespace(array: Array) -> Any:
    """The module, numpy or torch, whose functions work on `array`."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def sigmoid(values: Array) -> Array:
    """1 / (1 + e^−x), without overflow warnings."""
    if isinstance(values, np.ndarray):
        return 1 / (1 + np.exp(-np.clip(values, -80, 80)))
    return values.sigmoid()


def softmax(values: Array) -> Array:
    """Softmax over the last axis."""
    xp = namespace(values)
    powers = xp.exp(values - xp.amax(values, -1)[..., None])
    return powers / powers.sum(-1)[..., None]


def boxes_from_centres(centres: Array, geometry: InputGeometry) -> Array:
    """Columns centre x, centre y, width, height in input pixels `(N, 4)` to frame-pixel corners `(N, 4)`."""
    x, y, half_w, half_h = centres[:, 0], centres[:, 1], centres[:, 2] / 2, centres[:, 3] / 2
    return namespace(centres).stack(
        [
            geometry.x_to_frame(x - half_w),
            geometry.y_to_frame(y - half_h),
            geometry.x_to_frame(x + half_w),
            geometry.y_to_frame(y + half_h),
        ],
        -1,
    )


def has_batch_axes(head: Head, outputs: Sequence[Array]) -> bool:
    """Whether all outputs have a batch axis; networks that suppress duplicates themselves often have none."""
    return not any(output.ndim <= rank for output, rank in zip(outputs, head.ranks, strict=False))


def of_picture(head: Head, outputs: Sequence[Array], index: int) -> list[Array]:
    """The outputs of one picture of a batch, as `Head.dense` reads them; `index` 0 without a batch axis.

    Raises `DnnError` for an answer that does not come so far.
    """
    ranks = [*head.ranks, *(0 for _ in outputs)]
    if any(output.ndim > rank and index >= len(output) for output, rank in zip(outputs, ranks, strict=False)):
        raise DnnError(f"the network gave {len(outputs[0])} answers for {index + 1} pictures or more")
    return [
        output[index] if output.ndim > rank else output for output, rank in zip(outputs, ranks, strict=False)
    ]


def expect(outputs: Sequence[Array], head: str, shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Raises `DnnError` unless the outputs have these shapes (None is any size)."""
    found = [tuple(output.shape) for output in outputs]
    fits = len(found) == len(shapes) and all(
        len(have) == len(want) and all(w in (None, h) for h, w in zip(have, want, strict=True))
        for have, want in zip(found, shapes, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(tuple("any" if w is None else w for w in want)) for want in shapes)
        raise DnnError(
            f"the head '{head}' reads outputs of {wanted} per picture, the network gave "
            f"{', '.join(map(str, found))}: correct head.name, head.outputs or classes in the card"
        )
