"""What Ray Serve's proxy costs: the same cameras at `accmpeg serve` and at `accmpeg cluster serve`, in turns.

    python benchmarks/live_ray.py [--rounds 5] [--seconds 8] [--json F]

A cluster of one node runs on this machine, with one replica; both servers have one copy of the DNN, of one
thread. Cameras are replayed access units, so few that neither server is saturated; every frame counts. CPU is
that of the replica or the server, and of the proxy.
"""

import asyncio
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from accmpeg.options import parse_bitrate, parse_size
from live_options import JsonFile
from live_programs import Program, SceneFile, machine, start_server
from live_replay import Recording, encoded, replay


def cpu_of(cluster: Any) -> Callable[[], float]:
    """That of the proxy and the replica, found by the names that Ray gives its processes."""
    (raylet,) = cluster.head_node.all_processes["raylet"]
    workers = psutil.Process(raylet.process.pid).children(recursive=True)
    mine = [each for each in workers if each.name().startswith(("ray::Proxy", "ray::ServeRep"))]
    assert len(mine) == 2, [each.name() for each in workers]
    return lambda: sum(sum(each.cpu_times()[:2]) for each in mine)


def measure(
    address: str,
    cpu_s: Callable[[], float],
    recording: Recording,
    cameras: int,
    rate: float,
    seconds: float,
) -> dict[str, float]:
    """Delays from access unit to result, and CPU for each result."""

    async def sending() -> list[Any]:
        each: dict[str, Any] = {"seconds": seconds, "frame_rate": rate, "drop": "none"}
        names = [f"camera{number}" for number in range(cameras)]
        shifts = [number / (cameras * rate) for number in range(cameras)]
        return await asyncio.gather(
            *(
                replay(recording, address, name=name, first_after_s=shift, **each)
                for name, shift in zip(names, shifts, strict=True)
            )
        )

    before_s = cpu_s()
    found = asyncio.run(sending())
    delays_ms = [result.delay_ms for results, _, _ in found for result in results[int(rate) :]]
    used_s = cpu_s() - before_s
    return {
        "p50_ms": float(np.percentile(delays_ms, 50)),
        "p95_ms": float(np.percentile(delays_ms, 95)),
        "cpu_ms_per_result": 1000 * used_s / sum(len(results) for results, _, _ in found),
    }


def main(
    cameras: Annotated[int, typer.Option(help="How many.")] = 2,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    seconds: Annotated[float, typer.Option(help="Measured time of each.")] = 8.0,
    rate: Annotated[float, typer.Option(help="Frames per second of each camera.")] = 5.0,
    size: Annotated[str, typer.Option(help="Size of every stream.")] = "640x360",
    bitrate: Annotated[str, typer.Option(help="Of every stream.")] = "500k",
    json_file: JsonFile = None,
) -> None:
    """Print delays and CPU of both, and the difference."""
    console = Console(soft_wrap=True)
    found: dict[str, list[dict[str, float]]] = {"server": [], "cluster": []}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        recording = encoded(SceneFile(folder, *parse_size(size), 10, 60), bitrate_bps=parse_bitrate(bitrate))
        server, address = start_server(folder, "--threads", "1", "--copies", "1", results=False)
        stack.enter_context(server)
        small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=small)
        stack.callback(cluster.shutdown)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["--address", cluster.address, "--port", str(port)]
        serving = stack.enter_context(Program("cluster", folder, ["cluster", "serve", *options]))
        while not serving.last("serving"):
            serving.check()
            time.sleep(0.2)
        places = {"server": (address, server.cpu_s), "cluster": (f"127.0.0.1:{port}", cpu_of(cluster))}
        for number in range(rounds):
            for name in list(places)[:: -1 if number % 2 else 1]:
                found[name].append(measure(*places[name], recording, cameras, rate, seconds))
    console.print(f"{cameras} cameras of {size} at {rate:g} frames/s; {machine()}")
    table = Table("", "delay p50, ms", "p95, ms", "CPU ms per result", box=None)
    for name, rows in found.items():
        table.add_row(name, *(f"{statistics.median(row[key] for row in rows):.1f}" for key in rows[0]))
    pairs = list(zip(found["cluster"], found["server"], strict=True))
    differences = [statistics.median(one[key] - other[key] for one, other in pairs) for key in pairs[0][0]]
    table.add_row("difference within a round, median", *(f"{each:+.1f}" for each in differences))
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine(), "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # `accmpeg serve` has none
    typer.run(main)
