"""From labels to training batches: random views of equal size, with each macroblock as a point in the view.

Frames differ in size, so their macroblock grids do too. Rather than resample the labels, a view keeps the
centre of every macroblock as a point with its true value; the loss reads the network's output at these points
exactly as the camera does later (`MacroblockGrid.resample`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from accmpeg.media.grid import MACROBLOCK_PX, MacroblockGrid
from accmpeg.training.labels import Label, LabelItem

__all__ = ["Batch", "LabelStore", "View", "class_shares", "collate", "random_view", "split_by_clip"]

_CACHE_BYTES = 2 << 30
_SCALE_RANGE = (0.7, 1.35)


@dataclass(frozen=True, slots=True)
class View:
    """A crop of a frame and the macroblocks whose centres it shows.

    `y` (1, h, w) and `uv` (2, h/2, w/2) float 0..255; `points` (P, 2) as (x, y) in −1..1 over the crop;
    `accgrad_log2` (P,); `objects` (P,) or empty; `classes` (P, C), see `class_shares`. `ranked` (1,) is 0
    where the server DNN reports objects in other frames but none in this one: what AccGrad there is comes
    from candidates that it rejects.
    """

    y: Tensor
    uv: Tensor
    points: Tensor
    accgrad_log2: Tensor
    objects: Tensor
    classes: Tensor
    ranked: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Views stacked; what belongs to points is padded to one length, `valid` marks the real ones."""

    y: Tensor
    uv: Tensor
    points: Tensor
    accgrad_log2: Tensor
    objects: Tensor
    classes: Tensor
    ranked: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, name).to(device) for name in Batch.__slots__))


class LabelStore:
    """Labels by number, kept in memory up to 2 GiB and read again from disk beyond that."""

    def __init__(self, items: Sequence[LabelItem]) -> None:
        self.items = items
        self._kept: dict[int, Label] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Label:
        label = self._kept.get(index)
        if label is None:
            label = self.items[index].load()
            size_bytes = label.planes.y.nbytes + label.planes.uv.nbytes + label.accgrad_log2.nbytes
            if self._bytes + size_bytes <= _CACHE_BYTES:
                self._kept[index] = label
                self._bytes += size_bytes
        return label

    def __iter__(self) -> Iterator[Label]:
        return (self[index] for index in range(len(self)))


def split_by_clip(items: Sequence[LabelItem], fraction: float) -> tuple[list[LabelItem], list[LabelItem]]:
    """(training, held out): whole clips are held out, chosen by a hash of their name, so re-runs agree.

    A single clip is cut in time: its last frames are held out.
    """
    clips = sorted({item.clip for item in items}, key=lambda clip: hashlib.sha256(clip.encode()).digest())
    if len(clips) == 1:
        cut = max(1, round(len(items) * (1 - fraction)))
        ordered = sorted(items, key=lambda item: item.frame_index)
        return ordered[:cut], ordered[cut:]
    held_out = set(clips[: max(1, round(len(clips) * fraction))])
    return [i for i in items if i.clip not in held_out], [i for i in items if i.clip in held_out]


