"""The delay budget with a neighbour: another program takes half a core of the machine, on and off.

    python benchmarks/live_neighbour.py [--seconds 30] [--busy 0.5] [--budget-ms 300] [--json F]

A real server and a real camera, both processes, talk over loopback: the scene, the demo's detector. After the
warm-up come spans without and with the neighbour, which burns CPU for a share of every 20 ms. The budget is
that of `--delay-budget-ms`: the camera holds p95 of the delay, capture to result, within it, by fewer frames
where the machine can do no more.
"""

import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from accmpeg.options import parse_size
from live_options import CameraOptions, FrameRate, Frames, JsonFile, ServerOptions, Size, Work
from live_programs import (
    SceneFile,
    busy_s,
    camera_arguments,
    lines,
    lost_frames,
    machine,
    percentiles,
    start_camera,
    start_server,
)

PERIOD_S = 0.02


def burn(share: float) -> None:
    """Uses a core for this share of the time, for ever."""
    while True:
        begun_s = time.perf_counter()
        while time.perf_counter() - begun_s < share * PERIOD_S:
            pass
        time.sleep(max(0.0, begun_s + PERIOD_S - time.perf_counter()))


def span(results: Path, cpu: Any, seconds: float) -> dict[str, Any]:
    """Figures of so many seconds from now."""
    begun_us, begun_cpu_s = time.time_ns() // 1000, cpu()
    time.sleep(seconds)
    ended_us, spent_s = time.time_ns() // 1000, cpu() - begun_cpu_s
    time.sleep(3)  # for answers that are on their way
    rows = [row for row in lines(results) if begun_us <= row["captured_us"] <= ended_us]
    answered = [row["delay_ms"] for row in rows if row["result"] is not None]
    p50, p95, p99 = percentiles(answered)
    return {
        "results_per_s": len(answered) / seconds,
        "unanswered": len(rows) - len(answered),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "others_cores": spent_s / seconds,
    }


def main(
    seconds: Annotated[float, typer.Option(help="Measured time of each span.")] = 30.0,
    warm_up_s: Annotated[
        float, typer.Option(help="Time before the first span, and to settle in others.")
    ] = 8.0,
    busy: Annotated[float, typer.Option(help="Share of one core that the neighbour takes.")] = 0.5,
    budget_ms: Annotated[float, typer.Option(help="The delay budget.")] = 300.0,
    size: Size = "1280x720",
    frame_rate: FrameRate = 30,
    frames: Frames = 100,
    camera_option: CameraOptions = None,
    server_option: ServerOptions = None,
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print delays and results a second, without the neighbour, with it, and after it."""
    console = Console(soft_wrap=True)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        server, address = start_server(folder, *(server_option or []), results=False)
        with server:
            options = [*camera_arguments(scene), f"--delay-budget-ms={budget_ms:g}", *(camera_option or [])]
            with start_camera(folder, address, *options) as camera:

                def others_s() -> float:
                    return busy_s() - camera.cpu_s() - server.cpu_s()

                for name in ("alone", "with the neighbour", "after it"):
                    neighbour = multiprocessing.Process(target=burn, args=[busy], daemon=True)
                    if name == "with the neighbour":
                        neighbour.start()
                    time.sleep(warm_up_s)
                    found[name] = span(camera.output, others_s, seconds)
                    if neighbour.pid is not None:
                        neighbour.kill()
                        neighbour.join()
                    camera.check()
                    server.check()
            counts = camera.last("camera ended")
    table = Table(
        "", "results/s", "left out by the server", "p50 ms", "p95 ms", "p99 ms", "others' cores", box=None
    )
    for name, each in found.items():
        table.add_row(
            name,
            f"{each['results_per_s']:.1f}",
            str(each["unanswered"]),
            *(f"{each[rank]:.0f}" for rank in ("p50_ms", "p95_ms", "p99_ms")),
            f"{each['others_cores']:.2f}",
        )
    console.print(f"{size} at {frame_rate} frames/s, a budget of {budget_ms:g} ms; {machine()}")
    console.print(table)
    console.print(f"frames left out, all in all: {lost_frames(counts)}")
    if json_file is not None:
        json_file.write_text(json.dumps({"spans": found, "lost": lost_frames(counts)}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
