"""`accmpeg train`: an AccModel from accuracy-gradient labels."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accmpeg.cli.common import err, out, print_json, progress_bar, warn_of
from accmpeg.training.settings import TrainingSettings

if TYPE_CHECKING:
    from accmpeg.accmodel.card import AccModelCard, TrainingRecord
    from accmpeg.training import Progress
    from accmpeg.training.fitting import Trained

__all__ = ["train", "train_and_report"]


def train(
    labels: Annotated[list[Path], typer.Argument(metavar="LABELS", help="Label folders of one server DNN.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The AccModel, NAME.onnx.")],
    settings: TrainingSettings,
    name: Annotated[str | None, typer.Option(help="Name in the card.", show_default="the file's")] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="Label folder to judge the result on; its clips are not trained on."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on from an interrupted run, or start again.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="The card as one JSON document on stdout.")] = False,
) -> None:
    """Train an AccModel from labels, and write it with its card.

    Clips held out of the labels decide when to stop and calibrate the result. The learning rate runs its
    whole course over the epochs, or over those that --minutes leaves time for. Ctrl-C keeps the state: the
    same command goes on from there.
    """
    train_and_report(labels, output, settings, name, validation, resume, json)


def train_and_report(
    labels: list[Path],
    output: Path,
    settings: TrainingSettings,
    name: str | None,
    validation: list[Path] | None,
    resume: bool,
    json: bool,
    train: "Callable[..., Trained] | None" = None,
) -> None:
    """The verb; `train` stands in for the training of this machine."""
    # PyTorch takes seconds to import and is not there on a camera: only this verb pays for it.
    from accmpeg.training import checkpoint_path, train_accmodel

    if resume and checkpoint_path(output).exists():
        err.print(f"going on from {checkpoint_path(output)}", soft_wrap=True)
    with progress_bar() as bar:
        task = bar.add_task("train", total=100)
        plan = _Plan(settings)

        def show(progress: "Progress") -> None:
            plan.announce(progress)
            bar.update(task, completed=int(100 * progress.fraction), description=_status(progress))

        card = train_accmodel(
            labels,
            out=output,
            settings=settings,
            name=name,
            validation=validation or (),
            restart=not resume,
            progress=show,
            **({} if train is None else {"train": train}),
        )
    warn_of(card)
    if json:
        print_json(card.model_dump(mode="json"))
    else:
        _report(card, output, settings)


class _Plan:
    """Says once, as soon as the speed of this machine is known, what the training will take on it."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings
        self._said = False

    def announce(self, progress: "Progress") -> None:
        if self._said or math.isnan(progress.epoch_s):
            return
        self._said = True
        asked, minutes = self._settings.epochs, self._settings.minutes
        whole_s = (asked - progress.epoch) * progress.epoch_s
        text = f"{asked} epochs take {_duration(whole_s)} on this machine as busy as it is now"
        if minutes is not None and progress.epochs < asked:
            text = (
                f"--minutes {minutes:g} leaves time for about {progress.epochs:.1f} of {asked} epochs on "
                f"this machine as busy as it is now; all would take {_duration(whole_s)}"
            )
        err.print(text, soft_wrap=True)


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {max(1.0, seconds):.0f} s"


def _status(progress: "Progress") -> str:
    quality = "" if progress.quality is None else f" top share {progress.quality.top_share:.3f}"
    planned = "" if math.isnan(progress.epochs) else f" of {progress.epochs:.1f}"
    return f"epoch {progress.epoch:.1f}{planned} loss {progress.loss:.3f}{quality}"


def _ending(record: "TrainingRecord", settings: TrainingSettings) -> str:
    """Whether the schedule was completed, for a person."""
    done = f"{record.epochs:g} of {settings.epochs} epochs"
    if record.ended == "minutes":
        whole = record.minutes / max(record.epochs, 1e-6) * settings.epochs
        return (
            f"schedule shortened: {done}, because --minutes {settings.minutes:g} was up; the learning rate "
            f"ran its whole course over them (all {settings.epochs} take about {whole:.0f} min here)"
        )
    if record.ended == "no improvement":
        return f"schedule ended early: {done}; the last {settings.patience} brought held-out clips nothing"
    return f"schedule completed: {done}"


def _report(card: "AccModelCard", output: Path, settings: TrainingSettings) -> None:
    assert card.cost is not None
    assert card.training is not None
    out.print(
        f"{output}: {card.cost.macs / 1e9:.3f} GMAC, {card.cost.parameters / 1e3:.0f} k parameters, "
        f"{card.cost.ms:.1f} ms per map of {card.cost.width_px}x{card.cost.height_px} on one core; "
        f"{card.training.epochs:g} epochs of {card.training.frames} frames, {card.training.minutes:.1f} min",
        soft_wrap=True,
    )
    out.print(_ending(card.training, settings), soft_wrap=True)
    for quality in card.quality:
        objects = (
            ""
            if quality.objects_iou is None
            else f", objects IoU {quality.objects_iou:.2f}, recall {quality.objects_recall or 0:.2f}"
        )
        share = quality.top_share_all if quality.top_share is None else quality.top_share
        out.print(
            f"{quality.footage} ({quality.frames} frames): top-20 % share {share or 0:.3f}, "
            f"{quality.top_share_all or 0:.3f} with frames that show no object, "
            f"correlation with log AccGrad {quality.log_correlation or 0:.2f}{objects}",
            soft_wrap=True,
        )
