"""Any Python code: `model = "package.module:callable"`, called once with the card's options as keywords.

The callable returns either

- a `torch.nn.Module` on the CPU, mapping a float32 tensor `(n, 3, height, width)` to a tensor, a sequence of
  tensors, or a mapping of them by name (the order is then `head.outputs`), each with a leading n; or
- an object with `run(batch)`, NumPy arrays in and a list of them out with the same shapes, and, if it has a
  gradient, `differentiable(device)`, returning such a function of tensors; an attribute `max_batch` may
  limit n.

Such a card runs the code that it names: use only cards from people whose code you would run.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.network import Network
from accmpeg.dnn.torch_network import TorchNetwork
from accmpeg.errors import CardError, DnnError, NoGradientError, one_line

__all__ = ["ObjectNetwork", "open_callable"]


def open_callable(card: DnnCard, model: Path, threads: int | None, device: str) -> Network:
    """Imports and calls what the card names.

    Raises `CardError` for a name that can't be found, `DnnError` where calling it fails or returns neither.
    """
    function = _find(card)
    try:
        made = function(**card.options)
    # The code is the user's: anything can come out of it.
    except Exception as error:
        raise DnnError(
            f"{card.name}: {card.model} failed with {type(error).__name__}: {one_line(error)}"
        ) from error
    if isinstance(made, torch.nn.Module):
        return TorchNetwork.of(card, made, device, threads=threads)
    if callable(getattr(made, "run", None)):
        return ObjectNetwork(card, made)
    raise DnnError(
        f"{card.name}: {card.model} returned {type(made).__name__}: it must return a torch.nn.Module, or "
        "an object with run(batch) and, for gradients, differentiable(device)"
    )


class ObjectNetwork:
    """A user's own object with `run` and perhaps `differentiable`."""

    def __init__(self, card: DnnCard, made: Any) -> None:
        self._card = card
        self._made = made
        self.max_batch: int | None = getattr(made, "max_batch", None)

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """The object's outputs; raises `DnnError` where it fails or they are no arrays with a leading n."""
        try:
            outputs = [np.asarray(output) for output in self._made.run(batch)]
        except Exception as error:
            raise DnnError(
                f"{self._card.name} failed on an input of {batch.shape}: {one_line(error)}"
            ) from error
        for output in outputs:
            if output.ndim == 0 or len(output) != len(batch) or output.dtype.kind not in "fiub":
                raise DnnError(
                    f"{self._card.name}: run returned {output.dtype} {output.shape} for {len(batch)} "
                    f"picture(s): every output must be an array of numbers with a leading {len(batch)}"
                )
        return outputs

    def differentiable(self, device: str) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
        """The object's own differentiable function; raises `NoGradientError` if it has none."""
        if not callable(getattr(self._made, "differentiable", None)):
            raise NoGradientError(
                f"{self._card.name} has no differentiable(device), hence no gradient: use the black-box mode"
            )
        try:
            function: Callable[[torch.Tensor], Sequence[torch.Tensor]] = self._made.differentiable(device)
        except Exception as error:
            raise NoGradientError(
                f"{self._card.name}: differentiable failed with {one_line(error)}"
            ) from error
        return function


def _find(card: DnnCard) -> Callable[..., Any]:
    module_name, colon, path = card.model.partition(":")
    if not colon or not module_name or not path:
        raise CardError(f"{card.name}: model = '{card.model}' is no 'package.module:callable'")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CardError(
            f"{card.name}: {card.model} can't be imported, there is no module '{error.name}': install it, "
            "or put its folder on PYTHONPATH"
        ) from error
    # Importing runs the user's code.
    except Exception as error:
        raise CardError(
            f"{card.name}: importing {module_name} failed with {type(error).__name__}: {one_line(error)}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise CardError(f"{card.name}: the module {module_name} has no '{path}'")
        found = getattr(found, part)
    if not callable(found):
        raise CardError(f"{card.name}: {card.model} is {type(found).__name__}, which can't be called")
    return found  # type: ignore[no-any-return]
