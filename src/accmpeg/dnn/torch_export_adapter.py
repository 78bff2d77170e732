"""`torch.export` files (`.pt2`): PyTorch programs, run and differentiated as they are.

Loading one with PyTorch alone can run code from the file; `pt2_check` refuses whatever could. Only files
written by PyTorch 2.9 or newer are read.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from accmpeg.dnn.card import DnnCard, check_options
from accmpeg.dnn.picture_input import check_size
from accmpeg.dnn.pt2_check import check_archive
from accmpeg.dnn.torch_network import Module, TorchNetwork
from accmpeg.errors import DnnError, WeightsError, one_line

__all__ = ["open_torch_export"]


def open_torch_export(card: DnnCard, model: Path, threads: int | None, device: str) -> TorchNetwork:
    """Opens a program with one picture input.

    Raises `WeightsError` if the file is none or could run code, `DnnError` if it does not fit its card.
    """
    check_options(card, [])
    try:
        content = model.read_bytes()
    except OSError as error:
        raise WeightsError(f"{model} can't be read: {error.strerror}") from error
    # One read for the check and the loading: nobody can exchange the file in between.
    program = _load(content, model)
    shape = _check_shape(card, program, model)

    def place(target: torch.device) -> Module:
        moved = program if target.type == "cpu" else move_to_device_pass(program, target)
        # Its guards are source code in the file; PyTorch checks the input's shape without them as well.
        module = moved.module(check_guards=False)
        module.requires_grad_(False)
        return module

    return TorchNetwork(card, place, device=device, threads=threads, max_batch=shape[0])


def _load(content: bytes, model: Path) -> torch.export.ExportedProgram:
    try:
        # torch.export.load would fall back to an older, pickled format, and log tracebacks.
        from torch.export.pt2_archive._package import load_pt2
    except ImportError as error:
        raise DnnError(
            f"torch.export files need PyTorch 2.9 or newer, this is {torch.__version__}"
        ) from error
    check_archive(content, str(model))
    try:
        with warnings.catch_warnings():
            # Its notes are about PyTorch's own code.
            warnings.simplefilter("ignore")
            return load_pt2(io.BytesIO(content)).exported_programs["model"]
    # The deserialiser raises whatever it stumbles over.
    except Exception as error:
        raise WeightsError(f"{model} can't be opened by this PyTorch: {one_line(error)}") from error


def _check_shape(card: DnnCard, program: torch.export.ExportedProgram, model: Path) -> list[int | None]:
    """The input's shape with None for any size; raises `DnnError` unless it is the card's picture."""
    names = list(program.graph_signature.user_inputs)
    if names != [card.input.name]:
        raise DnnError(
            f"{model} has the input {' and '.join(repr(str(name)) for name in names)}, but the card of "
            f"{card.name} says '{card.input.name}': correct input.name"
        )
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    example: Any = node.meta["val"]
    shape = [size if isinstance(size, int) else None for size in example.shape]
    if len(shape) != 4 or shape[1] not in (3, None):
        raise DnnError(f"{model} reads {tuple(example.shape)}, not pictures of (batch, 3, height, width)")
    check_size(card, model, shape[3], shape[2])
    return shape
