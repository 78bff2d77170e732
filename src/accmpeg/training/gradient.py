"""The accuracy gradient of each macroblock, by one forward and one backward pass through the server DNN.

```
high H ─▶ D ─▶ reference ──────────────┐
low  L ─▶ RGB x ─▶ D ─▶ dense outputs ─▶ agreement Acc ─▶ ∂Acc/∂x ─┐
H − L ─────────────────────────────────────────────────────────────┴▶ ‖·‖₁·‖·‖₁, summed per macroblock
```

Following the AccMPEG paper (Du et al., MLSys 2022, section 4), the accuracy gradient of macroblock B is

    AccGrad(B) = Σ_{i in B} ‖∂Acc(D(x); D(H))/∂x_i at x = L‖₁ · ‖H_i − L_i‖₁

with i a pixel and both norms over its three colour channels: a first-order bound on how much accuracy moves
when B's quality changes. Worked example: if Acc is linear with weight (1, −2, 0) at some pixel and H − L is
(3, 3, 3) there, the pixel adds (1 + 2 + 0)·9 = 27.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from av import VideoFrame
from numpy.typing import NDArray

from accmpeg.dnn.base import DifferentiableDnn
from accmpeg.errors import AccmpegError, DnnError, LabelError, NoGradientError
from accmpeg.media.grid import MacroblockGrid
from accmpeg.tasks import Task

__all__ = ["At", "accuracy_gradient", "frame_tensor", "macroblock_gradient"]

At = Literal["low", "high"]


def frame_tensor(frame: VideoFrame, device: str = "cpu") -> torch.Tensor:
    """A frame as float32 RGB `(3, height_px, width_px)`, 0 to 255."""
    rgb = torch.from_numpy(frame.to_ndarray(format="rgb24"))
    return rgb.to(device).permute(2, 0, 1).to(torch.float32).contiguous()


def macroblock_gradient(
    agreement: Callable[[torch.Tensor], torch.Tensor],
    high: torch.Tensor,
    low: torch.Tensor,
    *,
    at: At = "low",
) -> NDArray[np.float32]:
    """AccGrad of any differentiable `agreement` of an RGB picture, `(rows, cols)`.

    `high` and `low` are `(3, height_px, width_px)`, 0 to 255; `agreement` maps such a picture to a scalar.
    Raises `NoGradientError` where the agreement does not depend on the picture, `LabelError` where the
    gradient is not finite.
    """
    picture = (low if at == "low" else high).detach().clone().requires_grad_(True)
    accuracy = agreement(picture)
    if not accuracy.requires_grad:
        raise NoGradientError("the agreement does not depend on the frame: this server DNN has no gradient")
    (gradient,) = torch.autograd.grad(accuracy, picture)
    with torch.no_grad():
        per_pixel = gradient.abs().sum(0) * (high - low).abs().sum(0)
    if not bool(torch.isfinite(per_pixel).all()):
        raise LabelError("the server DNN's gradient is not finite (NaN or infinite) on this frame")
    height_px, width_px = per_pixel.shape
    return MacroblockGrid(width_px, height_px).sum_pixels(per_pixel.cpu().numpy())


def accuracy_gradient(
    dnn: DifferentiableDnn,
    task: Task,
    reference: Any,
    high: VideoFrame,
    low: VideoFrame,
    *,
    at: At = "low",
) -> NDArray[np.float32]:
    """AccGrad of each macroblock of a frame, `(rows, cols)` float32, never negative.

    `reference` is the server DNN's result on `high`; `high` and `low` are two qualities of one frame, of the
    same size. `at` says where the derivative is taken. Raises `LabelError` for sizes that differ or a
    gradient that is not finite, `NoGradientError` where there is none, `DnnError` where PyTorch fails.
    """
    if (high.width, high.height) != (low.width, low.height):
        raise LabelError(
            f"the high quality frame is {high.width}x{high.height}, the low one {low.width}x{low.height}"
        )
    try:
        return macroblock_gradient(
            lambda picture: task.agreement(dnn(picture), reference),
            frame_tensor(high, dnn.device),
            frame_tensor(low, dnn.device),
            at=at,
        )
    except AccmpegError:
        raise
    # PyTorch reports shapes that don't fit, missing kernels and exhausted memory all as this.
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DnnError(
            f"{dnn.card.name} failed in PyTorch on a frame of {high.width}x{high.height}: {reason}"
        ) from error
