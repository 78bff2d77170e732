"""Server and camera left running: memory, lost frames and queues, sampled all the while.

    python benchmarks/live_soak.py --minutes 30 --samples soak.jsonl

Every sample is a line of JSON in the file as soon as it is taken, so that a run that was cut short can be
read (`--read soak.jsonl`). Memory growth is that of the resident set after the first 5 minutes (of a short
run: its first third): mean of the last tenth of the samples against mean of as many after that time. Targets:
at most 2 % on each side, no frame lost.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from accmpeg.options import parse_size
from live_options import FrameRate, Frames, ServerOptions, Size, Work
from live_programs import (
    Program,
    SceneFile,
    busy_s,
    camera_arguments,
    lost_frames,
    machine,
    scrape,
    start_camera,
    start_server,
    total,
)

SETTLE_MINUTES = 5.0
GROWTH_LIMIT = 0.02


def samples(
    camera: Program, server: Program, address: str, seconds: float, every_s: float
) -> Iterator[dict[str, Any]]:
    """One every so often, for as long as asked; the last one when it is over."""
    started_s = time.monotonic()
    taken = 0
    while (now_s := time.monotonic() - started_s) <= seconds:
        camera.check()
        server.check()
        metrics = scrape(address)
        yield {
            "at_s": round(now_s, 2),
            "camera_rss": camera.rss_bytes(),
            "server_rss": server.rss_bytes(),
            "camera_cpu_s": camera.cpu_s(),
            "server_cpu_s": server.cpu_s(),
            "busy_s": busy_s(),
            "dnn_queue": total(metrics, "accmpeg_queue_frames"),
            "unanswered": total(metrics, "accmpeg_camera_waiting"),
            "frames": total(metrics, "accmpeg_camera_frames_total"),
            "results": total(metrics, "accmpeg_camera_results_total"),
            "decode_errors": total(metrics, "accmpeg_camera_decode_errors_total"),
            "camera": statistics(camera),
        }
        taken += 1
        time.sleep(max(0.0, started_s + taken * every_s - time.monotonic()))


def statistics(camera: Program) -> dict[str, Any]:
    """The camera's counters, as it logged them last."""
    said = camera.last("statistics", "camera ended")
    return {key: value for key, value in said.items() if key not in ("time", "level", "event")}


def growth(taken: list[dict[str, Any]], side: str) -> float:
    """Relative growth of a side's resident set after the settling time; NaN for too few samples."""
    seconds = taken[-1]["at_s"]
    settle_s = min(SETTLE_MINUTES * 60, seconds / 3)
    kept = [each[f"{side}_rss"] for each in taken if each["at_s"] >= settle_s]
    if len(kept) < 2:
        return float("nan")
    width = max(1, len(kept) // 10)
    return float(sum(kept[-width:]) / sum(kept[:width]) - 1)


def report(console: Console, taken: list[dict[str, Any]], ended: dict[str, Any]) -> None:
    """Prints what the samples say."""
    first, last = taken[0], taken[-1]
    minutes = last["at_s"] / 60
    counts = ended or last["camera"]
    table = Table("", "camera", "server", box=None)
    sides = ("camera", "server")
    table.add_row("resident set at the end, MiB", *(f"{last[f'{side}_rss'] / 2**20:.1f}" for side in sides))
    table.add_row(
        f"growth after {min(SETTLE_MINUTES, minutes / 3):.1f} min (target ≤ {GROWTH_LIMIT:.0%})",
        *(f"{growth(taken, side):+.2%}" for side in sides),
    )
    lasted_s = max(1e-9, last["at_s"] - first["at_s"])
    spent_s = [last[f"{side}_cpu_s"] - first[f"{side}_cpu_s"] for side in sides]
    table.add_row("CPU, of one core", *(f"{each / lasted_s:.0%}" for each in spent_s))
    others_s = last["busy_s"] - first["busy_s"] - sum(spent_s)
    console.print(
        f"{minutes:.1f} minutes, {len(taken)} samples; {machine()}, everything else took "
        f"{others_s / lasted_s:.0%} of a core"
    )
    console.print(table)
    console.print(
        f"frames captured {counts.get('captured', 0)}, results {counts.get('results', 0)}, "
        f"lost {lost_frames(counts) or 0} (target 0), connections {counts.get('connections', 0)}, "
        f"decode errors {last['decode_errors']:g}"
    )
    console.print(
        f"deepest queues: DNN {max(each['dnn_queue'] for each in taken):g}, received and not answered "
        f"{max(each['unanswered'] for each in taken):g}, held by the camera "
        f"{max(each['camera'].get('held_bytes', 0) for each in taken) / 1024:.0f} KiB"
    )


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    every_s: Annotated[float, typer.Option(help="Time between two samples.")] = 5.0,
    size: Size = "1280x720",
    frame_rate: FrameRate = 30,
    frames: Frames = 150,
    samples_file: Annotated[
        Path, typer.Option("--samples", help="Samples go here, a JSON line each.")
    ] = Path("live-soak.jsonl"),
    read: Annotated[
        bool, typer.Option("--read", help="Only report on the samples of an earlier run.")
    ] = False,
    server_option: ServerOptions = None,
    work: Work = None,
) -> None:
    """Print growth of memory, lost frames, and the deepest queues."""
    console = Console(soft_wrap=True)
    ended: dict[str, Any] = {}
    if read:
        taken = [json.loads(line) for line in samples_file.read_text().splitlines()]
        report(console, taken, ended)
        return
    taken = []
    with tempfile.TemporaryDirectory() as temporary, samples_file.open("w") as file:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scene = SceneFile(folder, *parse_size(size), frame_rate, frames)
        server, address = start_server(folder, *(server_option or []), results=False)
        with server:
            options = [*camera_arguments(scene), "--results", "none", "--statistics-s", str(every_s)]
            with start_camera(folder, address, *options) as camera:
                while not total(scrape(address), "accmpeg_camera_results_total"):
                    camera.check()
                    time.sleep(0.1)
                for sample in samples(camera, server, address, minutes * 60, every_s):
                    taken.append(sample)
                    file.write(json.dumps(sample) + "\n")
                    file.flush()
            ended = statistics(camera)
    report(console, taken, ended)


if __name__ == "__main__":
    typer.run(main)
