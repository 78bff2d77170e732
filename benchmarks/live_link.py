"""A live stream over a thin link whose bandwidth steps down and up, ours beside fixed rates and constant QP.

    python benchmarks/live_link.py [--steps 2,1,0.5,1,2] [--step-s 15] [--json F]

```
accmpeg stream ──▶ ShapingProxy: 20 ms each way, 64 KiB queue, the step's bandwidth ──▶ accmpeg serve
```
Real programs, real sockets. Rows:
- AccMPEG: `--bitrate auto --delay-budget-ms 300`, steered;
- x264 at 1 Mbit/s, newest wins: our camera with `--bitrate 1M --policy none`;
- x264 at 1 Mbit/s, every frame: the same with `--drop none`, as a plain streamer does;
- x264 at constant QP, every frame: encoded before and replayed through the camera's own client, at the QP
  whose mean rate comes nearest to 1 Mbit/s from below.

The delay is from capture to arrival at the server, which is what the budget bounds; the server DNN's time is
not the link's. Of each step the first 3 s are left out of its p95, and frames belong to the step in which
they were captured. A stall is the longest time without an arrival. "on time" is the share of the frames of a
step's time that arrived within the budget. F1 is that of the answers against the same DNN on the pristine
frames, over the answered frames of the step: late ones count as if they had been in time.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from accmpeg.demo import assets_path
from accmpeg.dnn.base import load_dnn
from accmpeg.evaluation.link.link import Link
from accmpeg.options import parse_size
from accmpeg.tasks.result_json import from_json
from live_programs import (
    SceneFile,
    camera_arguments,
    lines,
    machine,
    percentiles,
    start_camera,
    start_server,
)
from live_replay import encoded, replay

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from linklab.shaper import ShapingProxy
from live_options import FrameRate, Frames, JsonFile, Size, Work

SETTLE_S = 3.0
PROPAGATION_MS = 20.0
DOWNLINK_BPS = 20e6
"""Results are no smaller for a thin uplink, and mobile links carry more downwards."""


@dataclass(frozen=True)
class StepFigures:
    """One step of one run. NaN where nothing arrived."""

    link_mbps: float
    p50_ms: float
    p95_ms: float
    stall_ms: float
    on_time_share: float
    received_per_s: float
    sent_mbps: float
    f1: float


Run = Callable[[str, float], Coroutine[Any, Any, None]]
"""Connects to an address, and streams for so many seconds from then on."""


def program_run(folder: Path, scene: SceneFile, options: list[str], *, steered: bool) -> Run:
    """A run of `accmpeg stream`."""

    async def run(address: str, seconds: float) -> None:
        arguments = [*camera_arguments(scene, steered=steered), "--results", "none", *options]
        with start_camera(folder, address, *arguments) as camera:
            while not camera.last("connected"):
                camera.check()
                await asyncio.sleep(0.05)
            await asyncio.sleep(seconds)
            camera.check()
            await asyncio.to_thread(camera.stop)

    return run


def replay_run(scene: SceneFile, rate_bps: float) -> tuple[Run, int]:
    """A run of the scene at the least constant QP whose mean rate is within a given one, and that QP."""
    low, high, chosen = 0, 51, encoded(scene, qp=51)
    while low < high:
        qp = (low + high) // 2
        recording = encoded(scene, qp=qp)
        if recording.bitrate_bps <= rate_bps:
            high, chosen = qp, recording
        else:
            low = qp + 1

    async def run(address: str, seconds: float) -> None:
        await replay(chosen, address, seconds=seconds, drop="none")

    return run, high


async def over_link(
    run: Run, address: str, steps_mbps: list[float], step_s: float
) -> tuple[list[int], list[int]]:
    """Streams through the proxy; gives when each step began (µs) and the bytes let through until then, and
    both for the end of the last step."""
    host, port = address.split(":")
    links = [
        Link(bandwidth_bps=mbps * 1e6, downlink_bps=DOWNLINK_BPS, propagation_ms=PROPAGATION_MS)
        for mbps in steps_mbps
    ]
    starts_us, carried = [], []
    async with ShapingProxy((host, int(port)), links[0]) as proxy:
        # The start, at the first step's rate, is part of no step.
        streaming = asyncio.create_task(run(f"127.0.0.1:{proxy.port}", SETTLE_S + step_s * len(links)))
        while not proxy.uplink_bytes and not streaming.done():
            await asyncio.sleep(0.02)
        await asyncio.sleep(SETTLE_S)
        for link in links:
            proxy.set_link(link)
            starts_us.append(time.time_ns() // 1000)
            carried.append(proxy.uplink_bytes)
            await asyncio.sleep(step_s)
        starts_us.append(time.time_ns() // 1000)
        carried.append(proxy.uplink_bytes)
        proxy.set_link(Link(bandwidth_bps=100e6))  # what is queued need not take minutes
        await streaming
    return starts_us, carried


def arrivals(folder: Path) -> list[dict[str, Any]]:
    """What the server says of every frame, with its `delay_ms` from capture to arrival."""
    return [
        {**event, "delay_ms": (event["received_us"] - event["captured_us"]) / 1000}
        for event in lines(folder / "server-results.jsonl")
    ]


def step_figures(
    rows: list[dict[str, Any]],
    starts_us: list[int],
    carried: list[int],
    steps_mbps: list[float],
    scene: SceneFile,
    budget_ms: float,
    f1_of: Callable[[list[dict[str, Any]]], float],
) -> list[StepFigures]:
    """Figures of every step after its settling time."""
    found = []
    nan = float("nan")
    for index, mbps in enumerate(steps_mbps):
        begin_us, end_us = starts_us[index], starts_us[index + 1]
        settled_us = min(begin_us + int(SETTLE_S * 1e6), (begin_us + end_us) // 2)
        captured = [row for row in rows if settled_us <= row["captured_us"] < end_us]
        times_us = sorted(row["received_us"] for row in rows if begin_us <= row["received_us"] < end_us)
        gaps = [b - a for a, b in zip([begin_us, *times_us], [*times_us, end_us], strict=True)]
        delays = [row["delay_ms"] for row in captured]
        p50_ms, p95_ms, _ = percentiles(delays) if delays else (nan, nan, nan)
        seconds = (end_us - settled_us) / 1e6
        found.append(
            StepFigures(
                link_mbps=mbps,
                p50_ms=p50_ms,
                p95_ms=p95_ms,
                stall_ms=max(gaps) / 1000,
                on_time_share=sum(each <= budget_ms for each in delays) / (seconds * scene.frame_rate),
                received_per_s=len(times_us) / ((end_us - begin_us) / 1e6),
                sent_mbps=(carried[index + 1] - carried[index]) * 8 / (end_us - begin_us),
                f1=f1_of(captured),
            )
        )
    return found


def f1_against_pristine(scene: SceneFile) -> Callable[[list[dict[str, Any]]], float]:
    """Scores rows by the detector's own results on the drawn frames."""
    dnn = load_dnn(assets_path() / "detector.card.toml", threads=1)
    references = [dnn.infer(frame) for frame in scene.drawn_frames()]

    def f1(rows: list[dict[str, Any]]) -> float:
        answered = [row for row in rows if row["result"] is not None]
        if not answered:
            return float("nan")
        results = [from_json(row["result"]) for row in answered]
        # The camera's timestamps go on rising over the repetitions of the file.
        wanted = [references[scene.drawn_index(row["pts"])] for row in answered]
        return float(dnn.task.clip_accuracy(results, wanted).extras["f1"])

    return f1


