"""Trains an AccModel from label sets: whole clips held out, resumable, stops when it no longer improves.

One run is a function of labels, settings and seed: view i of step n is drawn from a generator seeded with
(seed, n, i), so a run that was interrupted goes on as if it had not been (up to rounding, and to a time
limit), and processes that share the batches train as one would.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accmpeg.errors import TrainingError
from accmpeg.media.grid import MacroblockGrid
from accmpeg.tasks.segmentation import ignored_class
from accmpeg.training.checkpoint import (
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from accmpeg.training.labels import LabelItem, LabelSet
from accmpeg.training.losses import accmodel_loss
from accmpeg.training.network import ACCGRAD, OBJECTS, AccModelNetwork
from accmpeg.training.quality import FrameQuality, frame_quality, mean_quality
from accmpeg.training.samples import LabelStore, collate, random_view, split_by_clip
from accmpeg.training.settings import TrainingSettings
from accmpeg.training.team import Team

__all__ = ["Ended", "Progress", "Trained", "predict_maps", "train_network"]


Ended = Literal["epochs", "minutes", "no improvement"]
"""Why a run ended: all its epochs are done, its time is up, or held-out clips showed no more improvement."""

STEPS_TO_KNOW_THE_SPEED, SECONDS_TO_KNOW_THE_SPEED = 5, 20.0
"""The first steps are slower than the others: labels come from disk, and memory is taken."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; `quality` is that of the held-out frames after the last epoch.

    `fraction` of the learning-rate schedule is done; `epochs` is how many it will have been at its end at
    the speed so far, `epoch_s` seconds each: both NaN until that is known.
    """

    fraction: float
    epoch: float
    loss: float
    quality: FrameQuality | None
    epochs: float = math.nan
    epoch_s: float = math.nan


@dataclass(frozen=True, slots=True)
class Trained:
    """The best averaged network of a run, and the split it was judged on."""

    network: AccModelNetwork
    training: list[LabelItem]
    held_out: list[LabelItem]
    epochs: float
    minutes: float
    device: str
    ended: Ended


def train_network(
    label_sets: Sequence[LabelSet],
    checkpoint: Path,
    settings: TrainingSettings,
    *,
    exclude_clips: frozenset[str] = frozenset(),
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Trains from `checkpoint` on if it exists, else from the start.

    In a process group of PyTorch all its processes train together, and the first one saves. On
    `KeyboardInterrupt` the checkpoint is saved and the exception goes on. Raises `TrainingError` for labels
    that can't be trained from and for a checkpoint of another run.
    """
    items = [item for labels in label_sets for item in labels if not exclude_clips & {item.clip, item.source}]
    training, held_out = split_by_clip(items, settings.held_out) if items else ([], [])
    if not training or not held_out:
        raise TrainingError(
            f"{len(items)} labelled frames can't be split into training and held-out ones: label more footage"
        )
    return _Run(training, held_out, checkpoint, settings, progress).go()