def class_shares(label: Label, classes: int) -> NDArray[np.float32]:
    """The share of each class of the server DNN's class map in each macroblock, `(rows, cols, classes)`.

    From 4×4 samples per macroblock. `classes` 0, or a server DNN without a class map: no classes.
    """
    grid = MacroblockGrid(label.width_px, label.height_px)
    class_map = label.result.get("classes")
    if not classes or class_map is None:
        return np.zeros((*grid.shape, 0), np.float32)
    rows, cols = (
        np.minimum(((np.arange(4 * count) + 0.5) * 4 / size * length).astype(np.intp), length - 1)
        for count, size, length in zip(
            grid.shape, (label.height_px, label.width_px), class_map.shape, strict=True
        )
    )
    sampled = class_map[rows[:, None], cols]
    macroblock = (np.arange(4 * grid.rows)[:, None] // 4) * grid.cols + np.arange(4 * grid.cols) // 4
    # Pixels that belong to no class (the largest value) have a share in none.
    known = sampled < classes
    cells = macroblock[known] * classes + sampled[known]
    counts = np.bincount(cells, minlength=grid.rows * grid.cols * classes)
    return (counts / 16).astype(np.float32).reshape(*grid.shape, classes)


def random_view(
    label: Label, rng: np.random.Generator, height_px: int, width_px: int, classes: int = 0
) -> View:
    """A view of random position, scale, side and light; smaller frames are continued by their edge."""
    scale = float(np.exp(rng.uniform(*np.log(_SCALE_RANGE))))
    plane_height, plane_width = label.planes.y.shape
    # Even sizes and offsets, so that luma and chroma are cut at the same place.
    window_height, window_width = (max(8, round(size / scale / 2) * 2) for size in (height_px, width_px))
    top = _offset(plane_height, window_height, rng)
    left = _offset(plane_width, window_width, rng)
    y = _cut(label.planes.y[None], top, left, window_height, window_width)
    uv = _cut(label.planes.uv, top // 2, left // 2, window_height // 2, window_width // 2)
    y = functional.interpolate(y[None], (height_px, width_px), mode="bilinear", antialias=False)[0]
    uv = functional.interpolate(uv[None], (height_px // 2, width_px // 2), mode="bilinear", antialias=False)[
        0
    ]

    points = _macroblock_centres(label)
    points[:, 0] = (points[:, 0] * plane_width - left) / window_width * 2 - 1
    points[:, 1] = (points[:, 1] * plane_height - top) / window_height * 2 - 1
    inside = np.all(np.abs(points) < 1, axis=1)
    points = points[inside]
    if rng.random() < 0.5:
        y, uv = y.flip(2), uv.flip(2)
        points[:, 0] = -points[:, 0]
    y, uv = _relight(y, uv, rng)
    objects = np.zeros(0, np.float32) if label.objects is None else label.objects.reshape(-1)[inside]
    return View(
        y,
        uv,
        torch.from_numpy(points),
        torch.from_numpy(label.accgrad_log2.reshape(-1)[inside].astype(np.float32)),
        torch.from_numpy(objects.astype(np.float32)),
        torch.from_numpy(class_shares(label, classes).reshape(len(inside), -1)[inside]),
        torch.tensor([float(label.objects is None or label.objects.any())]),
    )


def collate(views: Sequence[View]) -> Batch:
    """Stacks views of equal size."""
    longest = max(view.accgrad_log2.numel() for view in views)

    def padded(values: Sequence[Tensor]) -> Tensor:
        out = torch.zeros(len(values), longest, *values[0].shape[1:])
        for row, value in zip(out, values, strict=True):
            row[: len(value)] = value
        return out

    return Batch(
        torch.stack([view.y for view in views]).contiguous(memory_format=torch.channels_last),
        torch.stack([view.uv for view in views]).contiguous(memory_format=torch.channels_last),
        padded([view.points for view in views]),
        padded([view.accgrad_log2 for view in views]),
        padded([view.objects for view in views]),
        padded([view.classes for view in views]),
        torch.cat([view.ranked for view in views]),
        padded([torch.ones_like(view.accgrad_log2) for view in views]),
    )


def _macroblock_centres(label: Label) -> NDArray[np.float32]:
    """(P, 2) of (x, y), as fractions of the frame."""
    grid = MacroblockGrid(label.width_px, label.height_px)
    x = np.minimum((np.arange(grid.cols) + 0.5) * MACROBLOCK_PX / label.width_px, 1.0)
    y = np.minimum((np.arange(grid.rows) + 0.5) * MACROBLOCK_PX / label.height_px, 1.0)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def _offset(size: int, window: int, rng: np.random.Generator) -> int:
    low, high = sorted((0, size - window))
    return int(rng.integers(low // 2, high // 2 + 1)) * 2


def _cut(planes: NDArray[np.uint8], top: int, left: int, height: int, width: int) -> Tensor:
    rows = np.clip(np.arange(top, top + height), 0, planes.shape[1] - 1)
    cols = np.clip(np.arange(left, left + width), 0, planes.shape[2] - 1)
    return torch.from_numpy(planes[:, rows[:, None], cols]).float()


def _relight(y: Tensor, uv: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    contrast, brightness = rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4)
    tint = torch.from_numpy(rng.uniform(-6, 6, (2, 1, 1)).astype(np.float32))
    y = (y - 128) * contrast + 128 + brightness
    uv = (uv - 128) * saturation + 128 + tint
    return y.clamp(0, 255), uv.clamp(0, 255)
