"""What Ray costs, and what a second worker brings: labelling and sweeping, in turns with the plain local run.

    python benchmarks/cluster_scaling.py [--rounds 2] [--json F]

| set-up            | what runs                                                              |
|-------------------|------------------------------------------------------------------------|
| local 1           | the plain local run with one process of one thread                     |
| local 1, one core | the same, all its processes and threads held to one core               |
| ray 1             | a Ray cluster on this machine: a head without a CPU, a node of one CPU |
| local 2           | the plain local run with two processes                                 |
| ray 2             | two nodes of one CPU                                                   |

All but the second are held to the same two cores together, Ray's own processes among them, and are free
within those.

Seconds are from the first finished item to the last, so that starting processes and loading networks, which
long jobs do once, are left out. CPU seconds are those of all processes in that time, Ray's own among them.
They bound what a machine can do at all, and other work on it disturbs them less than wall time. All set-ups
take turns in each round; ratios are taken within a round, and the median over rounds is the figure:

    overhead            = ray 1 / local 1 - 1
    efficiency          = local 1 / (2 * set-up of 2)            by process
    efficiency per core = local 1, one core / (2 * set-up of 2)  by core

One process keeps more than a core busy, because the command reads, files and shows progress beside it. So two
cores can't show an efficiency of 100 % by process. By core they can, where two cores do twice what one does.
Meant for a quiet machine.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from accmpeg.demo import assets_path
from accmpeg.demo.scene import SceneSource, SceneSpec
from accmpeg.evaluation.bench.plan import DnnSpec, footage_clips
from accmpeg.evaluation.bench.sweep import run_sweep
from accmpeg.evaluation.methods import find_methods
from accmpeg.evaluation.settings import SweepSettings
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.footage import find_footage
from accmpeg.media.sink import open_sink
from accmpeg.training.labelling import label_footage
from accmpeg.training.settings import Sampling
from accmpeg.workers import LocalWorkers, Workers

CARD = assets_path() / "detector.card.toml"
STORE_BYTES = 150 << 20
SET_UPS = {"local 1": 2, "local 1, one core": 1, "ray 1": 2, "local 2": 2, "ray 2": 2}
"""And the cores of each."""
TWO = ("local 2", "ray 2")


@contextmanager
def workers_of(set_up: str) -> Iterator[Workers]:
    kind, count = set_up.split(",")[0].split(" ")
    if kind == "local":
        workers = LocalWorkers(int(count))
        workers.is_this_process = False  # one thread, in a process of its own, as a node has it
        yield workers
        return
    from ray.cluster_utils import Cluster

    from accmpeg.cluster.connect import check_nodes, connected
    from accmpeg.cluster.workers import RayWorkers

    small: dict[str, Any] = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(int(count)):
            cluster.add_node(num_cpus=1, **small)
        with connected(cluster.address):
            check_nodes()
            yield RayWorkers()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def hold(cores: Iterable[int]) -> None:
    """Holds this process to cores: all its threads, and all processes that begin after that."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


class Watch:
    """Wall and CPU seconds from the first finished item to the last."""

    def __init__(self) -> None:
        self._first: tuple[float, float, int] | None = None
        self._last = (0.0, 0.0, 0)

    def finished(self, items: int) -> None:
        now = time.perf_counter(), cpu_s(), items
        if items and self._first is None:
            self._first = now
        if items > self._last[2]:
            self._last = now

    @property
    def per_item(self) -> dict[str, float]:
        assert self._first is not None
        wall_s, all_cpu_s, items = (last - first for last, first in zip(self._last, self._first, strict=True))
        return {"wall_s": wall_s / items, "cpu_s": all_cpu_s / items}


def cpu_s() -> float:
    """Of this process and all that came from it and live."""
    total = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def label(footage: Path, out: Path, workers: Workers) -> dict[str, float]:
    watch = Watch()
    label_footage(
        [footage],
        dnn=CARD,
        out=out,
        sampling=Sampling(every=5),
        workers=workers,
        progress=lambda done, expected: watch.finished(done),
    )
    return watch.per_item


