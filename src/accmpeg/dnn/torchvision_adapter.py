"""torchvision's detection, keypoint and segmentation models by name (the option `architecture`).

`model` says where the weights come from: a `.safetensors` state dict beside the card; "DEFAULT" for
torchvision's own, downloaded once and checked; or "random:SEED" for untrained ones, to try things out.

The card does the resizing and the normalisation, in place of torchvision's transform. One-stage detectors
give every candidate (head `boxes`), so that all of them carry a gradient; two-stage ones give their final
detections (heads `final` and `final_keypoints`), one picture at a time. Classes leave out torchvision's
background, class 0.
"""

import urllib.error
from pathlib import Path
from typing import Any

import torch

from accmpeg.dnn.card import DnnCard, check_options
from accmpeg.dnn.results import SCORE_FLOOR
from accmpeg.dnn.torch_compat import import_torchvision
from accmpeg.dnn.torch_network import TorchNetwork
from accmpeg.dnn.weights import read_safetensors
from accmpeg.errors import CardError, DnnError, WeightsError, did_you_mean, one_line

__all__ = ["open_torchvision"]

RANDOM = "random:"
DOWNLOAD = "DEFAULT"
TASKS = {"detection": "detection", "keypoints": "detection", "segmentation": "segmentation"}


def open_torchvision(card: DnnCard, model: Path, threads: int | None, device: str) -> TorchNetwork:
    """Builds the model that the card names.

    Raises `CardError` for an architecture or number of classes that does not fit, `WeightsError` for weights
    that do not, `DnnError` where this torchvision can't run it.
    """
    torchvision = import_torchvision()
    check_options(card, ["architecture"])
    name = _architecture(card, torchvision)
    network = _build(card, name, model, torchvision)
    if card.task == "segmentation":
        return TorchNetwork.of(card, network, device, threads=threads, outputs=["out"])
    if not hasattr(network, "roi_heads"):
        return TorchNetwork.of(card, _OneStage(network), device, threads=threads)
    if not _has_compiled_operators():
        raise DnnError(
            f"{name} needs torchvision's compiled operators, and torchvision {torchvision.__version__} can't "
            f"load them beside PyTorch {torch.__version__}: install the two built for each other, or take a "
            "one-stage detector (ssdlite, retinanet, fcos)"
        )
    floor = min(SCORE_FLOOR, card.score_threshold)
    return TorchNetwork.of(card, _TwoStage(network, floor), device, threads=threads, max_batch=1)


