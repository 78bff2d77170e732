"""What an adapter makes of a card."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Network"]


class Network(Protocol):
    """What an adapter makes of a card: a network without any knowledge of tasks."""

    @property
    def max_batch(self) -> int | None:
        """How many pictures `run` takes at once; None is any number."""
        ...

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Raw outputs for `(n, 3, height, width)`, in the head's order, each with a leading n.

        A network may leave the batch axis of outputs out: then it is given one picture at a time. Raises
        `DnnError` where it fails.
        """
        ...

    def differentiable(self, device: str) -> "Callable[[torch.Tensor], Sequence[torch.Tensor]]":
        """The same as a function of a tensor, with a gradient with respect to it and none to the weights.

        Raises `NoGradientError` where there is none.
        """
        ...
