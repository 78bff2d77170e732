"""How well any map can rank macroblocks: the top share of maps that know more than a camera can.

An AccModel is judged by its top-20 % share: the AccGrad in the fifth of the macroblocks that it ranks
highest, relative to the true top fifth. This prints that share for maps made with the server DNN itself: a
fair idea of what is left to gain. Means over frames, with 95 % intervals from resampling whole clips.

    python benchmarks/accgrad_ceiling.py DATA/videos --dnn espnetv2_s2_cityscapes.card.toml --qp-high 8

- the same frame, its H taken for the source: what a change that no eye sees does to AccGrad
- the next frame
- the gradient alone, ‖H − L‖₁ alone: the factors of AccGrad, per macroblock
- the outputs: AccGrad's gradient stopped at the DNN's logits (segmentation), smoothed by a Gaussian of 1.5
  macroblocks, times ‖H − L‖₁: to know exactly where the DNN errs and is unsure, but not what leads it there
- random
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from av import VideoFrame
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from accmpeg.dnn.base import DifferentiableDnn, ServerDnn, load_dnn
from accmpeg.media.decoder import encode_still
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.source import find_footage, open_source
from accmpeg.tasks import Dense
from accmpeg.training.gradient import accuracy_gradient, frame_tensor
from accmpeg.training.labeller import log2_accgrad
from accmpeg.training.quality import top_share

QP_LOW = 40
RESAMPLES = 2000

FloatMap = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", help="a clip or a folder of clips")
    parser.add_argument("--dnn", type=Path, required=True, help="card of the server DNN")
    parser.add_argument("--frames", type=int, default=2, help="frames per clip")
    parser.add_argument("--qp-high", type=int, default=20)
    arguments = parser.parse_args()
    dnn = load_dnn(arguments.dnn)
    differentiable = dnn.differentiable()
    rows: list[tuple[str, dict[str, float]]] = []
    for item in find_footage([arguments.videos]):
        for frame, following in neighbours(item.path, arguments.frames):
            shares = measure(dnn, differentiable, frame, following, arguments.qp_high)
            if shares is not None:
                rows.append((item.clip, shares))
    if not rows:
        raise SystemExit(f"{dnn.card.name} reports nothing on {arguments.videos}: nothing to rank")
    clips = sorted({clip for clip, _ in rows})
    member = np.asarray([[clip == own for clip, _ in rows] for own in clips], np.float64)
    drawn = np.random.default_rng(0).multinomial(len(clips), np.full(len(clips), 1 / len(clips)), RESAMPLES)
    weights = drawn @ member
    print(
        f"{dnn.card.name}: top-20 % share on {len(rows)} frames of {len(clips)} clips, mean [95 % interval]"
    )
    for name in rows[0][1]:
        values = np.asarray([row[name] for _, row in rows])
        low, high = np.quantile(weights @ values / weights.sum(axis=1), [0.025, 0.975])
        print(f"  {name:<32} {values.mean():.3f} [{low:.3f}, {high:.3f}]")


def neighbours(clip: Path, frames: int) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    """Evenly spaced pairs of consecutive frames."""
    with open_source(clip) as source:
        count = source.info.frame_count or 100
        wanted = {int((i + 0.5) * count / frames) for i in range(frames)}
        for index, pair in enumerate(pairwise(source)):
            if index in wanted:
                yield pair


def measure(
    dnn: ServerDnn, differentiable: DifferentiableDnn, frame: VideoFrame, following: VideoFrame, qp_high: int
) -> dict[str, float] | None:
    """The share of each map on one frame; None where the DNN reports no object, so that there is none."""

    def qualities(source: VideoFrame) -> tuple[VideoFrame, VideoFrame]:
        (high, _), (low, _) = encode_still(source, qp_high), encode_still(source, QP_LOW)
        return high, low

    def accgrad(high: VideoFrame, low: VideoFrame) -> FloatMap:
        return accuracy_gradient(differentiable, dnn.task, dnn.infer(high), high, low)

    high, low = qualities(frame)
    reference = dnn.infer(high)
    boxes = dnn.task.object_boxes(reference)
    if boxes is not None and len(boxes) == 0:
        return None
    grid = MacroblockGrid(frame.width, frame.height)
    picture = frame_tensor(low).requires_grad_(True)
    dense = differentiable(picture)
    (gradient,) = torch.autograd.grad(dnn.task.agreement(dense, reference), picture)
    difference = (frame_tensor(high) - frame_tensor(low)).abs().sum(0).numpy()
    magnitude = grid.sum_pixels(difference)
    slope = gradient.abs().sum(0).numpy()
    true = log2_accgrad(grid.sum_pixels(slope * difference))
    maps = {
        "the same frame, imperceptibly off": accgrad(*qualities(high)),
        "the next frame": accgrad(*qualities(following)),
        "the gradient alone": grid.sum_pixels(slope),
        "‖H − L‖₁ alone": magnitude,
    }
    if dense.logits is not None:
        logits = dense.logits.detach().requires_grad_(True)
        (at_logits,) = torch.autograd.grad(dnn.task.agreement(Dense(logits=logits), reference), logits)
        unsure = torch.nn.functional.interpolate(
            at_logits.abs().sum(0)[None, None], (frame.height, frame.width), mode="bilinear"
        )
        maps["the outputs, smoothed, ×‖H − L‖₁"] = (
            gaussian_filter(grid.sum_pixels(unsure[0, 0].numpy()), 1.5) * magnitude
        )
    maps["random"] = np.random.default_rng(0).random(true.shape, np.float32)
    return {name: top_share(ranking, true) for name, ranking in maps.items()}


if __name__ == "__main__":
    main()
