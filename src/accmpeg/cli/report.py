"""`accmpeg report`: the report of a sweep, made again from what is on disk."""

from pathlib import Path
from typing import Annotated

import typer

from accmpeg.cli.common import Baselines, out

__all__ = ["report"]


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="The --output folder of accmpeg evaluate."
        ),
    ],
    baseline: Baselines = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Embed the sweep's pictures of frames.")
    ] = True,
) -> None:
    """Write report.html, report.md, findings.json, figures/ and ctc/ from the cells of a sweep."""
    from accmpeg.evaluation import write_report

    path = write_report(folder, baselines=tuple(baseline or ()), pictures=pictures)
    out.print(f"wrote {path}", soft_wrap=True)