def sweep(footage: Path, out: Path, workers: Workers) -> dict[str, float]:
    watch = Watch()
    run_sweep(
        footage_clips(find_footage([footage])),
        DnnSpec.read_all([CARD], []),
        find_methods("constant-qp@dnn,aq-1@dnn"),
        out,
        SweepSettings(points=3, limit=40, step=2, pictures=False),
        workers=workers,
        progress=lambda what, done, total: watch.finished(done if what == "cells" else 0),
    )
    return watch.per_item


JOBS: dict[str, Callable[[Path, Path, Workers], dict[str, float]]] = {"label": label, "sweep": sweep}


def render(folder: Path, clips: int, frames: int) -> None:
    for seed in range(clips):
        scene = SceneSource(SceneSpec(2001 + seed, 640, 360, frame_rate=Fraction(10), frame_count=frames))
        settings = EncoderSettings.for_source(scene.info, crf=12, steerable=False)
        with Encoder(settings) as encoder, open_sink(folder / f"street-{seed}.mp4", encoder) as sink:
            for frame in scene:
                for unit in encoder.encode(frame):
                    sink.write(unit)
            for unit in encoder.flush():
                sink.write(unit)


def figures(measured: list[dict[str, dict[str, float]]], unit: str) -> dict[str, float]:
    """Medians over rounds of the ratios within each; by core where it is wall time that passes."""
    rounds = [{name: each[unit] for name, each in one.items()} for one in measured]
    # Two workers halve the wall time of the same CPU time.
    halves = 2.0 if unit == "wall_s" else 1.0

    def of(one: str, other: str) -> float:
        return statistics.median(r[one] / r[other] for r in rounds)

    found = {"overhead of Ray, 1 worker": of("ray 1", "local 1") - 1}
    found |= {f"efficiency, {two}": of("local 1", two) / halves for two in TWO}
    if unit == "wall_s":
        found |= {f"efficiency per core, {two}": of("local 1, one core", two) / halves for two in TWO}
        busy = statistics.median(r["local 1"]["cpu_s"] / r["local 1"]["wall_s"] for r in measured)
        found |= {"cores that local 1 keeps busy": busy}
    return found


def main(
    rounds: int = 2,
    clips: int = 4,
    frames: int = 60,
    job: Annotated[list[str] | None, typer.Option(help="label or sweep; both by default.")] = None,
    output: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "RAY_memory_monitor_refresh_ms": "0"}
    console = Console()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < max(SET_UPS.values()):
        raise typer.BadParameter("this takes two cores")
    found: dict[str, Any] = {"cores": os.cpu_count(), "rounds": rounds, "clips": clips, "frames": frames}
    with tempfile.TemporaryDirectory() as temporary:
        footage = Path(temporary) / "footage"
        footage.mkdir()
        render(footage, clips, frames)
        names = job or list(JOBS)
        measured: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in names}
        for number in track(range(rounds), "rounds", console=Console(stderr=True)):
            turns: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
            for set_up, count in SET_UPS.items():
                hold(cores[:count])
                with workers_of(set_up) as workers:
                    for name in names:
                        out = Path(temporary) / f"{name}-{set_up}-{number}"
                        turns[name][set_up] = JOBS[name](footage, out, workers)
            for name in names:
                measured[name].append(turns[name])
    for name, each in measured.items():
        found[name] = {
            "rounds": each,
            "wall": figures(each, "wall_s"),
            "cpu": figures(each, "cpu_s"),
            "load": os.getloadavg(),
        }
        table = Table("", "by wall time", "by CPU time", title=name)
        for row in found[name]["wall"]:
            told = (found[name][unit].get(row) for unit in ("wall", "cpu"))
            table.add_row(row, *("" if each is None else f"{each:.1%}" for each in told))
        console.print(table)
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
