"""Weights on disk: the right file, and never one that unpickles."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from accmpeg.dnn.card import DnnCard
from accmpeg.dnn.onnx_files import external_files
from accmpeg.errors import WeightsError

if TYPE_CHECKING:
    import torch

__all__ = ["check_hash", "read_safetensors", "sha256_of"]


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a model's file, 64 hexadecimal digits; raises `OSError` that names what is missing.

    An ONNX file that keeps weights in files beside it has the SHA-256 of all their SHA-256 in one: a change
    of any of them is a change of the network.
    """
    path = Path(path)
    digest = _sha256(path)
    beside = external_files(path) if path.suffix in (".onnx", ".xml") else []
    if not beside:
        return digest
    return hashlib.sha256(" ".join([digest, *map(_sha256, beside)]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_hash(card: DnnCard, weights: Path) -> None:
    """Raises `WeightsError` unless the file is there and has the card's SHA-256 (if the card states one)."""
    try:
        found = sha256_of(weights)
    except OSError as error:
        missing = error.filename or weights
        way_out = (
            "correct 'model' in its card" if Path(missing) == weights else f"{weights.name} needs it there"
        )
        raise WeightsError(
            f"the weights of {card.name} can't be read: {missing} ({error.strerror}); {way_out}"
        ) from error
    if card.sha256 is not None and found != card.sha256:
        beside = external_files(weights) if weights.suffix in (".onnx", ".xml") else []
        whole = f"{weights} with {', '.join(file.name for file in beside)}" if beside else str(weights)
        raise WeightsError(
            f"{whole} is not the file that the card of {card.name} describes (sha256 {found[:12]}…, "
            f"card says {card.sha256[:12]}…): restore the weights, or import them again"
        )


def read_safetensors(card: DnnCard, weights: Path) -> "dict[str, torch.Tensor]":
    """A PyTorch state dict from a `.safetensors` file that matches the card; raises `WeightsError`."""
    if weights.suffix != ".safetensors":
        raise WeightsError(
            f"{card.name}: {weights.name} is no .safetensors file, and other weights are not loaded because "
            "unpickling them can run code: store the state dict with safetensors.torch.save_file"
        )
    check_hash(card, weights)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights} can't be read as safetensors: {error}") from error
