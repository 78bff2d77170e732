"""Bytes and accuracy of every method on some clips, one JSON line per cell, resumable.

    python benchmarks/three_clips.py --dnn CARD --accmodel M --out FILE.jsonl [--methods all] CLIP…

Prints a Markdown table per clip: bytes at equal accuracy against constant QP and against x264 with adaptive
quantisation (aq-mode 1), by BD-rate over the accuracies both reach in the band.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from accmpeg.accmodel.runtime import AccModel
from accmpeg.cli.common import progress_bar
from accmpeg.dnn.base import load_dnn
from accmpeg.evaluation.clip import read_clip
from accmpeg.evaluation.methods import MethodContext, OperatingPoint, find_methods
from accmpeg.evaluation.metrics import bd_rate_percent
from accmpeg.evaluation.run import evaluate, reference_results
from accmpeg.media.source import open_source

BASELINES = ("constant-qp", "aq-1")


def main(
    clips: Annotated[list[Path], typer.Argument(help="Clips to compare on.")],
    dnn: Annotated[Path, typer.Option(help="Server DNN card.")],
    accmodel: Annotated[Path, typer.Option(help="AccModel card.")],
    out: Annotated[Path, typer.Option(help="JSON lines, one per cell; cells found there are not run again.")],
    methods: Annotated[str, typer.Option(help="Comma-separated methods, or all.")] = "all",
    points: Annotated[str, typer.Option(help="QPs and CRFs.")] = "22,26,30,34,38,42",
    step: Annotated[int, typer.Option(help="Measure accuracy on every so many frames.")] = 5,
    limit: Annotated[int, typer.Option(help="Frames per clip.")] = 150,
    every: Annotated[int, typer.Option(help="Frames per map.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads of the server DNN.")] = 1,
    band: Annotated[tuple[float, float], typer.Option(help="Accuracies that BD-rate covers.")] = (0.5, 1.0),
) -> None:
    """Run what is missing, then print the tables."""
    chosen = find_methods(methods)
    levels = [int(level) for level in points.split(",")]
    done = {key(row): row for row in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    server_dnn, model = load_dnn(dnn, threads=threads), AccModel.load(accmodel)
    with progress_bar() as progress, out.open("a") as lines:
        task = progress.add_task("cells", total=len(clips) * len(chosen) * len(levels))
        for path in clips:
            with open_source(path) as source:
                clip = read_clip(source, limit=limit)
            context = MethodContext(dnn, model, every)
            references = None
            for method in chosen:
                for level in levels:
                    row: dict[str, Any] = {"clip": path.stem, "method": method.name, "quality": level}
                    if key(row) not in done:
                        if references is None:
                            references = reference_results(clip, server_dnn, step)
                        point = OperatingPoint(quality=level)
                        cell = evaluate(clip, server_dnn, method, point, context, references, step=step)
                        row |= {
                            "bytes": cell.size_bytes,
                            "accuracy": cell.accuracy.value,
                            "per_frame_mean": cell.accuracy.per_frame_mean,
                            **cell.accuracy.extras,
                            "camera_ms_per_frame": cell.camera_ms_per_frame,
                        }
                        done[key(row)] = row
                        lines.write(json.dumps(row) + "\n")
                        lines.flush()
                    progress.advance(task)
    for path in clips:
        print_table(path.stem, [row for row in done.values() if row["clip"] == path.stem], band)


def key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["clip"], row["method"], row["quality"]


def print_table(clip: str, rows: list[dict[str, Any]], band: tuple[float, float]) -> None:
    """One Markdown table: kilobytes and accuracy at each level, and both BD-rates."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["quality"]):
        curves.setdefault(row["method"], []).append(row)
    levels = [row["quality"] for row in next(iter(curves.values()))]
    console = Console(width=200, highlight=False)
    console.print(f"\n### {clip}\n", markup=False)
    heads = " | ".join(f"{level}: kB, acc" for level in levels)
    console.print(f"| method | {heads} | bytes vs constant QP | bytes vs aq-1 |", markup=False)
    console.print("|---" * (len(levels) + 3) + "|", markup=False)
    for method, curve in curves.items():
        cells = " | ".join(f"{row['bytes'] / 1000:.0f}, {row['accuracy']:.3f}" for row in curve)
        rates = " | ".join(bd_text(curve, curves.get(base), band) for base in BASELINES)
        console.print(f"| {method} | {cells} | {rates} |", markup=False)


def bd_text(curve: list[dict[str, Any]], base: list[dict[str, Any]] | None, band: tuple[float, float]) -> str:
    if base is None:
        return "not run"
    sizes, accuracies = [row["bytes"] for row in curve], [row["accuracy"] for row in curve]
    base_sizes, base_accuracies = [row["bytes"] for row in base], [row["accuracy"] for row in base]
    rate = bd_rate_percent(sizes, accuracies, base_sizes, base_accuracies, band=band)
    return "no common accuracy" if rate is None else f"{rate:+.0f} %"


if __name__ == "__main__":
    typer.run(main)
