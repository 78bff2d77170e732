"""The whole way from label sets to `NAME.onnx` and its card: train, calibrate, export, measure, record."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from accmpeg.accmodel.card import (
    AccModelCard,
    Calibration,
    Cost,
    Quality,
    ServedDnn,
    TrainingRecord,
    card_path,
    sha256_of,
)
from accmpeg.accmodel.runtime import AccModel
from accmpeg.dnn.card import write_card
from accmpeg.errors import TrainingError, UsageError
from accmpeg.files import write_whole
from accmpeg.training.checkpoint import save_weights
from accmpeg.training.export import count_macs, count_parameters, export_onnx, measure_ms
from accmpeg.training.fitting import Progress, Trained, predict_maps, train_network
from accmpeg.training.labels import LabelItem, LabelSet, read_labels
from accmpeg.training.network import OBJECTS, AccModelNetwork
from accmpeg.training.quality import frame_quality, mean_quality, threshold_for_recall
from accmpeg.training.settings import TrainingSettings

__all__ = ["OBJECT_RECALL", "assess", "checkpoint_path", "train_accmodel"]

OBJECT_RECALL = 0.95
"""Share of the held-out macroblocks with objects that the calibrated threshold finds."""

_COST_SIZE_PX = 1280, 720


def checkpoint_path(out: str | Path) -> Path:
    """Where the training of an AccModel keeps its state while it runs, and after an interruption.

    Args:
        out: The AccModel, `NAME.onnx`.
    """
    return Path(out).with_suffix(".training.safetensors")


def train_accmodel(
    labels: Sequence[str | Path],
    *,
    out: str | Path,
    settings: TrainingSettings | None = None,
    name: str | None = None,
    validation: Sequence[str | Path] = (),
    restart: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    train: Callable[..., Trained] = train_network,
) -> AccModelCard:
    """Trains an AccModel for the server DNN that the labels are of; writes it and its card.

    Clips held out of `labels` decide when to stop, and calibrate the result. Goes on from an interrupted run
    with the same settings; on `KeyboardInterrupt` the state is saved.

    Args:
        labels: Folders that `label_footage` filled, all of one server DNN.
        out: The AccModel, `NAME.onnx`. Its card goes beside it, and `NAME.safetensors`, from which the
            training of another AccModel may start.
        settings: How to train.
        name: In the card; the file's otherwise.
        validation: Label folders that only judge the result; clips in them are not trained on.
        restart: Forgets an interrupted run.
        progress: Told after every step where the run stands.
        train: What trains; `accmpeg cluster train` gives another, whose processes train together.

    Returns:
        The card, with costs and quality.

    Raises:
        TrainingError: The labels can't be trained from, or belong to several DNNs.
        LabelError: A folder holds no labels.
        UsageError: An option can't be meant.
        OSError: The disk is full.
    """
    output, settings = Path(out), settings or TrainingSettings()
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: an AccModel is an ONNX file, so give a name that ends in .onnx")
    training_sets = [read_labels(folder) for folder in labels]
    validation_sets = [read_labels(folder) for folder in validation]
    dnn = _common_dnn([*training_sets, *validation_sets])
    checkpoint = checkpoint_path(output)
    if restart:
        checkpoint.unlink(missing_ok=True)
    # By its place, too: one file is called otherwise where it was labelled with its folder.
    judged = frozenset(
        name for labels in validation_sets for item in labels for name in (item.clip, item.source)
    )
    trained = train(training_sets, checkpoint, settings, exclude_clips=judged, progress=progress)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(output.with_suffix(".safetensors"), trained.network)
    network, threshold = _calibrate(trained)
    weights = export_onnx(network)
    card = AccModelCard(
        name=name or output.stem,
        model=output.name,
        sha256=sha256_of(weights),
        outputs=cast(Any, list(network.heads)),
        dnn=dnn,
        training=_record(training_sets, trained, settings),
        calibration=Calibration(object_threshold=threshold, object_recall=OBJECT_RECALL),
        cost=_cost(weights),
    )
    write_whole(output, weights)
    write_card(card, card_path(output))

    # Judged through the door that the camera uses: the exported file in ONNX Runtime.
    runtime = AccModel.load(output)
    quality = [assess(runtime, trained.held_out, "held-out clips of the training footage")]
    quality += [assess(runtime, list(labels), labels.folder.name) for labels in validation_sets]
    card = card.model_copy(update={"quality": quality})
    write_card(card, card_path(output))
    checkpoint.unlink(missing_ok=True)
    return card


def _cost(weights: bytes) -> Cost:
    model = onnx.load_from_string(weights)
    width_px, height_px = _COST_SIZE_PX
    return Cost(
        width_px=width_px,
        height_px=height_px,
        macs=count_macs(model, width_px, height_px),
        parameters=count_parameters(model),
        ms=round(statistics.median(measure_ms(weights, width_px, height_px)), 3),
    )


def assess(model: AccModel, items: Sequence[LabelItem], footage: str) -> Quality:
    """Mean quality of a loaded AccModel over labelled frames."""
    frames = []
    for item in items:
        label = item.load()
        scores = model.score(label.planes, label.width_px, label.height_px)
        frames.append(
            frame_quality(
                scores.accgrad, label.accgrad_log2, scores.objects, label.objects, model.object_threshold
            )
        )
    figures = {
        key: round(value, 4) for key, value in asdict(mean_quality(frames)).items() if not np.isnan(value)
    }
    return Quality(footage=footage, clips=len({item.clip for item in items}), frames=len(items), **figures)


def _common_dnn(label_sets: Sequence[LabelSet]) -> ServedDnn:
    served = {labels.folder: ServedDnn.model_validate(labels.dnn) for labels in label_sets}
    first = next(iter(served.values()))
    for folder, dnn in served.items():
        if not dnn.is_same(first.name, first.sha256):
            raise TrainingError(
                f"{folder} holds labels of {dnn.name}, not of the same {first.name}: train one DNN at a time"
            )
    return first


def _record(label_sets: Sequence[LabelSet], trained: Trained, settings: TrainingSettings) -> TrainingRecord:
    return TrainingRecord(
        footage=[labels.folder.name for labels in label_sets],
        label_settings=[_without_none(labels.settings) for labels in label_sets],
        frames=len(trained.training),
        clips=len({item.clip for item in trained.training}),
        held_out_frames=len(trained.held_out),
        held_out_clips=len({item.clip for item in trained.held_out}),
        epochs=round(trained.epochs, 2),
        epochs_asked=settings.epochs,
        ended=trained.ended,
        minutes=round(trained.minutes, 2),
        seed=settings.seed,
        device=trained.device,
        init=None if settings.init is None else settings.init.stem,
    )


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    # TOML has no null: a setting that is off is left out.
    return {key: value for key, value in settings.items() if value is not None}


def _calibrate(trained: Trained) -> tuple[AccModelNetwork, float]:
    """Makes the objects output a probability on held-out frames, and finds the threshold of the set recall.

    Training weighs positives up, which inflates the logits; Platt's scaling (1999) undoes it. The scale goes
    into the last convolution, so the exported network needs no extra step.
    """
    network = trained.network.cpu()
    if OBJECTS not in network.heads:
        return network, 0.5
    logits, truths = [], []
    for item in trained.held_out:
        label = item.load()
        if label.objects is not None:
            logits.append(predict_maps(network, label)[OBJECTS].ravel())
            truths.append(label.objects.ravel())
    logit, truth = np.concatenate(logits), np.concatenate(truths)
    scale, shift = _platt(logit, truth)
    channel = network.heads.index(OBJECTS)
    head: nn.Conv2d = network.head
    with torch.no_grad():
        head.weight[channel] *= scale
        assert head.bias is not None
        head.bias[channel] = head.bias[channel] * scale + shift
    probability = 1 / (1 + np.exp(-(scale * logit + shift)))
    return network, round(threshold_for_recall(probability, truth, OBJECT_RECALL), 4)


def _platt(logit: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and shift that make logits probabilities; (1, 0) where they can't be told (one class only)."""
    if truth.all() or not truth.any():
        return 1.0, 0.0
    design = np.stack((logit.astype(np.float64), np.ones(logit.size)), axis=1)
    at = np.array([1.0, 0.0])
    # Smoothed targets, as in Platt's paper, keep the scale finite where classes separate perfectly.
    positives = np.count_nonzero(truth)
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (truth.size - positives + 2))
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(design @ at, -30, 30)))
        weight = np.maximum(probability * (1 - probability), 1e-9)
        step = np.linalg.solve(
            (design * weight[:, None]).T @ design + 1e-6 * np.eye(2), design.T @ (target - probability)
        )
        at = at + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    if not (np.isfinite(at).all() and at[0] > 0.05):
        return 1.0, 0.0
    return float(at[0]), float(at[1])
