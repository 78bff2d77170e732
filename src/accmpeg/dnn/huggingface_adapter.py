"""Hugging Face object detection and semantic segmentation models: a folder beside the card, or a hub id.

Weights load from safetensors only, and code from a repository is never run. The card does the resizing and
the normalisation, in place of the model's image processor. Detection reads `logits` and `pred_boxes` (head
`detr`), segmentation reads `logits` (head `logits`).
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from accmpeg.dnn.card import DnnCard, check_options
from accmpeg.dnn.torch_compat import import_torchvision
from accmpeg.dnn.torch_network import TorchNetwork
from accmpeg.dnn.weights import check_hash
from accmpeg.errors import CardError, DnnError, MissingExtraError, WeightsError, one_line

__all__ = ["open_huggingface"]

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
OUTPUTS = {"detection": ["logits", "pred_boxes"], "segmentation": ["logits"]}
CLASSES = {"detection": "AutoModelForObjectDetection", "segmentation": "AutoModelForSemanticSegmentation"}


def open_huggingface(card: DnnCard, model: Path, threads: int | None, device: str) -> TorchNetwork:
    """Loads the model that the card names, from its folder or from the hub (and then the hub's cache).

    Raises `CardError` for a task or number of classes that does not fit, `WeightsError` for a model that
    can't be had or is incomplete.
    """
    check_options(card, ["revision"])
    if card.task not in OUTPUTS:
        raise CardError(
            f"{card.name}: the adapter 'huggingface' answers {' and '.join(OUTPUTS)}, not {card.task}"
        )
    if model.is_dir():
        if card.sha256 is not None:
            check_hash(card, model / "model.safetensors")
    elif not HUB_ID.fullmatch(card.model):
        raise WeightsError(f"{card.name}: {model} is no folder, and '{card.model}' is no hub id")
    return TorchNetwork.of(card, _load(card, model), device, threads=threads, outputs=OUTPUTS[card.task])


def _load(card: DnnCard, model: Path) -> torch.nn.Module:
    # transformers imports torchvision where it is installed, and then it must be importable.
    with contextlib.suppress(MissingExtraError):
        import_torchvision()
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError("the adapter 'huggingface'", "huggingface") from error
    source = str(model) if model.is_dir() else card.model
    settings: dict[str, Any] = {
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    settings |= card.options
    load = getattr(transformers, CLASSES[card.task]).from_pretrained
    try:
        try:
            with _quiet(transformers, progress=False):
                network, info = load(source, local_files_only=True, **settings)
        except OSError:
            if model.is_dir():
                raise
            # Not in the hub's cache yet: fetched once, with a progress bar.
            with _quiet(transformers, progress=True):
                network, info = load(source, **settings)
    # transformers, its hub client and safetensors raise many unrelated classes.
    except Exception as error:
        where = "read from the folder" if model.is_dir() else "had from the hub"
        raise WeightsError(
            f"the model of {card.name} can't be {where}: {card.model} ({one_line(error)}); it must be "
            "a folder or a hub id with config.json and safetensors weights for this task"
        ) from error
    if bad := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise WeightsError(
            f"the weights of {card.name} are incomplete: {card.model} lacks {bad[0]} ({len(bad)} in all)"
        )
    if network.config.num_labels != len(card.classes):
        raise DnnError(
            f"{card.model} knows {network.config.num_labels} classes, the card of {card.name} lists "
            f"{len(card.classes)}: correct classes (the model's config.json has their names in id2label)"
        )
    return cast("torch.nn.Module", network.float())


@contextlib.contextmanager
def _quiet(transformers: Any, *, progress: bool) -> Iterator[None]:
    """Keeps remarks and retries off stderr: what matters arrives as one error."""
    loud, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    transformers.logging.set_verbosity_error()
    hub.setLevel(logging.ERROR)
    if not progress:
        transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(loud)
        hub.setLevel(hub_level)
        if bars:
            transformers.logging.enable_progress_bar()
