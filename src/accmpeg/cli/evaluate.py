"""`accmpeg evaluate`: every method on every clip, compared fairly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accmpeg.cli.common import (
    AsJson,
    Baselines,
    Labels,
    Reference,
    err,
    out,
    print_json,
    progress_bar,
    warn_of,
)
from accmpeg.cli.sources import EMBEDDED_SCENE
from accmpeg.errors import UsageError
from accmpeg.evaluation.link.link import Link, read_trace
from accmpeg.evaluation.settings import LIVE_LINK, PROPAGATION_MS, SweepSettings

if TYPE_CHECKING:
    from accmpeg.evaluation import CellRow, ClipSpec

__all__ = ["evaluate", "scene_clip"]

_REASONS_SHOWN = 10


def evaluate(
    videos: Annotated[
        list[str],
        typer.Option(help="Videos or folders of them, or 'scene' for the embedded one; may repeat."),
    ],
    dnn: Annotated[list[Path], typer.Option(help="Server DNN card (NAME.card.toml); may repeat.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results; found there, a sweep goes on.")
    ],
    *,
    accmodel: Annotated[
        list[Path] | None, typer.Option(help="AccModel made for one of the server DNNs; may repeat.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Comma-separated names (docs/concepts/methods.md), 'primary', or 'all'.")
    ] = "primary",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look of some minutes: 3 clips, 75 frames, every third measured."),
    ] = False,
    reference: Reference = None,
    labels: Labels = None,
    primary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD[:BASELINE]",
            help="Comparison named beforehand, the only kind that is tested; may repeat.",
            show_default="the primary methods against aq-1",
        ),
    ] = None,
    baseline: Baselines = None,
    points: Annotated[
        str | None,
        typer.Option(
            metavar="QP,QP,…",
            help="QPs or CRFs for every method; streams at the DNN's size run 6 lower.",
            show_default="chosen as it goes, between 80 and 98 % of the ceiling",
        ),
    ] = None,
    settings: SweepSettings,
    server_ms: Annotated[
        str, typer.Option(help="One pass of the server DNN in ms, or 'measured' for this machine's time.")
    ] = "10",
    server_cores: Annotated[
        int, typer.Option(min=1, help="Cores of the server with --server-ms measured.")
    ] = 2,
    link: Annotated[
        float, typer.Option(min=0.01, metavar="MBIT/S", help="Link that brings feedback to the camera.")
    ] = 4.0,
    trace: Annotated[
        list[Path] | None, typer.Option(help="Also emulate a link by this Mahimahi trace; may repeat.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="as many as cores")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure failed cells again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods on clips: bytes and delay at equal answers, camera cost, with intervals and a report.

    The same command goes on where an interrupted one stopped. A cell that fails is in the report with its
    reason; the exit code is 1 where all of them do.
    """
    # Long because every option that is no setting stands in the signature, once.
    from accmpeg.evaluation import evaluate as run_evaluation

    measured, time_ms = _server(server_ms)
    settings = replace(
        settings,
        qualities=_qualities(points),
        server_ms=time_ms,
        server_cores=server_cores if measured else None,
        live_link=replace(LIVE_LINK, bandwidth_bps=link * 1e6),
        links=settings.links | _traced(trace or ()),
    )
    for model in accmodel or ():
        warn_of(model)
    with progress_bar() as bar:
        task = bar.add_task("cells", total=None)
        done = run_evaluation(
            [scene_clip() if video == EMBEDDED_SCENE else video for video in videos],
            dnns=dnn,
            out=output,
            accmodels=accmodel or (),
            reference=reference,
            labels=labels,
            methods=methods,
            primary=primary or (),
            baselines=baseline or (),
            settings=settings,
            quick=quick,
            workers=workers,
            retry_failed=retry_failed,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
    cells, failed = len(done.cells), len(done.failed)
    reasons = Counter((cell.dnn, cell.method, cell.reason) for cell in done.failed)
    for (name, method, reason), count in reasons.most_common(_REASONS_SHOWN):
        err.print(f"failed: {method} for {name}, {count} cells: {reason}", soft_wrap=True)
    for name in _unjudged(done.cells) if labels else ():
        said = f"--labels judge nothing of {name}: they need boxes, and names of classes that are in its card"
        err.print(f"warning: {said}", style="yellow", soft_wrap=True)
    if as_json:
        print_json({"cells": cells, "failed": failed, "report": str(done.report)})
    else:
        out.print(f"{cells} cells ({failed} failed). Report: {done.report}", soft_wrap=True)
    if failed == cells:
        raise typer.Exit(1)


def _qualities(text: str | None) -> tuple[int, ...]:
    """None for points that are chosen as it goes."""
    try:
        return () if text is None else tuple(int(quality) for quality in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--points {text}: give whole numbers separated by commas, such as 24,32,40"
        ) from error


def _server(text: str) -> tuple[bool, float]:
    """Whether the server's time is measured, and what it takes otherwise."""
    if text == "measured":
        return True, 10.0
    try:
        return False, float(text)
    except ValueError as error:
        raise UsageError(f"--server-ms {text}: give milliseconds, or 'measured'") from error


def _unjudged(cells: Sequence["CellRow"]) -> list[str]:
    """The server DNNs that have scores, but none by true labels."""
    scores = {(cell.dnn, reference) for cell in cells for reference in cell.blocks.counts}
    return sorted({dnn for dnn, _ in scores if (dnn, "labels") not in scores})


def _traced(traces: Sequence[Path]) -> dict[str, Link]:
    names = Counter(path.stem for path in traces)
    if (twice := names.most_common(1)) and twice[0][1] > 1:
        raise UsageError(f"two --trace files are called {twice[0][0]}: rename one, links go by them")
    return {path.stem: Link(trace=read_trace(path), propagation_ms=PROPAGATION_MS) for path in traces}


def scene_clip() -> "ClipSpec":
    """The embedded scene as a clip of a sweep."""
    from accmpeg.demo.clip import embedded_clip
    from accmpeg.evaluation import ClipSpec
    from accmpeg.version import __version__

    return ClipSpec(EMBEDDED_SCENE, f"scene {__version__}", embedded_clip)
