"""`accmpeg evaluate`: every method on every clip, compared fairly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accmpeg.cli.common import err, out, print_json, progress_bar, warn_of
from accmpeg.cli.sources import EMBEDDED_SCENE
from accmpeg.errors import SourceError, UsageError

if TYPE_CHECKING:
    from accmpeg.evaluation.bench.plan import ClipSpec

__all__ = ["evaluate", "scene_clip"]

_QUICK_CLIPS = 3
_QUICK_FRAMES = 75
_QUICK_POINTS = 4
_QUICK_STEP = 3
_REASONS_SHOWN = 10


def evaluate(
    videos: Annotated[
        list[str],
        typer.Option(help="Videos or folders of them, or 'scene' for the embedded one; may repeat."),
    ],
    dnn: Annotated[list[Path], typer.Option(help="Server DNN card (NAME.card.toml); may repeat.")],
    output: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results; found there, a sweep goes on.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Card of a stronger DNN that confirms the server DNN's answers.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with true labels, CLIP.json in COCO's detection format.",
        ),
    ] = None,
    label_min_height: Annotated[
        float, typer.Option(min=0, metavar="PX", help="Labelled objects lower than this do not count.")
    ] = 0.0,
    accmodel: Annotated[
        list[Path] | None, typer.Option(help="AccModel made for one of the server DNNs; may repeat.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Comma-separated names (docs/concepts/methods.md), 'primary', or 'all'.")
    ] = "primary",
    primary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD[:BASELINE]",
            help="Comparison named beforehand, the only kind that is tested; may repeat. "
            "Default: the primary methods against aq-1.",
        ),
    ] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Baselines of the tables; may repeat.")] = None,
    points: Annotated[
        str | None,
        typer.Option(
            metavar="QP,QP,…",
            help="QPs or CRFs for every method; streams at the DNN's size run 6 lower. "
            "Default: chosen as it goes, between 80 and 98 % of the ceiling.",
        ),
    ] = None,
    most_points: Annotated[
        int, typer.Option(min=3, help="Operating points of each method on each clip, without --points.")
    ] = 7,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames of each clip; all if absent.")] = None,
    step: Annotated[int, typer.Option(min=1, help="Measure answers on every so many frames.")] = 1,
    every: Annotated[int, typer.Option(min=1, help="Renew quality maps every so many frames.")] = 10,
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
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look of some minutes: 3 clips, 75 frames, every third measured."),
    ] = False,
    pictures: Annotated[
        bool, typer.Option(help="Keep pictures of a frame of each clip, and show them in the report.")
    ] = True,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure failed cells again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare methods on clips: bytes and delay at equal answers, camera cost, with intervals and a report.

    The same command goes on where an interrupted one stopped. A cell that fails is in the report with its
    reason; the exit code is 1 where all of them do.
    """
    from accmpeg.evaluation.bench.plan import PROPAGATION_MS, DnnSpec, SweepSettings
    from accmpeg.evaluation.bench.sweep import run_sweep
    from accmpeg.evaluation.link.link import Link
    from accmpeg.evaluation.methods import find_methods
    from accmpeg.evaluation.report.render import write_report

    if output.exists() and not output.is_dir():
        raise UsageError(f"--out {output} is a file: give a folder")
    measured, time_ms = _server(server_ms)
    settings = SweepSettings(
        points=most_points,
        qualities=_qualities(points),
        limit=limit,
        step=step,
        every=every,
        server_ms=time_ms,
        server_cores=server_cores if measured else None,
        label_min_height_px=label_min_height,
        live_link=Link(bandwidth_bps=link * 1e6, propagation_ms=PROPAGATION_MS),
        pictures=pictures,
    )
    settings = replace(settings, links=settings.links | _traced(trace or ()))
    clips = _clips(videos, labels)
    if quick:
        settings = replace(settings, points=_QUICK_POINTS, limit=_QUICK_FRAMES, step=_QUICK_STEP)
        clips = clips[:_QUICK_CLIPS]
    chosen = find_methods(methods)
    dnns = DnnSpec.read_all(dnn, accmodel or (), reference)
    for spec in dnns:
        if spec.accmodel is not None:
            warn_of(spec.accmodel)
    with progress_bar() as bar:
        task = bar.add_task("cells", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        rows = run_sweep(
            clips,
            dnns,
            chosen,
            output,
            settings,
            primary=primary or (),
            workers=workers,
            retry_failed=retry_failed,
            progress=show,
        )
    failed = [row for row in rows if row.status == "failed"]
    reasons = Counter((row.dnn, row.method, row.reason) for row in failed)
    for (name, method, reason), count in reasons.most_common(_REASONS_SHOWN):
        err.print(f"failed: {method} for {name}, {count} cells: {reason}", soft_wrap=True)
    written = write_report(output, baselines=tuple(baseline or ()), pictures=pictures)
    if as_json:
        print_json({"cells": len(rows), "failed": len(failed), "report": str(written)})
    else:
        out.print(f"{len(rows)} cells ({len(failed)} failed). Report: {written}", soft_wrap=True)
    if len(failed) == len(rows):
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


def _traced(traces: Sequence[Path]) -> dict[str, Any]:
    from accmpeg.evaluation.bench.plan import PROPAGATION_MS
    from accmpeg.evaluation.link.link import Link, read_trace

    return {path.stem: Link(trace=read_trace(path), propagation_ms=PROPAGATION_MS) for path in traces}


def _clips(videos: Sequence[str], labels: Path | None) -> "list[ClipSpec]":
    from accmpeg.evaluation.bench.plan import footage_clips
    from accmpeg.media.source import find_footage

    clips: list[ClipSpec] = []
    if EMBEDDED_SCENE in videos:
        clips.append(scene_clip())
    files = [video for video in videos if video != EMBEDDED_SCENE]
    if files:
        clips += footage_clips(find_footage(files), labels)
    if not clips:
        raise SourceError(f"no clip under {', '.join(videos)}: give videos or folders of numbered pictures")
    return clips


def scene_clip() -> "ClipSpec":
    """The embedded scene as a clip of a sweep."""
    from accmpeg.demo.clip import embedded_clip
    from accmpeg.evaluation.bench.plan import ClipSpec
    from accmpeg.version import __version__

    return ClipSpec(EMBEDDED_SCENE, f"scene {__version__}", embedded_clip)
