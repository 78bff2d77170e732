"""The demo's server DNN: a small anchor-free detector in the manner of CenterNet and FCOS. For training only.

```
picture ─ stem /2 ─ /4 ─ /8 ─ /16 ─ /32+pool
                     │    │     │      │
                     └◀───┴◀────┴◀─────┘   feature pyramid, 48 channels
                     │    │     │
                   head  head  head        per cell: class probabilities, distances to the box's four sides
```
Class targets are Gaussian bumps at box centres (CenterNet, arXiv:1904.07850, equation 1); sides are trained
with GIoU near those centres (FCOS, arXiv:1904.01355). Running it needs only the exported ONNX file.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["STRIDES_PX", "Detector", "Targets", "detector_loss", "export_detector", "make_targets"]

STRIDES_PX = (4, 8, 16)
LEVEL_LIMITS_PX = ((0.0, 34.0), (26.0, 96.0), (72.0, 1e9))
"""Which longer sides each level learns; the overlaps spare objects at a limit from having no owner."""

NECK_CHANNELS = 48


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.05),
        nn.SiLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels // 2), _conv(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x))


class _Context(nn.Module):
    """Maxima over growing windows, so that a bus larger than the receptive field is still seen whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = _conv(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = _conv(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = [self.shrink(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        joined: Tensor = self.join(torch.cat(parts, 1))
        return joined


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, channels, 3, groups=channels), _conv(channels, channels, 1))


class Detector(nn.Module):
    """RGB pictures 0..1 `(n, 3, h, w)`, h and w multiples of 32, to raw maps or decoded boxes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.stage4 = nn.Sequential(_conv(3, 16, stride=2), _conv(16, 32, stride=2), _Residual(32))
        self.stage8 = nn.Sequential(_conv(32, 64, stride=2), _Residual(64), _Residual(64))
        self.stage16 = nn.Sequential(_conv(64, 96, stride=2), _Residual(96), _Residual(96))
        self.stage32 = nn.Sequential(_conv(96, 96, stride=2), _Residual(96), _Context(96))
        self.laterals = nn.ModuleList(_conv(channels, NECK_CHANNELS, 1) for channels in (32, 64, 96, 96))
        self.smooth = nn.ModuleList(_separable(NECK_CHANNELS) for _ in STRIDES_PX)
        self.heads = nn.ModuleList(
            nn.Sequential(_separable(NECK_CHANNELS), nn.Conv2d(NECK_CHANNELS, classes + 4, 1))
            for _ in STRIDES_PX
        )
        for head in self.heads:
            last = head[-1]  # type: ignore[index]
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias[:classes], -4.6)
            nn.init.constant_(last.bias[classes:], 0.7)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Per level `(n, classes + 4, h / stride, w / stride)`: class logits, log distances in strides."""
        c4 = self.stage4(pictures)
        c8 = self.stage8(c4)
        c16 = self.stage16(c8)
        c32 = self.stage32(c16)
        below = self.laterals[3](c32)
        levels: list[Tensor] = []
        for index, features in ((2, c16), (1, c8), (0, c4)):
            upper = functional.interpolate(below, scale_factor=2.0, mode="nearest")
            below = self.smooth[index](self.laterals[index](features) + upper)
            levels.insert(0, self.heads[index](below))
        return levels


class _Decoded(nn.Module):
    """The exported network: the YOLO layout `(n, 4 + classes, cells)` with boxes in input pixels."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for stride, level in zip(STRIDES_PX, self.detector(images), strict=True):
            scores = level[:, : self.detector.classes].sigmoid()
            x, y = _cell_centres(level.shape[-2], level.shape[-1], stride)
            left, top, right, bottom = _distances(level[:, self.detector.classes :], stride).unbind(1)
            x_middle, y_middle = x + (right - left) * 0.5, y + (bottom - top) * 0.5
            boxes = torch.stack([x_middle, y_middle, left + right, top + bottom], 1)
            rows.append(torch.cat([boxes, scores], 1).flatten(2))
        return torch.cat(rows, 2)


def _cell_centres(height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    x = (torch.arange(width, dtype=torch.float32) + 0.5) * stride
    y = (torch.arange(height, dtype=torch.float32) + 0.5) * stride
    return x[None, :], y[:, None]


def _distances(logs: Tensor, stride: int) -> Tensor:
    return logs.clamp(-4.0, 5.0).exp() * float(stride)


class Targets:
    """What one level should say for a batch."""

    def __init__(self, count: int, classes: int, height: int, width: int) -> None:
        self.heat = np.zeros((count, classes, height, width), dtype=np.float32)
        self.boxes = np.zeros((count, 4, height, width), dtype=np.float32)
        self.weights = np.zeros((count, height, width), dtype=np.float32)
        self.ignored = np.zeros((count, height, width), dtype=np.bool_)


def make_targets(
    boxes: Sequence[NDArray[np.float32]],
    class_ids: Sequence[NDArray[np.intp]],
    ignored: Sequence[NDArray[np.float32]],
    classes: int,
    size_px: tuple[int, int],
) -> list[Targets]:
    """Targets per level for pictures of `(height, width)`; cells in `ignored` boxes teach nothing."""
    height, width = size_px
    levels = [Targets(len(boxes), classes, height // stride, width // stride) for stride in STRIDES_PX]
    for image, (own, kinds) in enumerate(zip(boxes, class_ids, strict=True)):
        sides = (own[:, 2:] - own[:, :2]).max(axis=1) if len(own) else np.zeros(0)
        # Large first: where objects share a cell, the small one keeps it.
        for which in np.argsort(-sides, kind="stable"):
            for level, stride, (low, high) in zip(levels, STRIDES_PX, LEVEL_LIMITS_PX, strict=True):
                if low <= sides[which] < high:
                    _add_target(level, image, int(kinds[which]), own[which], stride)
        for level, stride in zip(levels, STRIDES_PX, strict=True):
            for x0, y0, x1, y1 in ignored[image] / stride:
                level.ignored[image, int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return levels


def _add_target(level: Targets, image: int, class_id: int, box: NDArray[np.float32], stride: int) -> None:
    height, width = level.weights.shape[1:]
    x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
    sigma_x = max(0.55, 0.13 * (box[2] - box[0]) / stride)
    sigma_y = max(0.55, 0.13 * (box[3] - box[1]) / stride)
    cell_x, cell_y = min(int(x), width - 1), min(int(y), height - 1)
    reach_x, reach_y = int(np.ceil(2.5 * sigma_x)), int(np.ceil(2.5 * sigma_y))
    xs = slice(max(cell_x - reach_x, 0), min(cell_x + reach_x + 1, width))
    ys = slice(max(cell_y - reach_y, 0), min(cell_y + reach_y + 1, height))
    bump_x = np.exp(-(((np.arange(xs.start, xs.stop) - cell_x) / sigma_x) ** 2) / 2)
    bump_y = np.exp(-(((np.arange(ys.start, ys.stop) - cell_y) / sigma_y) ** 2) / 2)
    bump = (bump_y[:, None] * bump_x[None]).astype(np.float32)
    heat = level.heat[image, class_id, ys, xs]
    np.maximum(heat, bump, out=heat)
    near = bump > 0.4
    level.weights[image, ys, xs][near] = bump[near]
    for row in range(4):
        level.boxes[image, row, ys, xs][near] = box[row]


def detector_loss(
    levels: Sequence[Tensor], targets: Sequence[Targets], classes: int
) -> tuple[Tensor, Tensor]:
    """Focal loss of the class maps and GIoU loss of the boxes, each per object."""
    focal = levels[0].new_zeros(())
    sides = levels[0].new_zeros(())
    objects, weight = 0.0, 0.0
    for stride, level, target in zip(STRIDES_PX, levels, targets, strict=True):
        logits = level[:, :classes].float()
        heat = torch.from_numpy(target.heat)
        keep = torch.from_numpy(~target.ignored)[:, None]
        centre = heat == 1
        probability = logits.sigmoid()
        hit = -((1 - probability) ** 2) * functional.logsigmoid(logits)
        miss = -((1 - heat) ** 4) * probability**2 * functional.logsigmoid(-logits) * keep
        focal = focal + torch.where(centre, hit, miss).sum()
        objects += float(centre.sum())
        at = torch.from_numpy(target.weights)
        image, row, col = torch.nonzero(at > 0, as_tuple=True)
        if len(image):
            reach = _distances(level[:, classes:].permute(0, 2, 3, 1)[image, row, col].float(), stride)
            x, y = (col + 0.5) * stride, (row + 0.5) * stride
            guess = torch.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], 1)
            truth = torch.from_numpy(target.boxes).permute(0, 2, 3, 1)[image, row, col]
            share = at[image, row, col]
            sides = sides + (share * (1 - _giou(guess, truth))).sum()
            weight += float(share.sum())
    return focal / max(objects, 1.0), sides / max(weight, 1.0)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv:1902.09630) of paired boxes `(n, 4)`."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return overlap / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def export_detector(detector: Detector, path: Path) -> None:
    """Stores the network and its decoding as ONNX: any `images` of multiples of 32 px to `output0`."""
    part = path.with_name(path.name + ".part")
    with warnings.catch_warnings():
        # The newer exporter writes operators that onnx2torch can't read; this one warns that it is old.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Decoded(detector).eval(),
            (torch.zeros(1, 3, 192, 256),),
            str(part),
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={
                "images": {0: "batch", 2: "height", 3: "width"},
                "output0": {0: "batch", 2: "cells"},
            },
            opset_version=13,
            dynamo=False,
        )
    part.replace(path)