class _Run:
    def __init__(
        self,
        training: list[LabelItem],
        held_out: list[LabelItem],
        checkpoint: Path,
        settings: TrainingSettings,
        progress: Callable[[Progress], None],
    ) -> None:
        self.settings, self.checkpoint, self.progress = settings, checkpoint, progress
        self.training, self.held_out = LabelStore(training), LabelStore(held_out)
        self._labels = _fingerprint([*training, *held_out])
        self.device = _device(settings.device)
        self.team = Team()
        has_objects = self.training[0].objects is not None
        torch.manual_seed(settings.seed)
        self.classes = _class_count(self.training)
        heads = (ACCGRAD, OBJECTS) if has_objects else (ACCGRAD,)
        self.network = AccModelNetwork(heads, context_classes=self.classes)
        if settings.init is not None:
            load_weights(self.network, settings.init)
        # Depthwise convolutions train three times faster in this layout on a CPU.
        self.network = self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        self.team.normalise_together(self.network)
        self.best = copy.deepcopy(self.average)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.network, settings.weight_decay), lr=settings.learning_rate
        )
        self.steps_per_epoch = max(1, len(training) // settings.batch_size)
        self.step, self.minutes_before = 0, 0.0
        self.fraction = 0.0
        self.best_score, self.best_epoch = -math.inf, 0
        self.quality: FrameQuality | None = None
        self.started = time.monotonic()
        self._resume()
        self.first_step = self.step

    @property
    def minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.started) / 60

    @property
    def _done(self) -> float:
        """How much of the learning-rate schedule is done, 0 to 1.

        By epochs or, where these take longer, by time: a machine that is slow, or becomes so, does fewer
        epochs, but the last of them have the low learning rates that bring much of the quality.
        """
        return min(1.0, max(self._done_by_epochs, self._done_by_time))

    @property
    def _done_by_epochs(self) -> float:
        return self.step / (self.settings.epochs * self.steps_per_epoch)

    @property
    def _done_by_time(self) -> float:
        return 0.0 if self.settings.minutes is None else self.minutes / self.settings.minutes

    def go(self) -> Trained:
        epoch = self.step // self.steps_per_epoch
        saved = time.monotonic()
        try:
            while self._goes_on(epoch):
                loss = self._train_step()
                epoch, position = divmod(self.step, self.steps_per_epoch)
                if not self.team.leads:
                    continue
                if position == 0:
                    self._judge(epoch)
                if position == 0 and time.monotonic() - saved > 10:
                    self._save()
                    saved = time.monotonic()
                self.progress(self._progress(loss))
        except KeyboardInterrupt:
            if self.team.leads:
                self._save()
            raise
        ended: Ended = "no improvement"
        if self._done_by_epochs >= 1:
            ended = "epochs"
        elif self._done_by_time >= 1:
            ended = "minutes"
        if self.team.leads:
            self._judge(epoch)
            self._save()
        return Trained(
            self.best,
            list(self.training.items),
            list(self.held_out.items),
            self.step / self.steps_per_epoch,
            self.minutes,
            str(self.device),
            ended,
        )

    def _goes_on(self, epoch: int) -> bool:
        self.fraction, best_epoch = self.team.agreed((self._done, self.best_epoch), self.device)
        return self.fraction < 1 and epoch - best_epoch < self.settings.patience

    def _progress(self, loss: float) -> Progress:
        """What is left is told from the speed of this run; an earlier one's machine may have been idle."""
        epoch = self.step / self.steps_per_epoch
        steps = self.step - self.first_step
        elapsed_s = time.monotonic() - self.started
        if steps < STEPS_TO_KNOW_THE_SPEED and elapsed_s < SECONDS_TO_KNOW_THE_SPEED:
            return Progress(self._done, epoch, loss, self.quality)
        epoch_s = elapsed_s / steps * self.steps_per_epoch
        epochs = float(self.settings.epochs)
        if self.settings.minutes is not None:
            epochs = min(epochs, epoch + max(0.0, self.settings.minutes - self.minutes) * 60 / epoch_s)
        return Progress(self._done, epoch, loss, self.quality, epochs, epoch_s)

    def _train_step(self) -> float:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(self.fraction)
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(self.training))
        chosen = order[position * settings.batch_size : (position + 1) * settings.batch_size]
        size = settings.view_height_px, settings.view_width_px
        views = [
            random_view(
                self.training[int(chosen[i])],
                np.random.default_rng((settings.seed, 1, self.step, i)),
                *size,
                self.classes,
            )
            for i in self.team.share(range(len(chosen)))
        ]
        batch = collate(views).to(self.device)
        self.network.train()
        scores, context = self.network.with_context(batch.y, batch.uv)
        loss = accmodel_loss(scores, batch, self.network.heads, settings.loss, context, self.team.mean)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.team.average_gradients(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        value = float(self.team.mean(loss.detach()))
        if not math.isfinite(value):
            raise TrainingError(f"training diverged (loss {value}): try a lower learning rate")
        return value

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the averaged weights towards the current ones; quickly at first."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for averaged, current in zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if averaged.is_floating_point():
                averaged.lerp_(current, 1 - decay)
            else:
                averaged.copy_(current)

    def _judge(self, epoch: int) -> None:
        frames = []
        for label in self.held_out:
            maps = predict_maps(self.average, label)
            probability = _sigmoid(maps[OBJECTS]) if OBJECTS in maps else None
            frames.append(frame_quality(maps[ACCGRAD], label.accgrad_log2, probability, label.objects))
        self.quality = mean_quality(frames)
        score = self.quality.top_share
        if math.isnan(score):
            score = self.quality.top_share_all
        if not math.isnan(self.quality.objects_iou):
            score += 0.5 * self.quality.objects_iou
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            self.best.load_state_dict(self.average.state_dict())

    def _save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "best": self.best.state_dict(),
                "optimizer": optimizer_tensors(self.network, self.optimizer),
            },
            {
                "step": self.step,
                "minutes": self.minutes,
                "best_score": self.best_score,
                "best_epoch": self.best_epoch,
                "run": self._identity(),
            },
        )

    def _resume(self) -> None:
        loaded = load_checkpoint(self.checkpoint)
        if loaded is None:
            return
        groups, state = loaded
        if state["run"] != self._identity():
            raise TrainingError(
                f"{self.checkpoint} belongs to other labels or settings: start again with --restart"
            )
        self.network.load_state_dict(groups["network"])
        self.average.load_state_dict(groups["average"])
        self.best.load_state_dict(groups["best"])
        restore_optimizer(self.network, self.optimizer, groups["optimizer"])
        self.step, self.minutes_before = state["step"], state["minutes"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]

    def _identity(self) -> dict[str, Any]:
        return {
            **self.settings.fingerprint(),
            "frames": [len(self.training), len(self.held_out)],
            "labels": self._labels,
            "heads": list(self.network.heads),
        }


