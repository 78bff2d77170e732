"""A PyTorch module as a server DNN's network: what the PyTorch adapters share."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.device import cuda_index
from accmpeg.dnn.picture_input import wanted_outputs
from accmpeg.errors import DnnError, NoGradientError, one_line

__all__ = ["Module", "TorchNetwork", "torch_device"]

Module = Callable[[torch.Tensor], Any]
USUAL_THREADS = torch.get_num_threads()


class TorchNetwork:
    """A module that maps `(n, 3, h, w)` to a tensor, a sequence of tensors, or a mapping of them by name.

    Every tensor has a leading n. `place` puts the module on a device, in evaluation mode and with frozen
    weights, and is called once per device. `threads` sets PyTorch's CPU threads, which are one number for the
    whole process; None sets what they were at first. With `outputs`, or the card's `head.outputs`, a mapping
    is read in that order.
    """

    def __init__(
        self,
        card: DnnCard,
        place: Callable[[torch.device], Module],
        *,
        device: str = "cpu",
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
        max_batch: int | None = None,
    ) -> None:
        torch.set_num_threads(threads or USUAL_THREADS)
        self.max_batch = max_batch
        self._card = card
        self._place = place
        self._usual = outputs
        self._modules: dict[torch.device, Module] = {}
        self._device = torch_device(device)
        self._module(self._device)

    @classmethod
    def of(cls, card: DnnCard, module: torch.nn.Module, device: str, **settings: Any) -> "TorchNetwork":
        """For a module on the CPU that may be changed to evaluation mode and frozen here."""
        module.eval().requires_grad_(False)

        def place(target: torch.device) -> Module:
            return module if target.type == "cpu" else copy.deepcopy(module).to(target)

        return cls(card, place, device=device, **settings)

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Raw outputs for `(n, 3, height, width)`; raises `DnnError`."""
        module = self._module(self._device)
        # Not inference_mode: tensors that a network keeps for later calls could then carry no gradient.
        with torch.no_grad():
            outputs = self._call(module, torch.from_numpy(batch).to(self._device), DnnError)
        return [
            np.asarray((output.float() if output.is_floating_point() else output).cpu().numpy())
            for output in outputs
        ]

    def differentiable(self, device: str) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
        """The module, differentiable in its input; calling it raises `NoGradientError` where it is not."""
        module = self._module(torch_device(device))

        def run(batch: torch.Tensor) -> Sequence[torch.Tensor]:
            outputs = self._call(module, batch, NoGradientError)
            wanted = batch.requires_grad and torch.is_grad_enabled()
            if wanted and not any(output.requires_grad for output in outputs):
                raise NoGradientError(
                    f"the outputs of {self._card.name} do not depend differentiably on its input: it "
                    "detaches or rounds them; use the black-box mode"
                )
            return outputs

        return run

    def _module(self, device: torch.device) -> Module:
        if device not in self._modules:
            self._modules[device] = self._place(device)
        return self._modules[device]

    def _call(
        self, module: Module, batch: torch.Tensor, error_class: type[DnnError]
    ) -> Sequence[torch.Tensor]:
        try:
            raw = module(batch)
        except DnnError:
            raise
        # A network can fail with any exception at all.
        except Exception as error:
            raise error_class(
                f"{self._card.name} failed on an input of {tuple(batch.shape)}: {one_line(error)}"
            ) from error
        outputs = self._in_order(raw)
        for output in outputs:
            if not isinstance(output, torch.Tensor) or output.ndim == 0 or len(output) != len(batch):
                shown = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
                raise DnnError(
                    f"{self._card.name} returned {shown} for {len(batch)} picture(s): every output must be a "
                    f"tensor with a leading {len(batch)}"
                )
        return outputs

    def _in_order(self, raw: Any) -> list[Any]:
        if isinstance(raw, torch.Tensor):
            return [raw]
        if isinstance(raw, Mapping):
            wanted = wanted_outputs(self._card, self._card.name, raw, self._usual)
            return [raw[name] for name in wanted]
        if isinstance(raw, Sequence):
            return list(raw)
        raise DnnError(
            f"{self._card.name} returned {type(raw).__name__}: it must return a tensor, a sequence of "
            "tensors, or a mapping of them"
        )


def torch_device(name: str) -> torch.device:
    """A PyTorch device that is really there; raises `DnnError`."""
    gpu = cuda_index(name)
    if gpu is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DnnError(
            f"this PyTorch sees no CUDA device: install a CUDA build, or use 'cpu' instead of '{name}'"
        )
    if gpu >= torch.cuda.device_count():
        raise DnnError(
            f"there is no GPU '{name}': PyTorch sees {torch.cuda.device_count()}, from 'cuda:0' on"
        )
    return torch.device("cuda", gpu)
