"""What is asked of the model: replicas at rest, the loss of a zone, and small clusters that were measured."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from accmpeg.protocol.backoff import Backoff
from fleet_model import Costs, Fleet, Plan

__all__ = ["Kind", "capacity", "check", "costs_of", "percentile", "steady", "zone_loss"]

SATURATED = 0.01
"""Where so many frames are left out, the server took all the cores that it could get."""
SETTLED_S = 2.0
"""Before and after the loss of a zone: frames wait for no longer than a fraction of it."""
ZONES = 3
"""The first of them is lost."""


@dataclass(frozen=True)
class Kind:
    """A kind of replica. GPU times are assumed, everything else is measured."""

    name: str
    cores: int
    dnn_threads: int
    gpu_batch_ms: float = 0.0
    gpu_frame_ms: float = 0.0


def costs_of(cost: dict[str, Any], size: str, side_px: int, *, kind: Kind | None = None) -> Costs:
    """What `server_cost.py` measured for the highest bitrate of a size, in seconds."""
    stream = [each for each in cost["streams"] if each["size"] == size][-1]
    infer_ms = cost["infer_ms"][size]
    on_gpu = kind is not None and kind.gpu_frame_ms > 0
    one_ms, eight_ms = infer_ms["64" if on_gpu else str(side_px)].values()
    frame_ms = min(one_ms, (8 * eight_ms - one_ms) / 7)
    connection = cost["connection"]
    first_ms = connection["tls, first result"]["cpu_ms"] - connection["tls"]["cpu_ms"]
    # All that the server's process used, but for its event loop and a DNN that costs next to nothing.
    decode_ms = stream["cpu_ms"] - stream["loop_ms"] - infer_ms["64"]["1"]
    return Costs(
        loop_s=stream["loop_ms"] / 1000,
        decode_s=decode_ms / 1000,
        keyframe_s=max(decode_ms, first_ms - cost["infer_ms"]["640x360"]["640"]["1"]) / 1000,
        dnn_s=frame_ms / 1000,
        dnn_batch_s=(one_ms - frame_ms) / 1000,
        handshake_s=connection["tls"]["cpu_ms"] / 1000,
        gpu_batch_s=kind.gpu_batch_ms / 1000 if kind else 0.0,
        gpu_frame_s=kind.gpu_frame_ms / 1000 if kind else 0.0,
    )


def demands(plan: Plan) -> dict[str, float]:
    """What one camera takes of each resource of a replica: the guide's formula."""
    costs, rate = plan.costs, plan.frames_per_s
    # Batches are full when a replica is.
    gpu_s = costs.gpu_frame_s + costs.gpu_batch_s / plan.max_batch
    dnn_s = costs.dnn_s + costs.dnn_batch_s / plan.max_batch
    return {
        "cores": rate * (costs.loop_s + costs.decode_s + dnn_s) / plan.cores,
        "event loop": rate * costs.loop_s,
        "DNN threads": rate * (dnn_s + gpu_s) / plan.dnn_threads,
        "GPU": rate * gpu_s,
    }


