"""`accmpeg evaluate`: every method on every clip, compared fairly."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accmpeg.cli.common import err, out, print_json, progress_bar
from accmpeg.cli.sources import EMBEDDED_SCENE
from accmpeg.errors import SourceError, UsageError

if TYPE_CHECKING:
    from accmpeg.evaluation.methods import Method
    from accmpeg.evaluation.plan import ClipSpec, DnnSpec, SweepSettings

__all__ = ["evaluate"]

_QUICK_METHODS = "constant-qp,aq-1,graded,graded@dnn"
_QUICK_CLIPS = 3
_QUICK_FRAMES = 60
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
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with true labels, CLIP.json in COCO's detection format.",
        ),
    ] = None,
    accmodel: Annotated[
        list[Path] | None, typer.Option(help="AccModel made for one of the server DNNs; may repeat.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Comma-separated names (docs/methods.md), or all.")] = "all",
    points: Annotated[str, typer.Option(help="QPs or CRFs that every method runs at.")] = "22,27,32,37,42",
    limit: Annotated[int | None, typer.Option(min=1, help="Frames of each clip; all if absent.")] = None,
    step: Annotated[int, typer.Option(min=1, help="Measure accuracy on every so many frames.")] = 3,
    every: Annotated[int, typer.Option(min=1, help="Renew quality maps every so many frames.")] = 10,
    feedback_delay_ms: Annotated[
        float, typer.Option(min=0, help="From a frame's capture to the camera's use of its result.")
    ] = 200.0,
    trace: Annotated[
        list[Path] | None, typer.Option(help="Also emulate a link by this Mahimahi trace; may repeat.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Baselines of the tables; may repeat.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look of about two minutes: 3 clips, 60 frames, 4 methods, 3 points."),
    ] = False,
    pictures: Annotated[
        bool, typer.Option(help="Keep pictures of a frame of each clip, and show them in the report.")
    ] = True,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure failed cells again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Compare methods on clips: bytes, accuracy, camera cost and delay, with intervals and a report.

    The same command goes on where an interrupted one stopped. A cell that fails is in the report with its
    reason; the exit code is 1 where all of them do.
    """
    from accmpeg.evaluation.methods import find_methods
    from accmpeg.evaluation.plan import DnnSpec, SweepSettings
    from accmpeg.evaluation.report import write_report
    from accmpeg.evaluation.sweep import run_sweep

    if output.exists() and not output.is_dir():
        raise UsageError(f"--out {output} is a file: give a folder")
    settings = SweepSettings(
        points=_levels(points),
        limit=limit,
        step=step,
        every=every,
        feedback_delay_s=feedback_delay_ms / 1000,
        pictures=pictures,
    )
    settings = replace(settings, links=settings.links | _traced(trace or ()))
    clips = _clips(videos, labels)
    if quick:
        methods = _QUICK_METHODS if methods == "all" else methods
        settings = replace(settings, points=(24, 32, 40), limit=_QUICK_FRAMES, step=6)
        clips = clips[:_QUICK_CLIPS]
    chosen = find_methods(methods)
    dnns = DnnSpec.read_all(dnn, accmodel or ())
    _write_run(output, clips, dnns, chosen, settings)
    with progress_bar() as bar:
        task = bar.add_task("cells", total=None)
        rows = run_sweep(
            clips,
            dnns,
            chosen,
            output,
            settings,
            workers=workers,
            retry_failed=retry_failed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
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


def _levels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(level) for level in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--points {text}: give whole numbers separated by commas, such as 24,32,40"
        ) from error


def _traced(traces: Sequence[Path]) -> dict[str, Any]:
    from accmpeg.evaluation.link import Link, read_trace
    from accmpeg.evaluation.plan import PROPAGATION_MS

    return {path.stem: Link(trace=read_trace(path), propagation_ms=PROPAGATION_MS) for path in traces}


def _clips(videos: Sequence[str], labels: Path | None) -> "list[ClipSpec]":
    from accmpeg.evaluation.plan import ClipSpec, footage_clips
    from accmpeg.media.source import find_footage

    clips: list[ClipSpec] = []
    if EMBEDDED_SCENE in videos:
        from accmpeg.demo.comparison import embedded_clip
        from accmpeg.version import __version__

        clips.append(ClipSpec(EMBEDDED_SCENE, f"scene {__version__}", embedded_clip))
    files = [video for video in videos if video != EMBEDDED_SCENE]
    if files:
        clips += footage_clips(find_footage(files), labels)
    if not clips:
        raise SourceError(f"no clip under {', '.join(videos)}: give videos or folders of numbered pictures")
    return clips


def _write_run(
    folder: Path,
    clips: "Sequence[ClipSpec]",
    dnns: "Sequence[DnnSpec]",
    methods: "Sequence[Method]",
    settings: "SweepSettings",
) -> None:
    """Settings and versions, for the report."""
    import av
    import numpy
    import onnxruntime

    from accmpeg.version import __version__

    libraries = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    document = {
        "settings": {
            "points": list(settings.points),
            "limit": settings.limit,
            "step": settings.step,
            "every": settings.every,
            "feedback_delay_s": settings.feedback_delay_s,
        },
        "versions": {
            "accmpeg": __version__,
            "python": platform.python_version(),
            "pyav": av.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            **libraries,
        },
        "dnns": {
            spec.card.name: {
                "task": spec.card.task,
                "sha256": spec.card.sha256,
                "accmodel": None if spec.accmodel is None else spec.accmodel.name,
                "accmodel_sha256": None if spec.accmodel is None else spec.accmodel.sha256,
            }
            for spec in dnns
        },
        "clips": {clip.name: {"sha256": clip.sha256} for clip in clips},
        "methods": {method.name: {"source": method.source} for method in methods},
        "links": {name: _plain(asdict(link)) for name, link in settings.links.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(document, indent=2, default=str) + "\n")


def _plain(link: dict[str, Any]) -> dict[str, Any]:
    # A trace may have a hundred thousand entries: their number says enough here.
    return {
        key: f"{len(value)} packets" if isinstance(value, list | tuple) else value
        for key, value in link.items()
        if value is not None
    }