class _OneStage(torch.nn.Module):
    """SSD, RetinaNet or FCOS: boxes `(n, A, 4)` in input pixels and scores `(n, A, C)` of all anchors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        features = list(self.model.backbone(batch).values())
        outputs = self.model.head(features)
        anchors = torch.stack(self.model.anchor_generator(_images(batch), features))
        codes, logits = outputs["bbox_regression"], outputs["cls_logits"]
        if "bbox_ctrness" in outputs:
            boxes = self.model.box_coder.decode(codes, anchors)
            scores = (logits.sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()
        else:
            boxes = self.model.box_coder.decode_single(codes.flatten(0, 1), anchors.flatten(0, 1))
            boxes = boxes.reshape(codes.shape)
            softmaxed = isinstance(self.model, _ssd_class())
            scores = logits.softmax(dim=-1) if softmaxed else logits.sigmoid()
        return [boxes, scores[..., 1:]]


class _TwoStage(torch.nn.Module):
    """The R-CNN family, for one picture: boxes, scores, labels and perhaps keypoints, with a leading 1."""

    def __init__(self, model: Any, score_floor: float) -> None:
        super().__init__()
        model.roi_heads.score_thresh = score_floor
        # Masks would only cost time: no head reads them.
        model.roi_heads.mask_roi_pool = None
        self.model = model

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        images = _images(batch)
        features = self.model.backbone(batch)
        proposals, _ = self.model.rpn(images, features)
        (found,), _ = self.model.roi_heads(features, proposals, images.image_sizes)
        outputs = [found["boxes"], found["scores"], found["labels"] - 1]
        if "keypoints" in found:
            # torchvision's keypoint scores are logits.
            visibility = found["keypoints_scores"].sigmoid()
            outputs.append(torch.cat([found["keypoints"][..., :2], visibility[..., None]], dim=-1))
        return [output[None] for output in outputs]


def _images(batch: torch.Tensor) -> Any:
    from torchvision.models.detection.image_list import ImageList

    return ImageList(batch, [(batch.shape[2], batch.shape[3])] * len(batch))


def _ssd_class() -> type:
    from torchvision.models.detection.ssd import SSD

    return SSD  # type: ignore[no-any-return]


def _has_compiled_operators() -> bool:
    return hasattr(torch.ops.torchvision, "roi_align")


def _architecture(card: DnnCard, torchvision: Any) -> str:
    if card.task not in TASKS:
        raise CardError(f"{card.name}: the adapter 'torchvision' answers {', '.join(TASKS)}, not {card.task}")
    package = getattr(torchvision.models, TASKS[card.task])
    wants_keypoints = card.task == "keypoints"
    names = [
        n
        for n in torchvision.models.list_models(module=package)
        if n.startswith("keypointrcnn") == wants_keypoints
    ]
    name = card.options.get("architecture")
    if name is None:
        raise CardError(f"{card.name}: the key 'options.architecture' is missing: one of {', '.join(names)}")
    if name not in names:
        hint = did_you_mean(str(name), names)
        raise CardError(f"{card.name}: torchvision has no {card.task} model '{name}': {hint}")
    return str(name)


def _build(card: DnnCard, name: str, model: Path, torchvision: Any) -> torch.nn.Module:
    background = card.task != "segmentation"
    settings: dict[str, Any] = {"num_classes": len(card.classes) + background}
    if card.keypoints is not None:
        settings["num_keypoints"] = len(card.keypoints.names)
    seed = _seed(card)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        network: torch.nn.Module = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, **settings
        )
    if seed is None:
        state = (
            _download(card, name, torchvision) if card.model == DOWNLOAD else read_safetensors(card, model)
        )
        _fill(card, name, network, state)
    return network


def _seed(card: DnnCard) -> int | None:
    """The seed of "random:SEED"; None where the card names weights."""
    if not card.model.startswith(RANDOM):
        return None
    text = card.model.removeprefix(RANDOM)
    if not text.isdecimal():
        raise CardError(f"{card.name}: model = '{card.model}' is no 'random:SEED' with a number")
    return int(text)


def _download(card: DnnCard, name: str, torchvision: Any) -> dict[str, torch.Tensor]:
    """torchvision's own weights: fetched once, their hash checked, and read without running code."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    # urllib, http.client, pickle and the hash check raise unrelated classes.
    except Exception as error:
        offline = isinstance(error, urllib.error.URLError | OSError)
        raise WeightsError(
            f"the weights of {card.name} can't be had from {weights.url} ({one_line(error)}): "
            + ("connect once, or name" if offline else "name")
            + " a .safetensors file as 'model' in its card"
        ) from error
    return state


def _fill(card: DnnCard, name: str, network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = network.state_dict()
    # The auxiliary classifier only serves training; batch counters are no weights, frozen layers lack them.
    given = {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in own]
    misfits = [key for key in given if key in own and own[key].shape != given[key].shape]
    if missing or unknown or misfits:
        key, what = next(
            (keys[0], what)
            for keys, what in (
                (misfits, "has another shape: is the number of classes right?"),
                (missing, "is missing"),
                (unknown, "is not part of it"),
            )
            if keys
        )
        raise WeightsError(f"{card.name}: {card.model} does not fit {name}: '{key}' {what}")
    network.load_state_dict(given, strict=False)