def capacity(plan: Plan) -> tuple[float, str]:
    """Cameras that would take a whole replica, and what they would run out of."""
    name, share = max(demands(plan).items(), key=lambda each: each[1])
    return 1 / share, name


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed."""
    found = sorted(values)
    return found[max(0, math.ceil(share * len(found)) - 1)] if found else math.nan


def steady(plan: Plan, seconds: float, seed: int, warm_up_s: float = 5.0) -> dict[str, float]:
    """Replicas of a plan at rest, after a warm-up."""
    fleet = Fleet(plan, seed)
    fleet.run(warm_up_s)
    before = [(each.cores.busy_s, each.loop.work_s, each.gpu_s) for each in fleet.replicas]
    counted = fleet.run(seconds)
    after = [(each.cores.busy_s, each.loop.work_s, each.gpu_s) for each in fleet.replicas]
    busy = [sum(b[i] - a[i] for a, b in zip(before, after, strict=True)) / seconds for i in range(3)]
    answered = len(counted.delays_s)
    by_camera = [counted.by_camera.get(camera, 0) for camera in fleet.cameras]
    return {
        "cameras": plan.cameras,
        "results_per_s": answered / seconds,
        "left_out": counted.left_out / max(1, answered + counted.left_out),
        "fairness": min(by_camera) / max(1e-9, statistics.mean(by_camera)),
        "server_ms_p50": 1000 * percentile(counted.delays_s, 0.5),
        "server_ms_p95": 1000 * percentile(counted.delays_s, 0.95),
        "cores": busy[0] / plan.replicas,
        "loop": busy[1] / plan.replicas,
        "gpu": busy[2] / plan.replicas,
    }


def zone_loss(plan: Plan, *, silent: bool, seed: int, most_s: float = 60.0) -> dict[str, Any]:
    """A third of the replicas at once: when their cameras deliver again, and what that costs the others."""
    fleet = Fleet(plan, seed)
    fleet.run(SETTLED_S)
    lost_s = fleet.clock.now_s
    cameras = fleet.lose(fleet.replicas[::ZONES], silent=silent)
    handshakes_s: list[float] = []
    delays_s: list[float] = []
    timeouts = refused = left_out = 0
    while any(camera.back_s is None for camera in cameras) and fleet.clock.now_s < lost_s + most_s:
        counted = fleet.run(1.0)
        handshakes_s += counted.handshakes_s
        delays_s += counted.delays_s
        timeouts, refused = timeouts + counted.timeouts, refused + counted.refused
        left_out += counted.left_out
    left = [replica for replica in fleet.replicas if replica.alive]
    back_s = [math.inf if camera.back_s is None else camera.back_s - lost_s for camera in cameras]
    before = [replica.cores.busy_s for replica in left], [replica.loop.work_s for replica in left]
    after = fleet.run(SETTLED_S)
    cores = sum(r.cores.busy_s - b for r, b in zip(left, before[0], strict=True)) / SETTLED_S / len(left)
    loop = sum(r.loop.work_s - b for r, b in zip(left, before[1], strict=True)) / SETTLED_S / len(left)
    return {
        "lost": len(cameras),
        "back_s_50_95_100": [percentile(back_s, share) for share in (0.5, 0.95, 1.0)],
        "handshakes_per_s": most_in(handshakes_s, 1.0),
        "replica_handshakes_per_s": max(most_in(replica.handshakes_s, 1.0) for replica in left),
        "timeouts": timeouts,
        "refused": refused,
        "server_ms_p95_meanwhile": 1000 * percentile(delays_s, 0.95),
        "left_out_meanwhile": left_out / max(1, left_out + len(delays_s)),
        "cores_after": cores / plan.cores,
        "loop_after": loop,
        "left_out_after": after.left_out / max(1, after.left_out + len(after.delays_s)),
        "server_ms_p95_after": 1000 * percentile(after.delays_s, 0.95),
    }


def most_in(times_s: list[float], window_s: float) -> int:
    """The most of them within a window."""
    times_s = sorted(times_s)
    first = most = 0
    for last, time_s in enumerate(times_s):
        while times_s[first] < time_s - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


class Once(Backoff):
    """Comes at once, and never again."""

    def failed(self) -> float:
        return 0.0 if super().failed() <= self.FIRST_S else math.inf


def check(cost: dict[str, Any], small: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """What was measured on small clusters beside what the simulation says of them."""
    plan = Plan(
        costs=costs_of(cost, small["size"], small["side_px"]),
        cores=2,
        dnn_threads=2,
        replicas=1,
        cameras=1,
        adapts=False,  # replayed cameras can't send less
        round_trip_s=0.001,
        keyframe_s=0.0,
    )
    rows = []
    for load in small["loads"]:
        there = replace(plan, cameras=load["cameras"], frames_per_s=load["rate"])
        if load["left_out"] > SATURATED:
            there = replace(there, cores=load["cores"])  # so much it had, whoever else wanted more
        else:
            there = replace(there, others=load["others"])
        found = steady(there, 60.0, seed)
        for name in ("results_per_s", "left_out", "fairness", "server_ms_p50", "server_ms_p95", "cores"):
            case = f"{load['cameras']} cameras, {load['rate']:g} frames/s each"
            rows.append({"case": case, "what": name, "measured": load[name], "simulated": found[name]})
    rows += check_burst(plan, small["burst"], seed)
    for loss in (small["killed"], small["silent"]):
        silent = loss["signal"] == "SIGSTOP"
        there = replace(
            plan,
            replicas=2,
            cameras=loss["cameras"],
            frames_per_s=loss["rate"],
            others=loss["others"],
            trips=3,
        )
        back_s = []
        for each in range(100):
            fleet = Fleet(there, seed + each)
            fleet.run(3.0)
            cameras = fleet.lose(fleet.replicas[:1], silent=silent)
            fleet.run(30.0)
            back_s.append(sorted((camera.back_s or math.inf) - (camera.lost_s or 0) for camera in cameras))
        case = f"one of two servers {'silent' if silent else 'killed'}"
        for name, share in (("first", 0.0), ("half", 0.5), ("all", 1.0)):
            simulated = statistics.median(percentile(each, share) for each in back_s)
            measured = percentile(loss["back_s"], share)
            rows.append(
                {"case": case, "what": f"{name} back, s", "measured": measured, "simulated": simulated}
            )
    return rows


def check_burst(plan: Plan, burst: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """So many cameras at once at one server, each trying once: the last welcome."""
    there = replace(
        plan,
        replicas=2,
        cameras=2 * burst["cameras"],
        frames_per_s=0.001,
        others=burst["others"],
        backoff=Once,
    )
    fleet = Fleet(there, seed)
    fleet.lose(fleet.replicas[:1], silent=False)
    found = fleet.run(60.0)
    case = f"{burst['cameras']} connections at once"
    pairs = {
        "cut off": (burst["cut"], found.refused),
        "last welcome, s": (burst["welcomes_s"][-1], max(found.handshakes_s)),
    }
    return [
        {"case": case, "what": what, "measured": measured, "simulated": simulated}
        for what, (measured, simulated) in pairs.items()
    ]
