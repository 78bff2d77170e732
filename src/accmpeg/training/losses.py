"""What an AccModel is trained on: which macroblocks hold the AccGrad, how much, and where objects are.

With g the true and s the predicted log₂ AccGrad of a frame's macroblocks:

- **share**: cross-entropy between 2^(τg) / Σ 2^(τg) and 2^(τs) / Σ 2^(τs) (a listwise ranking loss: ListNet,
  Cao et al. 2007). At τ = 1 its optimum is s = log₂ of the expected AccGrad, the order that captures the most
  AccGrad in any share; a lower τ weighs the many weaker macroblocks more, which steadies learning. Frames in
  which a DNN that reports objects reports none are left out: their AccGrad is that of rejected candidates.
- **level**: Huber distance of s to l = log₂(a + 0.05·median(a)), the quantity that the graded policy uses. It
  ties the scale and the offset of s, to which the share loss is blind.
- **objects**: cross-entropy with positives weighted up, those of small objects most: a missed object costs
  far more accuracy than a needless one costs bytes.
- **context** (server DNNs that segment): cross-entropy with the classes that the server DNN sees in each
  macroblock, each class of a view weighted by one over the root of its share. Where AccGrad lies depends on
  what the server DNN sees, and AccGrad alone is too sparse to teach that.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from accmpeg.training.network import ACCGRAD, OBJECTS
from accmpeg.training.samples import Batch
from accmpeg.training.settings import LossWeights

__all__ = ["accmodel_loss", "read_points"]

Mean = Callable[[Tensor], Tensor]

_SOME = 1e-6
"""Below any denominator that is not 0; of a numerator that is 0 too it makes 0."""


def read_points(scores: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of `(N, C, h, w)` maps at `(N, P, 2)` points in −1..1; returns `(N, C, P)`."""
    sampled = functional.grid_sample(
        scores, points[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[..., 0]


def accmodel_loss(
    scores: Tensor,
    batch: Batch,
    heads: tuple[str, ...],
    weights: LossWeights,
    context: Tensor | None = None,
    mean: Mean = lambda value: value,
) -> Tensor:
    """Scalar loss of a batch; `scores` and `context` are the network's outputs.

    Of several processes with a part of a batch each, `mean` gives the mean over all of them; then the mean of
    their losses is the loss of the whole batch.
    """
    values = read_points(scores, batch.points)
    predicted = values[:, heads.index(ACCGRAD)]
    loss = weights.share * _share_loss(predicted, batch, weights.share_temper, mean)
    loss = loss + weights.level * _level_loss(predicted, batch.accgrad_log2, batch.valid, mean)
    if OBJECTS in heads:
        loss = loss + weights.objects * _objects_loss(values[:, heads.index(OBJECTS)], batch, weights, mean)
    if context is not None:
        seen = read_points(context, batch.points)
        loss = loss + weights.context * _context_loss(seen, batch.classes, mean)
    return loss


def _share_loss(predicted: Tensor, batch: Batch, temper: float, mean: Mean) -> Tensor:
    hidden = batch.valid == 0
    scale = temper * math.log(2)
    log_predicted = functional.log_softmax((predicted * scale).masked_fill(hidden, -1e4), dim=1)
    log_target = functional.log_softmax((batch.accgrad_log2 * scale).masked_fill(hidden, -1e4), dim=1)
    divergence = (log_target.exp() * (log_target - log_predicted)).masked_fill(hidden, 0).sum(1)
    return (divergence * batch.ranked).sum() / mean(batch.ranked.sum()).clamp(min=_SOME)


def _level_loss(predicted: Tensor, target: Tensor, valid: Tensor, mean: Mean) -> Tensor:
    median = target.masked_fill(valid == 0, float("nan")).nanmedian(dim=1, keepdim=True).values
    floored = torch.logaddexp2(target, median + math.log2(0.05))
    distance = functional.smooth_l1_loss(predicted, floored, reduction="none")
    return _mean_of((distance * valid).sum(1) / valid.sum(1).clamp(min=1), mean)


def _objects_loss(logit: Tensor, batch: Batch, weights: LossWeights, mean: Mean) -> Tensor:
    covered = (batch.objects * batch.valid).sum(1, keepdim=True) / batch.valid.sum(1, keepdim=True).clamp(
        min=1
    )
    # The extra weight falls from full, for a few macroblocks in the frame, to none for a quarter of it.
    small = weights.small_object_weight * (1 - 4 * covered).clamp(min=0)
    weight = 1 + batch.objects * (weights.object_weight - 1 + small)
    loss = functional.binary_cross_entropy_with_logits(logit, batch.objects, reduction="none")
    weight = weight * batch.valid
    return (loss * weight).sum() / mean(weight.sum()).clamp(min=_SOME)


def _context_loss(logits: Tensor, shares: Tensor, mean: Mean) -> Tensor:
    """`logits` (N, C, P), `shares` (N, P, C); padding has a share of nothing."""
    in_view = shares.sum(1, keepdim=True) / shares.sum((1, 2), keepdim=True).clamp(min=1e-6)
    weighted = shares / in_view.clamp(min=1e-4).sqrt()
    likelihood = (weighted * functional.log_softmax(logits.transpose(1, 2), dim=2)).sum((1, 2))
    return -_mean_of(likelihood / weighted.sum((1, 2)).clamp(min=1e-6), mean)


def _mean_of(losses: Tensor, mean: Mean) -> Tensor:
    return losses.sum() / mean(losses.new_tensor(len(losses)))
