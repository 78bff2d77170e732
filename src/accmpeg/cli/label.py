"""`accmpeg label`: accuracy-gradient labels from footage, for `accmpeg train`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from accmpeg.cli.common import AsJson, err, out, print_json, progress_bar
from accmpeg.training.settings import LabelSettings, Sampling

__all__ = ["label"]

_REASONS_SHOWN = 10


def label(
    footage: Annotated[
        list[str], typer.Argument(metavar="FOOTAGE", help="Videos, folders of pictures, pictures.")
    ],
    dnn: Annotated[Path, typer.Option(help="Server DNN card (NAME.card.toml).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the labels.")],
    sampling: Sampling,
    settings: LabelSettings,
    workers: Annotated[
        int | None, typer.Option(help="Processes.", show_default="as many as cores, 8 at most; on a GPU 1")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete the labels in the folder first.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Label footage with the accuracy gradients of a server DNN.

    The same command goes on where an interrupted one stopped.
    """
    # PyTorch takes seconds to import and is not there on a camera: only this verb pays for it.
    from accmpeg.training import label_footage

    with progress_bar() as progress:
        bar = progress.add_task("label", total=None)
        report = label_footage(
            footage,
            dnn=dnn,
            out=output,
            settings=settings,
            sampling=sampling,
            workers=workers,
            device=device,
            restart=restart,
            progress=lambda done, expected: progress.update(bar, completed=done, total=expected),
        )
    for reason in report.reasons[:_REASONS_SHOWN]:
        err.print(f"skipped: {reason}", style="yellow", soft_wrap=True)
    if json:
        print_json(
            {
                "labels": report.new + report.kept,
                "new": report.new,
                "skipped": report.skipped,
                "reasons": report.reasons,
                "flat": report.flat,
                "seconds": round(report.seconds, 3),
                "ms_per_frame": None if math.isnan(report.ms_per_frame) else round(report.ms_per_frame, 2),
            }
        )
        return
    speed = "" if math.isnan(report.ms_per_frame) else f", {report.ms_per_frame:.0f} ms per new label"
    if report.flat:
        err.print(
            f"{report.flat} of {report.new} new labels are the same for all macroblocks: the server DNN "
            "found nothing there that depends on them",
            style="yellow",
            soft_wrap=True,
        )
    out.print(
        f"{report.new + report.kept} labels in {output} ({report.new} new), {report.skipped} skipped"
        f"{f' (named in {output}/manifest.json)' if report.skipped else ''}, {report.seconds:.0f} s{speed}",
        soft_wrap=True,
    )
