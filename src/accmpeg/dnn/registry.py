"""The adapters: a new kind of network is one file with an `open_…` function, and one row here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from accmpeg.dnn.card import DnnCard, read_card
from accmpeg.dnn.network import Network
from accmpeg.dnn.weights import check_hash
from accmpeg.errors import CardError, did_you_mean

__all__ = ["ADAPTERS", "Adapter", "get_adapter", "read_checked_card"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where the function that opens a card's network lives; imported only when a card asks for it.

    The function is `(card, model, threads, device) -> Network`, `model` being the card's `model` joined to
    the card's folder. With `model_is_file` that file exists and its hash was checked before. Without
    `runs_here` the network is on another server: threads and device don't apply, and it has no gradient.
    """

    module: str
    function: str
    model_is_file: bool = True
    runs_here: bool = True

    def open(self, card: DnnCard, model: Path, threads: int | None, device: str) -> Network:
        """Opens the network; raises `DnnError` or `WeightsError`."""
        function = cast(
            "Callable[[DnnCard, Path, int | None, str], Network]",
            getattr(import_module(self.module), self.function),
        )
        return function(card, model, threads, device)


ADAPTERS: dict[str, Adapter] = {
    "onnx": Adapter("accmpeg.dnn.onnx_adapter", "open_onnx"),
    "openvino": Adapter("accmpeg.dnn.openvino_adapter", "open_openvino"),
    "torch_export": Adapter("accmpeg.dnn.torch_export_adapter", "open_torch_export"),
    "torchvision": Adapter("accmpeg.dnn.torchvision_adapter", "open_torchvision", model_is_file=False),
    "huggingface": Adapter("accmpeg.dnn.huggingface_adapter", "open_huggingface", model_is_file=False),
    "callable": Adapter("accmpeg.dnn.callable_adapter", "open_callable", model_is_file=False),
    "remote": Adapter("accmpeg.dnn.remote_adapter", "open_remote", model_is_file=False, runs_here=False),
}


def get_adapter(name: str) -> Adapter:
    """The adapter of that name; raises `CardError` naming the nearest one."""
    if name not in ADAPTERS:
        raise CardError(f"there is no adapter '{name}': {did_you_mean(name, ADAPTERS)}")
    return ADAPTERS[name]


def read_checked_card(file: Path) -> DnnCard:
    """A card whose weights are there and its own; raises `CardError` or `WeightsError`."""
    card = read_card(file)
    if get_adapter(card.adapter).model_is_file:
        check_hash(card, file.parent / card.model)
    return card
