"""One worker, two workers, and two servers: what each answers, with the same cameras, in turns.

    python benchmarks/live_workers.py [--rounds 12] [--seconds 4] [--json F]

Cameras are replayed access units through the real camera client, so fast that the DNN is saturated; the
newest frame wins. Every copy of the DNN has one thread. All servers run from the start, and the set-ups take
turns within each round, because other work on the machine comes and goes. Ratios are taken within a round,
and their median is the figure.

| set-up      | what runs                                                                  |
|-------------|----------------------------------------------------------------------------|
| 1 worker    | `--workers 1 --copies 1`: at most one core for the DNN                     |
| 2 workers   | `--workers 2 --copies 1`: a batcher and a copy of the DNN each             |
| 2 copies    | `--workers 1 --copies 2`: one batcher, two copies                          |
| 2 servers   | two processes of one worker each, half of the cameras each                 |
"""

import asyncio
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from accmpeg.options import parse_bitrate, parse_size
from live_many import load
from live_options import JsonFile, Work
from live_programs import Program, SceneFile, machine, start_server
from live_replay import Recording, encoded

SET_UPS = {
    "1 worker": [["--workers", "1", "--copies", "1"]],
    "2 workers": [["--workers", "2", "--copies", "1"]],
    "2 copies": [["--workers", "1", "--copies", "2"]],
    "2 servers": 2 * [["--workers", "1", "--copies", "1"]],
}


Servers = list[tuple[Program, str]]


def measure(
    servers: Servers, recording: Recording, cameras: int, rate: float, seconds: float
) -> dict[str, Any]:
    """What the servers of one set-up answer together."""

    async def loads() -> list[dict[str, Any]]:
        share = cameras // len(servers)
        return await asyncio.gather(
            *(load(*server, recording, share, rate, seconds, warm_up_s=1.5) for server in servers)
        )

    found = asyncio.run(loads())
    answered = [count for each in found for count in each["results_by_camera"]]
    results_per_s = sum(each["results_per_s"] for each in found)
    cores = sum(each["server_core_share"] for each in found)
    return {
        "results_per_s": results_per_s,
        "cores": cores,
        "per_cpu_s": results_per_s / cores,
        "fairness": min(answered) / (sum(answered) / len(answered)),
        "fed_per_s": sum(each["fed_per_s"] for each in found),
    }


def main(
    cameras: Annotated[int, typer.Option(help="How many.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often each set-up is measured.")] = 12,
    seconds: Annotated[float, typer.Option(help="Measured time of each.")] = 4.0,
    rate: Annotated[float, typer.Option(help="Frames per second of each camera.")] = 40.0,
    size: Annotated[str, typer.Option(help="Size of every stream.")] = "320x180",
    bitrate: Annotated[str, typer.Option(help="Of every stream.")] = "250k",
    work: Work = None,
    json_file: JsonFile = None,
) -> None:
    """Print results per second of each set-up, and as a ratio to one worker in the same round."""
    console = Console(soft_wrap=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SET_UPS}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recording = encoded(SceneFile(folder, *parse_size(size), 10, 60), bitrate_bps=parse_bitrate(bitrate))
        servers: dict[str, Servers] = {name: [] for name in SET_UPS}
        for name, each in SET_UPS.items():
            for number, options in enumerate(each):
                place = folder / f"{name}-{number}".replace(" ", "-")
                place.mkdir(exist_ok=True)
                program, address = start_server(place, "--threads", "1", *options, results=False)
                servers[name].append((stack.enter_context(program), address))
        for number in range(rounds):
            # Every second round backwards: what drifts through a round must not favour one of them.
            for name in list(SET_UPS)[:: -1 if number % 2 else 1]:
                found[name].append(measure(servers[name], recording, cameras, rate, seconds))
    console.print(f"{cameras} cameras of {size} at {rate:g} frames/s; {machine()}")
    table = Table("", "results/s", "to 1 worker", "cores", "results per CPU s", "slowest/mean", box=None)
    for name, rows in found.items():
        pairs = zip(rows, found["1 worker"], strict=True)
        ratios = [row["results_per_s"] / one["results_per_s"] for row, one in pairs]
        values = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        table.add_row(
            name,
            f"{values['results_per_s']:.1f}",
            f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]",
            f"{values['cores']:.2f}",
            f"{values['per_cpu_s']:.1f}",
            f"{values['fairness']:.0%}",
        )
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine(), "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
