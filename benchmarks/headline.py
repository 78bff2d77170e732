"""The headline tables of docs/results.md, from the cells of sweeps.

    python benchmarks/headline.py docs/results/yolo11n [--measure f1] [--baseline best-stock]

One Markdown table per baseline: of every method, bytes at equal accuracy (all clips in one curve) and mean
delay at equal accuracy on each link (geometric mean over the clips that have a figure), in per cent, with
bootstrap 95 % intervals over clips. Below it the null comparison and the noise floor. With `--clip`, a table
of measured points instead: kB and accuracy of the methods of the AccMPEG paper and ours on each named clip.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from accmpeg.evaluation.analysis import DEFAULT_BANDS, DnnAnalysis, analyse
from accmpeg.evaluation.rates import PooledRate, Rate
from accmpeg.evaluation.rows import CELLS_NAME, read_rows

POINTS_OF = ("constant-qp", "aq-1", "binary", "graded", "graded@dnn", "oracle-binary", "oracle-graded")


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of accmpeg evaluate.")],
    measure: Annotated[str, typer.Option(help="accuracy, or f1 for detection.")] = "accuracy",
    baseline: Annotated[list[str] | None, typer.Option(help="Baselines; may repeat.")] = None,
    clip: Annotated[list[str] | None, typer.Option(help="Clips to print the points of; may repeat.")] = None,
) -> None:
    """Print the tables."""
    for folder in folders:
        run = json.loads((folder / "run.json").read_text())
        bases = tuple(baseline or ("constant-qp", "best-stock"))
        for analysis in analyse(
            list(read_rows(folder / CELLS_NAME)),
            baselines=bases,
            bands=DEFAULT_BANDS,
            links=run.get("links"),
            interpolation="linear",
        ):
            if analysis.measure != measure:
                continue
            if clip:
                print("\n".join(points(analysis, clip)), end="\n\n")
                continue
            for base in bases:
                print("\n".join(table(analysis, base)), end="\n\n")


def table(analysis: DnnAnalysis, base: str) -> list[str]:
    """The lines of one table."""
    links = analysis.links
    lines = [
        f"{analysis.dnn}, {analysis.accuracy_name}, {len(analysis.clips)} clips, against {base}:",
        "",
        f"| method | bytes | {' | '.join(f'delay, {link}' for link in links)} |",
        "|---" * (2 + len(links)) + "|",
    ]
    for method in analysis.methods:
        delays = (_over_clips(analysis.delay_rates[link][base][method]) for link in links)
        lines.append(f"| {method} | {_pooled(analysis.pooled_rates[base][method])} | {' | '.join(delays)} |")
    if base in analysis.pooled_null:
        null = _pooled(analysis.pooled_null[base])
        lines.append(f"| *null: {base} against itself* | *{null}* |" + " |" * len(links))
    floor = list(analysis.noise_floor.values())
    if floor:
        lines += [
            "",
            f"Noise floor: {min(floor):.2f} to {max(floor):.2f} by clip, mean {np.mean(floor):.3f}.",
        ]
    return lines


def points(analysis: DnnAnalysis, clips: list[str]) -> list[str]:
    """Measured points, from coarse to fine, as kB / accuracy."""
    lines = [f"{analysis.dnn}, kB / {analysis.accuracy_name}:", ""]
    for clip in clips:
        curves = {name: curve for name in POINTS_OF if (curve := analysis.curves.get((clip, name)))}
        most = max((len(curve.rows) for curve in curves.values()), default=0)
        lines += [f"| {clip} |" + " |" * most, "|---" * (1 + most) + "|"]
        for name, curve in curves.items():
            ranked = sorted(curve.rows, key=lambda row: -row.quality)
            cells = [f"{row.bytes / 1000:.0f} / {row.accuracy:.3f}" for row in ranked]
            lines.append(f"| {name} | {' | '.join([*cells, *[''] * (most - len(cells))])} |")
        lines.append("")
    return lines


def _pooled(rate: PooledRate | None) -> str:
    return "–" if rate is None else _figure(rate.percent, rate.interval)


def _over_clips(rate: Rate) -> str:
    if rate.geometric_mean is None:
        return "–"
    return f"{_figure(rate.geometric_mean, rate.interval)} ({len(rate.values)})"


def _figure(percent: float | None, interval: tuple[float, float] | None) -> str:
    if percent is None:
        return "–"
    shown = _signed(percent)
    if interval is None:
        return shown
    low, high = interval
    figure = f"{shown} [{_signed(low)}, {_signed(high)}]"
    return f"**{figure}**" if low * high > 0 else figure


def _signed(value: float) -> str:
    return "0" if round(value) == 0 else f"{value:+.0f}".replace("-", "−")


if __name__ == "__main__":
    typer.run(main)
