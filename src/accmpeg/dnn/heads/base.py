"""What a head is: raw outputs of one picture to `Dense`, for NumPy arrays and PyTorch tensors alike."""

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from accmpeg.dnn.preprocess import InputGeometry
from accmpeg.errors import CardError, DnnError
from accmpeg.tasks.base import Array, Dense

__all__ = [
    "CENTRES",
    "CORNERS",
    "Head",
    "box_names",
    "check_activation",
    "expect",
    "frame_boxes",
    "frame_points",
    "grid_points",
    "has_batch_axes",
    "namespace",
    "of_picture",
    "prototypes_in",
    "rows_of_candidates",
    "sigmoid",
    "softmax",
]


CORNERS, CENTRES = ("x1", "y1", "x2", "y2"), ("cx", "cy", "w", "h")
"""How columns of boxes are called."""


class Head(Protocol):
    """One output layout; made with the card's `head.parameters` as keyword arguments."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many axes each output of one picture has: a network's have one more, or no batch axis."""
        ...

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


def box_names(columns: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of columns, separated by commas. They must name a box, and `others`, each once."""
    names = tuple(name.strip() for name in columns.split(","))
    if not any(all(names.count(name) == 1 for name in (*box, *others)) for box in (CORNERS, CENTRES)):
        more = "".join(f",{name}" for name in others)
        raise CardError(
            f"head.parameters.columns is '{columns}': it must name each of {','.join(CORNERS)}{more} once, "
            f"in any order, or {','.join(CENTRES)}{more}"
        )
    return names


def frame_boxes(rows: Array, names: Sequence[str], geometry: InputGeometry) -> Array:
    """Corners in frame pixels `(N, 4)` of rows whose columns are called so, in the input's units."""
    column = {name: rows[:, index] for index, name in enumerate(names)}
    if "x1" in column:
        left, top, right, bottom = (column[name] for name in CORNERS)
    else:
        x, y, half_w, half_h = column["cx"], column["cy"], column["w"] / 2, column["h"] / 2
        left, top, right, bottom = x - half_w, y - half_h, x + half_w, y + half_h
    corners = [
        geometry.x_to_frame(left),
        geometry.y_to_frame(top),
        geometry.x_to_frame(right),
        geometry.y_to_frame(bottom),
    ]
    return namespace(rows).stack(corners, -1)


def frame_points(points: Array, geometry: InputGeometry) -> Array:
    """Keypoints `(N, K, 3)` of x, y in the input's units and visibility, in frame pixels; all are visible
    of `(N, K, 2)`."""
    xp = namespace(points)
    x, y = geometry.x_to_frame(points[..., 0]), geometry.y_to_frame(points[..., 1])
    return xp.stack([x, y, points[..., 2] if points.shape[-1] > 2 else xp.ones_like(x)], -1)


def grid_points(rows: Array, strides: Sequence[int], geometry: InputGeometry) -> Array:
    """x, y and stride of every point that has a row, `(N, 3)`, input pixels, beside `rows`.

    Points run by stride, row-major, with ceil(size / stride) of them along each axis, at (column·stride,
    row·stride). Raises `DnnError` where they are not as many as the rows.
    """
    levels = []
    for stride in strides:
        across, down = -(-geometry.width // stride), -(-geometry.height // stride)
        y, x = np.mgrid[:down, :across].astype(np.float32) * np.float32(stride)
        levels.append(np.stack([x.ravel(), y.ravel(), np.full(down * across, stride, np.float32)], -1))
    points = np.concatenate(levels)
    if len(points) != len(rows):
        raise DnnError(
            f"the network gave {len(rows)} points for {geometry.width}x{geometry.height}, strides "
            f"{list(strides)} make {len(points)}: correct head.parameters.strides in the card"
        )
    xp = namespace(rows)
    return points if xp is np else xp.as_tensor(points, device=rows.device)


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


def check_activation(activation: str, known: Sequence[str] = ("none", "sigmoid")) -> None:
    """Raises `CardError` for an activation that the head does not know."""
    if activation not in known:
        choice = " or ".join(f"'{name}'" for name in known)
        raise CardError(f"head.parameters.activation is {choice}, not '{activation}'")


def rows_of_candidates(outputs: Sequence[Array], head: str, quantities: int) -> Array:
    """The one output as a row per candidate, `(N, quantities)`; many write it the other way round."""
    if len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] == quantities:
        return outputs[0]
    expect(outputs, head, [(quantities, "N")])
    return outputs[0].T


def prototypes_in(outputs: Sequence[Array]) -> int:
    """How many mask prototypes the second output has; 1 where there is none, which `expect` then says."""
    return int(outputs[1].shape[0]) if len(outputs) == 2 and outputs[1].ndim else 1


def expect(outputs: Sequence[Array], head: str, shapes: Sequence[tuple[int | str, ...]]) -> None:
    """Raises `DnnError` unless the outputs have these shapes.

    A name is a size, the same wherever it stands. Only `N`, the number of candidates, may be 0.
    """
    found = [tuple(output.shape) for output in outputs]
    sizes: dict[int | str, int] = {want: want for shape in shapes for want in shape if isinstance(want, int)}

    def fits(have: int, want: int | str) -> bool:
        return have == sizes.setdefault(want, have) and (have > 0 or want == "N")

    if [*map(len, found)] != [*map(len, shapes)] or not all(
        fits(h, w) for have, want in zip(found, shapes, strict=True) for h, w in zip(have, want, strict=True)
    ):
        wanted = ", ".join(f"({', '.join(map(str, want))})" for want in shapes)
        names = ", keypoints.names" if head.endswith(("pose", "keypoints")) else ""
        raise DnnError(
            f"the head '{head}' reads outputs of {wanted} per picture, the network gave "
            f"{', '.join(map(str, found)) or 'none'}: correct head.name, head.outputs{names} or classes "
            "in the card"
        )
