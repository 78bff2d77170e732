"""`accmpeg report`: the report of a sweep, made again from what is on disk."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from accmpeg.cli.common import out

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The --out folder of accmpeg evaluate.")
    ],
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A method to compare with, best-stock or best-stock-any-size; may repeat. "
            "Default: constant-qp and both best-stock.",
        ),
    ] = None,
    band: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LO HI",
            help="Accuracy band for all server DNNs. Default: 0.85 to 0.96 for detection and instances, "
            "all common accuracies for the other tasks.",
        ),
    ] = None,
    pchip: Annotated[
        bool, typer.Option("--pchip", help="Piecewise cubic BD-rates, as in the MPEG test conditions.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Embed the sweep's pictures of frames.")
    ] = True,
) -> None:
    """Write report.html, report.md, figures/*.png and ctc/ from the cells of a sweep."""
    from accmpeg.evaluation.analysis import DEFAULT_BANDS, DEFAULT_BASELINES
    from accmpeg.evaluation.report import write_report
    from accmpeg.tasks import TaskName

    path = write_report(
        folder,
        baselines=tuple(baseline) if baseline else DEFAULT_BASELINES,
        bands=DEFAULT_BANDS if band is None else dict.fromkeys(get_args(TaskName), band),
        pictures=pictures,
        interpolation="pchip" if pchip else "linear",
    )
    out.print(f"wrote {path}", soft_wrap=True)