@torch.no_grad()
def predict_maps(network: AccModelNetwork, label: Any) -> dict[str, NDArray[np.float32]]:
    """The network's raw maps on a label's macroblock grid, as the camera computes them."""
    device = next(network.parameters()).device
    planes = (
        torch.from_numpy(plane)[None].to(device).contiguous(memory_format=torch.channels_last)
        for plane in (label.planes.y[None], label.planes.uv)
    )
    scores: Tensor = network.eval()(*planes)
    grid = MacroblockGrid(label.width_px, label.height_px)
    maps = scores[0].float().cpu().numpy()
    return {name: grid.resample(m, *m.shape) for name, m in zip(network.heads, maps, strict=True)}


def _class_count(labels: LabelStore) -> int:
    """Classes of a server DNN that segments, by its labels; 0 for any other."""
    maps = (label.result.get("classes") for label in labels)
    seen = (each[each != ignored_class(each)] for each in maps if each is not None)
    return max((int(ids.max()) + 1 for ids in seen if ids.size), default=0)


def _fingerprint(items: Sequence[LabelItem]) -> str:
    """Of what the labels are of, and of their files' sizes: hardly two labels of a frame compress alike."""
    of = [(item.clip, item.frame_index, item.file.is_file() and item.file.stat().st_size) for item in items]
    return hashlib.sha256(repr(of).encode()).hexdigest()


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))), np.float32)


def _schedule(fraction: float) -> float:
    """A short linear warm-up, then half a cosine down to 1 %."""
    warm_up = 0.04
    if fraction < warm_up:
        return 0.1 + 0.9 * fraction / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (fraction - warm_up) / (1 - warm_up)))


def _parameter_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"the device {name} can't be used: {str(error).splitlines()[0]}") from error
    return device
