"""Ten thousand cameras, from what a few cost: replicas, delays by load, network, and the loss of a zone.

    python benchmarks/fleet_simulation.py [--cameras 10000] [--json results/fleet-simulation.json]

Reads `results/server-cost.json` (`server_cost.py`) and `results/small-cluster.json` (`live_cluster.py`), with
which it is checked first. GPUs were not measured: their classes are assumptions, by name. The guide's page on
sizing says what else is assumed.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from accmpeg.protocol.backoff import Backoff
from fleet_cases import ZONES, Kind, capacity, check, costs_of, steady, zone_loss
from fleet_model import Plan
from live_options import JsonFile

RESULTS = Path(__file__).parents[1] / "results"
LOADS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2)
PLANNED = 0.7
"""Of its scarcest resource a replica is given so much to do."""
SIZE, SIDE_PX = "1280x720", 640


class EvenBackoff(Backoff):
    """Waits anywhere between nothing and the whole: "full jitter"."""

    def failed(self) -> float:
        jitter, self._jitter = self._jitter, lambda: 0.0
        whole_s = super().failed()
        self._jitter = jitter
        return whole_s * jitter()


BACKOFFS: dict[str, Callable[[Callable[[], float]], Backoff]] = {
    "the product's": Backoff,
    "no jitter": lambda jitter: Backoff(),
    "full jitter": EvenBackoff,
}


KINDS = (
    Kind("8 cores, no GPU", 8, 8),
    Kind("8 cores, GPU of 1 ms a frame (assumed)", 8, 3, 2.0, 1.0),
    Kind("8 cores, GPU of 0.2 ms a frame (assumed)", 8, 3, 2.0, 0.2),
)


def show_check(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("small cluster", "", "measured", "simulated", "deviation", box=None)
    for row in rows:
        measured, simulated = row["measured"], row["simulated"]
        deviation = f"{simulated / measured - 1:+.0%}" if measured > 0.01 else f"{simulated - measured:+.3f}"
        table.add_row(row["case"], row["what"], f"{measured:.3g}", f"{simulated:.3g}", deviation)
    console.print(table)


def plans_of(cost: dict[str, Any], cameras: int, rate: float) -> dict[str, Plan]:
    """A fleet of each kind, its replicas full to `PLANNED`."""
    stream = [each for each in cost["streams"] if each["size"] == SIZE][-1]
    plans = {}
    for kind in KINDS:
        plan = Plan(
            costs=costs_of(cost, SIZE, SIDE_PX, kind=kind),
            cores=kind.cores,
            dnn_threads=kind.dnn_threads,
            replicas=1,
            cameras=1,
            frames_per_s=rate,
            keyframe_s=stream["keyframe_bytes"] * 8 / (2 * stream["up_bps"]),
        )
        each = max(1, int(PLANNED * capacity(plan)[0]))
        plans[kind.name] = replace(plan, replicas=math.ceil(cameras / each), cameras=cameras)
    return plans


def show_need(plans: dict[str, Plan], cost: dict[str, Any], console: Console) -> list[dict[str, Any]]:
    """How many replicas, what limits them, and their network."""
    stream = [each for each in cost["streams"] if each["size"] == SIZE][-1]
    names = ("kind", "limited by", "cameras each", "replicas", "with a zone to spare", "Mbit/s each, in")
    table = Table(*names, "out", "Gbit/s in all, in", "out", box=None)
    rows = []
    for name, plan in plans.items():
        most, limit = capacity(plan)
        each = max(1, int(PLANNED * most))
        spared = spare(plan).replicas
        rows.append(
            {
                "kind": name,
                "limited_by": limit,
                "cameras_each": each,
                "replicas": plan.replicas,
                "replicas_with_spare": spared,
                "in_bps": plan.cameras * stream["up_bps"],
                "out_bps": plan.cameras * stream["down_bps"],
            }
        )
        table.add_row(
            name,
            limit,
            str(each),
            str(plan.replicas),
            str(spared),
            f"{each * stream['up_bps'] / 1e6:.0f}",
            f"{each * stream['down_bps'] / 1e6:.1f}",
            f"{plan.cameras * stream['up_bps'] / 1e9:.1f}",
            f"{plan.cameras * stream['down_bps'] / 1e9:.2f}",
        )
    console.print(table)
    return rows


def show_loads(plans: dict[str, Plan], seconds: float, seed: int, console: Console) -> list[dict[str, Any]]:
    """Delay by load of one replica of each kind."""
    names = ("kind", "load", "cameras", "results/s", "left out", "server ms p50", "p95")
    table = Table(*names, "cores", "event loop", "GPU", box=None)
    rows = []
    for name, plan in plans.items():
        for load in LOADS:
            cameras = max(1, round(load * capacity(plan)[0]))
            found = steady(replace(plan, replicas=1, cameras=cameras), seconds, seed)
            rows.append({"kind": name, "load": load, **found})
            table.add_row(
                name,
                f"{load:.0%}",
                str(cameras),
                f"{found['results_per_s']:.0f}",
                f"{found['left_out']:.1%}",
                f"{found['server_ms_p50']:.0f}",
                f"{found['server_ms_p95']:.0f}",
                f"{found['cores'] / plan.cores:.0%}",
                f"{found['loop']:.0%}",
                f"{found['gpu']:.0%}",
            )
    console.print(table)
    return rows


def storms(plans: dict[str, Plan]) -> dict[str, tuple[Plan, bool]]:
    """Which losses are simulated: a plan, and whether the zone falls silent."""
    found = {}
    for name in (KINDS[0].name, KINDS[1].name):
        found[f"{name}; reset; spare"] = (spare(plans[name]), False)
        found[f"{name}; reset; no spare"] = (plans[name], False)
    name = KINDS[1].name
    found[f"{name}; silent; spare"] = (spare(plans[name]), True)
    # One result per second and camera: so a process holds very many, each of which comes back.
    few = replace(plans[KINDS[2].name], frames_per_s=1.0)
    each = max(1, int(PLANNED * capacity(few)[0]))
    few = spare(replace(few, replicas=math.ceil(few.cameras / each)))
    for backoff, make in BACKOFFS.items():
        name = f"{each} cameras a process at 1 result/s; reset; spare; {backoff} backoff"
        found[name] = (replace(few, backoff=make), False)
    return found


def spare(plan: Plan) -> Plan:
    """The same fleet with as many replicas as leave enough when a zone is lost."""
    return replace(plan, replicas=math.ceil(plan.replicas * ZONES / (ZONES - 1)))


def show_storms(plans: dict[str, Plan], seed: int, console: Console) -> list[dict[str, Any]]:
    """The loss of a zone, in every way."""
    names = ("loss of a third", "replicas", "cameras lost", "back after s: 50 %", "95 %", "100 %")
    more = (
        "handshakes/s",
        "at one replica",
        "refused, timed out",
        "p95 ms meanwhile",
        "after",
        "left out after",
    )
    table = Table(*names, *more, box=None)
    rows = []
    for name, (plan, silent) in track(storms(plans).items(), "losing zones", transient=True):
        found = zone_loss(plan, silent=silent, seed=seed)
        rows.append({"storm": name, "replicas": plan.replicas, **found})
        table.add_row(
            name,
            str(plan.replicas),
            str(found["lost"]),
            *(f"{each:.1f}" for each in found["back_s_50_95_100"]),
            str(found["handshakes_per_s"]),
            str(found["replica_handshakes_per_s"]),
            f"{found['refused']}, {found['timeouts']}",
            f"{found['server_ms_p95_meanwhile']:.0f}",
            f"{found['server_ms_p95_after']:.0f}",
            f"{found['left_out_after']:.1%}",
        )
    console.print(table)
    return rows


def main(
    cameras: Annotated[int, typer.Option(help="Cameras of the fleet.")] = 10_000,
    storm_cameras: Annotated[
        int | None, typer.Option(help="Cameras of the fleets that lose a zone; as many if absent.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames, and results, per second of each.")] = 10.0,
    seconds: Annotated[float, typer.Option(help="Simulated time of each load.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of all chances.")] = 0,
    cost_file: Annotated[Path, typer.Option("--cost", help="What server_cost.py wrote.")] = RESULTS
    / "server-cost.json",
    small_file: Annotated[Path, typer.Option("--small", help="What live_cluster.py wrote.")] = RESULTS
    / "small-cluster.json",
    json_file: JsonFile = None,
) -> None:
    """Print the check, the need of a fleet, delays by load, and what the loss of a zone does."""
    console = Console(soft_wrap=True)
    cost, small = json.loads(cost_file.read_text()), json.loads(small_file.read_text())
    document: dict[str, Any] = {"cameras": cameras, "rate": rate, "seed": seed}
    document["check"] = check(cost, small, seed)
    show_check(document["check"], console)
    plans = plans_of(cost, cameras, rate)
    document["need"] = show_need(plans, cost, console)
    alone = {f"{KINDS[0].name}; --max-batch 1": replace(plans[KINDS[0].name], max_batch=1)}
    document["loads"] = show_loads(plans | alone, seconds, seed, console)
    storm_plans = plans_of(cost, storm_cameras or cameras, rate)
    document["storms"] = show_storms(storm_plans, seed, console)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
