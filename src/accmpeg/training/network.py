"""The AccModel's architecture: a small fully convolutional network on Y, U and V planes.

```
y  (1, h, w)      8×8/4 conv ┐
uv (2, h/2, w/2)  4×4/2 conv ┴ + ─▶ 1/4 ─▶ 1/8 ──────────────── + ─ block ─ heads: one value per 8×8 px
                                            └─▶ 1/16 ───── + ─ block ─ ×2 ┘
                                                  └─▶ 1/32 ─ gate ─ ×2 ┘
```

Full-size luma and half-size chroma meet at a quarter of the size, so no pixel is ever converted to RGB. A
block is a 5×5 depthwise and two 1×1 convolutions with one rectifier between and one after the residual sum:
the forms that ONNX Runtime fuses into a single pass on a CPU. Most of the depth is at 1/16 and 1/32, where
it is cheap and sees wide; the gate scales channels by the content of the whole picture.
"""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["ACCGRAD", "CELL_PX", "OBJECTS", "AccModelNetwork"]

CELL_PX = 8
"""Side of the square of input luma pixels that one output value stands for."""

ACCGRAD = "accgrad"
OBJECTS = "objects"

_PIXEL_SCALE = 1 / 128
_CHANNELS = (32, 64, 128, 192)
_BLOCKS = (1, 3, 2)


class AccModelNetwork(nn.Module):
    """Maps planes to one `(N, heads, h / 8, w / 8)` tensor; h and w must be multiples of 32.

    Channel `heads.index("accgrad")` is log₂ AccGrad per macroblock, `"objects"` the logit of the server DNN
    reporting an object there. With `context_classes`, `with_context` also gives a logit for each class of a
    segmenting server DNN: a lesson for training only, which no exported network has.
    """

    def __init__(
        self,
        heads: Sequence[str] = (ACCGRAD, OBJECTS),
        channels: tuple[int, int, int, int] = _CHANNELS,
        blocks: tuple[int, int, int] = _BLOCKS,
        context_classes: int = 0,
    ) -> None:
        super().__init__()
        self.heads = tuple(heads)
        quarter, eighth, sixteenth, coarsest = channels
        self.stem_y = nn.Conv2d(1, quarter, 8, 4, 2, bias=False)
        self.stem_uv = nn.Conv2d(2, quarter, 4, 2, 1, bias=False)
        self.stem_norm: nn.Module = nn.BatchNorm2d(quarter)
        self.to_8 = _stage(quarter, eighth, blocks[0])
        self.to_16 = _stage(eighth, sixteenth, blocks[1])
        self.to_32 = _stage(sixteenth, coarsest, blocks[2])
        self.gate = nn.Conv2d(coarsest, coarsest, 1)
        self.up_16 = _conv(coarsest, sixteenth)
        self.merge_16 = _Block(sixteenth)
        self.up_8 = _conv(sixteenth, eighth)
        self.merge_8 = _Block(eighth)
        self.head = nn.Conv2d(eighth, len(self.heads), 1)
        self.context = nn.Conv2d(eighth, context_classes, 1) if context_classes else None

    def forward(self, y: Tensor, uv: Tensor) -> Tensor:
        """`y` `(N, 1, h, w)` and `uv` `(N, 2, h/2, w/2)`, uint8 values of any dtype."""
        return cast(Tensor, self.head(self._features(y, uv)))

    def with_context(self, y: Tensor, uv: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `forward` gives, and `(N, context_classes, h / 8, w / 8)` logits or None."""
        features = self._features(y, uv)
        return self.head(features), None if self.context is None else self.context(features)

    def _features(self, y: Tensor, uv: Tensor) -> Tensor:
        y, uv = y.float() * _PIXEL_SCALE, uv.float() * _PIXEL_SCALE
        quarter = functional.relu(self.stem_norm(self.stem_y(y) + self.stem_uv(uv)))
        eighth = self.to_8(quarter)
        sixteenth = self.to_16(eighth)
        coarsest = self.to_32(sixteenth)
        coarsest = coarsest * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(coarsest, 1)))
        sixteenth = self.merge_16(functional.relu(sixteenth + _double(self.up_16(coarsest))))
        return cast(Tensor, self.merge_8(functional.relu(eighth + _double(self.up_8(sixteenth)))))

    @torch.no_grad()
    def folded(self) -> "AccModelNetwork":
        """A copy for inference whose batch normalisations are folded into the convolutions."""
        network = copy.deepcopy(self).eval()
        network.context = None
        for parent in list(network.modules()):
            if isinstance(parent, _ConvNorm):
                conv, norm = cast(nn.Conv2d, parent.conv), cast(nn.BatchNorm2d, parent.norm)
                parent.conv = fuse_conv_bn_eval(conv, norm)
                parent.norm = nn.Identity()
        # The sum of both stems is normalised as one: scale both, and let the luma stem carry the shift.
        norm = cast(nn.BatchNorm2d, network.stem_norm)
        network.stem_y = fuse_conv_bn_eval(network.stem_y, norm)
        scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
        network.stem_uv.weight.mul_(scale[:, None, None, None])
        network.stem_norm = nn.Identity()
        return network


class _ConvNorm(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv: nn.Module = conv
        self.norm: nn.Module = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = _depthwise(channels)
        self.mix = _conv(channels, channels)
        self.out = _conv(channels, channels)
        # Starts as the identity, which lets a deep small network learn from the first step.
        nn.init.zeros_(cast(nn.BatchNorm2d, self.out.norm).weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.out(functional.relu(self.mix(self.wide(x)))))


def _stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    down = (_depthwise(channels_in, stride=2), _conv(channels_in, channels_out), nn.ReLU())
    return nn.Sequential(*down, *(_Block(channels_out) for _ in range(blocks)))


def _depthwise(channels: int, stride: int = 1) -> nn.Conv2d:
    # No normalisation of its own: the 1×1 convolution behind it is linear too, and has one.
    return nn.Conv2d(channels, channels, 5, stride, 2, groups=channels, bias=False)


def _conv(channels_in: int, channels_out: int) -> _ConvNorm:
    return _ConvNorm(nn.Conv2d(channels_in, channels_out, 1, bias=False))


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
