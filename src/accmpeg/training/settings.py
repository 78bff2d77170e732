"""How footage is labelled and an AccModel trained. Imports no PyTorch: the command line is made of it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from accmpeg.errors import UsageError
from accmpeg.options import Option

__all__ = ["LabelSettings", "LossWeights", "Sampling", "TrainingSettings"]


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """What a label means; a folder holds labels of one group of settings only. Raises UsageError."""

    qp_high: Annotated[int, Option("QP of the high quality, at which the DNN sets the reference.")] = 20
    qp_low: Annotated[int, Option("QP of the low quality.")] = 40
    at: Annotated[Literal["low", "high"], Option("Take the gradient at the 'low' or the 'high' quality.")] = (
        "low"
    )
    max_side_px: Annotated[
        int, Option("Scale larger frames down to this long side, in pixels.", name="max_side")
    ] = 1280
    black_box: Annotated[
        int | None, Option("Use N inferences per frame in place of the DNN's gradient.", metavar="N")
    ] = None

    def __post_init__(self) -> None:
        if not 0 <= self.qp_high < self.qp_low <= 51:
            raise UsageError(f"--qp-high {self.qp_high} --qp-low {self.qp_low}: give 0 <= high < low <= 51")
        if self.at not in ("low", "high"):
            raise UsageError(f"--at {self.at}: give low or high")
        if self.max_side_px < 64:
            raise UsageError(f"--max-side {self.max_side_px}: give at least 64 pixels")
        if self.black_box is not None and self.black_box < 8:
            raise UsageError(f"--black-box {self.black_box}: give at least 8 inferences per frame")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames are labelled: every still, and every `every`-th frame of a clip, at most `limit` of it."""

    every: Annotated[int, Option("Label every so many frames of a video; stills are all labelled.")] = 10
    limit: Annotated[int | None, Option("Frames of each video at most.", default="all")] = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"--every {self.every}: give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}: give 1 or more")


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How the parts add up."""

    share: float = 1.0
    share_temper: float = 0.7
    level: float = 0.1
    objects: float = 1.0
    object_weight: float = 3.0
    small_object_weight: float = 3.0
    context: float = 0.5


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train: so many epochs, or as many as `minutes` allow; the learning rate runs its whole course
    either way."""

    minutes: Annotated[
        float | None,
        Option("Train for no longer than this, with fewer epochs where time is short.", min=0.01),
    ] = None
    epochs: Annotated[int, Option("Passes over the labels.", min=1)] = 40
    batch_size: int = 16
    view_height_px: int = 256
    view_width_px: int = 352
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.995
    held_out: float = 0.12
    patience: int = 20
    """Epochs without improvement on held-out clips after which training stops. Generous: the last part
    of the schedule, with its low learning rates, brings much of the quality."""
    seed: Annotated[int, Option("Of the first weights and all views.")] = 0
    device: Annotated[str, Option("auto, cpu or cuda.")] = "auto"
    init: Annotated[
        Path | None,
        Option("Start from the weights of another AccModel (NAME.safetensors), which saves time."),
    ] = None
    loss: LossWeights = field(default_factory=LossWeights)

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must share with a run that goes on from it."""
        kept = asdict(self)
        for free in ("minutes", "epochs", "device", "patience"):
            del kept[free]
        kept["init"] = None if self.init is None else self.init.name
        return kept
