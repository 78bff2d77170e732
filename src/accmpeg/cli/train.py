"""`accmpeg train`: an AccModel from accuracy-gradient labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accmpeg.cli.common import err, out, print_json, progress_bar
from accmpeg.errors import UsageError

if TYPE_CHECKING:
    from accmpeg.accmodel.card import AccModelCard
    from accmpeg.accmodel.training import Progress

__all__ = ["train"]


def train(
    labels: Annotated[list[Path], typer.Argument(help="Label folders of one server DNN.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The AccModel, NAME.onnx.")],
    name: Annotated[str | None, typer.Option(help="Name in the card; the file's otherwise.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train for this long, in place of --epochs.", min=0.01)
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the labels.", min=1)] = 40,
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="Label folder to judge the result on; its clips are not trained on."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of another AccModel (NAME.safetensors), which saves time."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and all views.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on from an interrupted run, or start again.")
    ] = True,
    json: Annotated[
        bool, typer.Option("--json", help="Print the card as one JSON document on stdout.")
    ] = False,
) -> None:
    """Train an AccModel from labels, and write it with its card.

    Clips held out of the labels decide when to stop and calibrate the result. Ctrl-C keeps the state: the
    same command goes on from there.
    """
    # PyTorch takes seconds to import and is not there on a camera: only this verb pays for it.
    from accmpeg.accmodel.build import checkpoint_path, train_accmodel
    from accmpeg.accmodel.training import TrainingSettings

    if output.suffix != ".onnx":
        raise UsageError(f"--output {output}: an AccModel is an ONNX file, so give a name that ends in .onnx")
    settings = TrainingSettings(minutes=minutes, epochs=epochs, seed=seed, device=device, init=init)
    if resume and checkpoint_path(output).exists():
        err.print(f"going on from {checkpoint_path(output)}", soft_wrap=True)
    with progress_bar() as bar:
        task = bar.add_task("train", total=100)
        card = train_accmodel(
            labels,
            output,
            settings,
            name=name,
            validation=validation or (),
            restart=not resume,
            progress=lambda p: bar.update(task, completed=int(100 * p.fraction), description=_status(p)),
        )
    if json:
        print_json(card.model_dump(mode="json"))
    else:
        _report(card, output)


def _status(progress: "Progress") -> str:
    quality = "" if progress.quality is None else f" top share {progress.quality.top_share:.3f}"
    return f"epoch {progress.epoch:.1f} loss {progress.loss:.3f}{quality}"


def _report(card: "AccModelCard", output: Path) -> None:
    assert card.cost is not None
    assert card.training is not None
    out.print(
        f"{output}: {card.cost.macs / 1e9:.3f} GMAC, {card.cost.parameters / 1e3:.0f} k parameters, "
        f"{card.cost.ms:.1f} ms per map of {card.cost.width_px}x{card.cost.height_px} on one core; "
        f"{card.training.epochs:g} epochs of {card.training.frames} frames, {card.training.minutes:.1f} min",
        soft_wrap=True,
    )
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
