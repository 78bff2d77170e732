"""Processes that train one network together, so that they take the steps that one alone would take.

Each works on its share of a batch. What a step sums up over the whole batch is summed over all of them: the
statistics of batch normalisation, the losses' denominators, the gradients. Only the order of those sums
differs from a run alone, so weights differ by rounding.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

__all__ = ["Team"]

T = TypeVar("T")


class Team:
    """This process and its peers: those of PyTorch's process group, if one was set up; else it is alone."""

    def __init__(self) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if grouped else 0
        self.size = dist.get_world_size() if grouped else 1

    @property
    def leads(self) -> bool:
        """Whether this process judges, decides and saves for all."""
        return self.rank == 0

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch."""
        return batch[self.rank :: self.size]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes of a value through which no gradient flows."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.size

    def average_gradients(self, network: nn.Module) -> None:
        """Gradients of the mean of all processes' losses, in one message."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(flat, [each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def agreed(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The leader's values: clocks differ, and machines round differently."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(told, src=0)
        found: list[float] = told.tolist()
        return found

    def normalise_together(self, network: nn.Module) -> None:
        """Batch normalisation over the whole batch; names of weights stay as they are.

        PyTorch's own SyncBatchNorm runs on GPUs only.
        """
        if self.size == 1:
            return
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedBatchNorm


class _SharedBatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        count = x.new_tensor(x.numel() / x.shape[1])
        dist.all_reduce(count)
        mean = _sum(x.sum((0, 2, 3))) / count
        centred = x - mean[None, :, None, None]
        variance = _sum((centred * centred).sum((0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[None, :, None, None] + self.bias[None, :, None, None]


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total
