"""The tail of the delay at equal answers: ours against the best other system on each clip.

    python benchmarks/delay_tail.py results/yolo11n --target 0.9

Reads the findings of a sweep (`accmpeg report FOLDER` writes them). On each clip and link, p95 of the delay
is read where a method reaches the target. The rival is whichever of --rivals has the least there, chosen on
the same clip, which favours the rivals; ours are fixed beforehand. Clips where a method's stream does not fit
the link, or the target is not reached, are counted, not guessed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

RIVALS = "aq-1,awstream,dds,eaar,vigil,glimpse,reducto,cloudseg"
OURS = "aq-1@dnn,graded@dnn,feedback@dnn"


def main(
    folder: Annotated[Path, typer.Argument(help="Of a sweep, with its findings.json.")],
    target: Annotated[float, typer.Option(help="Share of the ceiling: 0.80, 0.81 … 0.95.")] = 0.9,
    reference: Annotated[str, typer.Option(help="The score's reference.")] = "confirmed",
    rivals: Annotated[str, typer.Option(help="Comma-separated methods.")] = RIVALS,
    ours: Annotated[str, typer.Option(help="Comma-separated methods.")] = OURS,
    clips: Annotated[str | None, typer.Option(help="Comma-separated; all if absent.")] = None,
) -> None:
    """Print a table for each link."""
    file = folder / "findings.json"
    if not file.exists():
        raise SystemExit(f"delay_tail: there is no {file}: run accmpeg report {folder}")
    findings = json.loads(file.read_text())
    (dnn,) = findings["dnns"]
    (found,) = (each for each in dnn["references"] if each["reference"] == reference)
    names = clips.split(",") if clips else [each["clip"] for each in found["clips"]]
    bps = {(each["clip"], each["method"]): each["at"].get(f"{target:g}") for each in found["curves"]}
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for point in dnn["points"]:
        if point["role"] == "method":
            points.setdefault((point["clip"], point["method"]), []).append(point)
    links = sorted(findings["links_bps"].items(), key=lambda item: item[1])
    for link, _ in links:
        p95 = {key: p95_ms(points.get(key, []), bps.get(key), link) for key in bps}
        print(f"\n{link}, p95 of the delay in ms at {target:.0%} of the ceiling, {len(names)} clips")
        print(f"{'method':<16}{'clips':>6}{'median':>9}")
        for method in [*rivals.split(","), *ours.split(",")]:
            known = [value for clip in names if (value := p95.get((clip, method))) is not None]
            print(f"{method:<16}{len(known):>6}{median(known) if known else float('nan'):>9.0f}")
        for method in ours.split(","):
            print(against(method, rivals.split(","), names, p95))


def p95_ms(points: list[dict[str, Any]], bitrate_bps: float | None, link: str) -> float | None:
    """Read at a bitrate between points whose delay is known; None beyond them."""
    known = sorted(
        (point["bitrate_bps"], point["delays"][link]["p95_ms"]) for point in points if link in point["delays"]
    )
    if bitrate_bps is None or not known or not known[0][0] <= bitrate_bps <= known[-1][0] * (1 + 1e-6):
        return None
    at, delays = zip(*known, strict=True)
    return float(np.interp(np.log(bitrate_bps), np.log(at), delays))


def against(
    method: str, rivals: list[str], clips: list[str], p95: Mapping[tuple[str, str], float | None]
) -> str:
    """A line: the median over clips of the change from the best rival, and who that was."""
    changes, best_of, alone, lost = [], [], 0, 0
    for clip in clips:
        there = {rival: value for rival in rivals if (value := p95.get((clip, rival))) is not None}
        mine = p95.get((clip, method))
        if mine is not None and there:
            best = min(there, key=lambda rival: there[rival])
            best_of.append(best)
            changes.append(100 * (mine / there[best] - 1))
        alone += mine is not None and not there
        lost += mine is None and bool(there)
    if not changes:
        return f"  {method}: no clip to compare"
    who = ", ".join(f"{name} on {best_of.count(name)}" for name in sorted(set(best_of)))
    return (
        f"  {method} against the best of them on each clip: median {median(changes):+.0f} %, "
        f"{min(changes):+.0f} to {max(changes):+.0f} ({len(changes)} clips; the best is {who}); "
        f"it alone has a delay on {alone}, only a rival on {lost}"
    )


if __name__ == "__main__":
    typer.run(main)