def main(
    steps: Annotated[str, typer.Option(help="Bandwidths in Mbit/s, in order.")] = "2,1,0.5,1,2",
    step_s: Annotated[float, typer.Option(help="Seconds of each.")] = 15.0,
    budget_ms: Annotated[
        float, typer.Option(help="Delay budget of AccMPEG; for the share on time of all.")
    ] = 300.0,
    size: Size = "1280x720",
    frame_rate: FrameRate = 30,
    frames: Frames = 150,
    fixed: Annotated[str, typer.Option(help="Rate of the streams beside ours, in Mbit/s.")] = "1",
    only: Annotated[str, typer.Option(help="Run only the rows whose name contains this.")] = "",
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print p95 delay, stalls, frames on time and F1 of every step, for every way to stream."""
    console = Console(soft_wrap=True)
    steps_mbps = [float(each) for each in steps.split(",")]
    figures: dict[str, list[StepFigures]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        f1_of = f1_against_pristine(scene)
        plain = ["--bitrate", f"{fixed}M"]
        auto = ["--bitrate", "auto", "--delay-budget-ms", str(budget_ms)]
        runs: dict[str, Run] = {
            "AccMPEG": program_run(folder, scene, auto, steered=True),
            f"x264 {fixed} Mbit/s, newest wins": program_run(folder, scene, plain, steered=False),
            f"x264 {fixed} Mbit/s, every frame": program_run(
                folder, scene, [*plain, "--drop", "none"], steered=False
            ),
        }
        if only in "x264 constant QP, every frame":
            constant, qp = replay_run(scene, float(fixed) * 1e6)
            runs[f"x264 constant QP {qp}, every frame"] = constant
        for name, run in runs.items():
            if only not in name and not name.startswith("x264 constant"):
                continue
            server, address = start_server(folder)
            with server:
                starts_us, carried = asyncio.run(over_link(run, address, steps_mbps, step_s))
            rows = arrivals(folder)
            figures[name] = step_figures(rows, starts_us, carried, steps_mbps, scene, budget_ms, f1_of)
    console.print(
        f"{size}, {frame_rate} frames/s, {step_s:g} s per step, budget {budget_ms:g} ms; {machine()}"
    )
    columns = ("Mbit/s", "p50 ms", "p95 ms", "stall ms", "on time", "frames/s", "sent Mbit/s", "F1")
    for name, found in figures.items():
        table = Table(*columns, box=None)
        for each in found:
            table.add_row(
                f"{each.link_mbps:g}",
                f"{each.p50_ms:.0f}",
                f"{each.p95_ms:.0f}",
                f"{each.stall_ms:.0f}",
                f"{each.on_time_share:.0%}",
                f"{each.received_per_s:.1f}",
                f"{each.sent_mbps:.2f}",
                f"{each.f1:.3f}",
            )
        kept = all(each.p95_ms <= budget_ms and each.stall_ms <= 1000 for each in found)
        console.print(
            f"\n{name}: budget and stalls below 1 s {'kept' if kept else 'NOT kept'}, mean F1 "
            f"{statistics.mean(each.f1 for each in found):.3f}"
        )
        console.print(table)
    if json_file is not None:
        document = {name: [asdict(each) for each in found] for name, found in figures.items()}
        json_file.write_text(json.dumps({"runs": document, "machine": machine()}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
