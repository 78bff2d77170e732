"""`accmpeg label`: accuracy-gradient labels from footage, for `accmpeg train`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from accmpeg.cli.common import err, out, print_json, progress_bar

__all__ = ["label"]

_REASONS_SHOWN = 10


def label(
    footage: Annotated[list[str], typer.Argument(help="Videos, folders of pictures, pictures.")],
    dnn: Annotated[Path, typer.Option(help="Card of the server DNN (NAME.card.toml).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the labels.")],
    every: Annotated[
        int, typer.Option(help="Label every n-th frame of a video; stills are all labelled.")
    ] = 10,
    limit: Annotated[int | None, typer.Option(help="At most this many frames of a video.")] = None,
    qp_high: Annotated[
        int, typer.Option(help="QP of the high quality, at which the DNN sets the reference.")
    ] = 20,
    qp_low: Annotated[int, typer.Option(help="QP of the low quality.")] = 40,
    at: Annotated[str, typer.Option(help="Take the gradient at the 'low' or the 'high' quality.")] = "low",
    max_side: Annotated[
        int, typer.Option(help="Scale larger frames down to this long side, in pixels.")
    ] = 1280,
    workers: Annotated[int | None, typer.Option(help="Processes; as many as there are cores.")] = None,
    black_box: Annotated[
        int | None, typer.Option(help="Use N inferences per frame in place of the DNN's gradient.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    restart: Annotated[bool, typer.Option(help="Delete the labels in the folder first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Label footage with the accuracy gradients of a server DNN.

    The same command goes on where an interrupted one stopped.
    """
    # PyTorch takes seconds to import and is not there on a camera: only this verb pays for it.
    from accmpeg.media.source import find_footage
    from accmpeg.training.labelling import LabelSettings, Sampling, label_footage

    settings = LabelSettings(qp_high, qp_low, at, max_side, black_box)  # type: ignore[arg-type]
    with progress_bar() as progress:
        bar = progress.add_task("label", total=None)
        report = label_footage(
            dnn,
            find_footage(footage),
            output,
            settings,
            Sampling(every, limit),
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
