"""The simulation behind the guide's page on sizing, held against closed forms: benchmarks/fleet_*.py."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SERVICE_S, LOAD = 0.01, 0.7


@pytest.fixture(scope="module", autouse=True)
def benchmarks_in_path() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def model() -> ModuleType:
    import fleet_model

    return fleet_model


def mean_sojourn_s(threads: int) -> float:
    """Of Poisson arrivals with one service time on a core: in so many threads, or (0) in one each."""
    from fleet_threads import Clock, Cores, Threads

    clock, rng, found = Clock(), random.Random(1), []
    cores = Cores(clock, 1)
    machine: Any = Threads(cores, threads) if threads else cores

    def arrive() -> None:
        came_s = clock.now_s
        machine.run(SERVICE_S, lambda: found.append(clock.now_s - came_s))
        clock.after(rng.expovariate(LOAD / SERVICE_S), arrive)

    arrive()
    clock.run(1000)
    assert cores.busy_s == pytest.approx(1000 * LOAD, rel=0.02)
    return sum(found) / len(found)


def test_one_thread_is_a_queue_of_deterministic_service() -> None:
    # M/D/1, Pollaczek and Khinchine
    expected_s = SERVICE_S + LOAD * SERVICE_S / (2 * (1 - LOAD))
    assert mean_sojourn_s(threads=1) == pytest.approx(expected_s, rel=0.03)


def test_threads_of_their_own_share_the_core() -> None:
    # M/G/1 with processor sharing: insensitive to the service's distribution
    assert mean_sojourn_s(threads=0) == pytest.approx(SERVICE_S / (1 - LOAD), rel=0.03)


def plan_of(model: ModuleType, **changes: Any) -> Any:
    costs = model.Costs(loop_s=0.001, decode_s=0.003, keyframe_s=0.003, dnn_s=0.02, handshake_s=0.005)
    return model.Plan(
        **{"costs": costs, "cores": 4, "dnn_threads": 4, "replicas": 1, "cameras": 8, **changes}
    )


def test_below_its_limit_every_frame_is_answered_and_the_cores_do_what_the_frames_cost(
    model: ModuleType,
) -> None:
    fleet = model.Fleet(plan_of(model))
    fleet.run(5)
    busy_s = fleet.replicas[0].cores.busy_s
    counted = fleet.run(20)
    assert len(counted.delays_s) == pytest.approx(8 * 10 * 20, abs=8)
    assert counted.left_out == 0
    assert fleet.replicas[0].cores.busy_s - busy_s == pytest.approx(8 * 10 * 20 * 0.024, rel=0.01)
    assert min(counted.delays_s) >= 0.024


def test_cameras_of_a_server_with_too_many_send_what_comes_back_in_time(model: ModuleType) -> None:
    fleet = model.Fleet(plan_of(model, cameras=20))  # 4 cores can answer 167 of their 200 frames a second
    fleet.run(20)
    counted = fleet.run(20)
    assert counted.left_out == 0
    assert 0.8 * 167 < len(counted.delays_s) / 20 <= 167
    assert sorted(counted.delays_s)[int(0.95 * len(counted.delays_s))] < model.BUDGET_MS / 1000


def test_a_saturated_gpu_answers_what_its_batches_allow_and_every_camera_alike(model: ModuleType) -> None:
    costs = model.Costs(
        loop_s=0.0001, decode_s=0, keyframe_s=0, dnn_s=0, handshake_s=0, gpu_batch_s=0.01, gpu_frame_s=0.01
    )
    fleet = model.Fleet(plan_of(model, costs=costs, dnn_threads=1, cameras=20, adapts=False))
    fleet.run(5)
    counted = fleet.run(20)
    assert len(counted.delays_s) / 20 == pytest.approx(8 / (0.01 + 8 * 0.01), rel=0.02)
    answered = [counted.by_camera[camera] for camera in fleet.cameras]
    assert min(answered) > 0.9 * max(answered)


def test_a_lost_replicas_cameras_come_back_by_the_products_backoff(model: ModuleType) -> None:
    plan = plan_of(model, replicas=4, cameras=400, frames_per_s=0.1, keyframe_s=0, round_trip_s=0.0)
    fleet = model.Fleet(plan, seed=3)
    fleet.run(1)
    lost = fleet.lose(fleet.replicas[:1], silent=False)
    counted = fleet.run(30)
    assert len(lost) == len(counted.handshakes_s) == 100
    assert all(camera.replica.alive for camera in lost)
    assert 1.5 <= min(counted.handshakes_s) <= max(counted.handshakes_s) <= 2.2  # 0.5 to 1 s, and the queue
    assert [replica.welcomed for replica in fleet.replicas[1:]] == pytest.approx([133, 133, 133], abs=1)


def test_connections_that_come_at_once_are_served_in_turn(model: ModuleType) -> None:
    from fleet_cases import Once

    plan = plan_of(model, replicas=2, cameras=400, frames_per_s=0.001, backoff=Once)
    fleet = model.Fleet(plan)
    fleet.lose(fleet.replicas[:1], silent=False)
    counted = fleet.run(10)
    assert (len(counted.handshakes_s), counted.refused) == (200, 0)
    assert max(counted.handshakes_s) - min(counted.handshakes_s) == pytest.approx(199 * 0.005, rel=0.01)


def test_a_silent_replica_is_found_out_by_its_silence(model: ModuleType) -> None:
    fleet = model.Fleet(plan_of(model, replicas=2, cameras=40))
    fleet.run(1)
    lost = fleet.lose(fleet.replicas[:1], silent=True)
    fleet.run(30)
    back_s = sorted(camera.back_s - camera.lost_s for camera in lost)
    # 7 s without a message, the last of which came up to 0.1 s before; half a second to one of backoff;
    # then a keyframe.
    assert 7.4 <= back_s[0] <= 8
    assert 7.9 <= back_s[-1] <= 8.5


def test_the_same_seed_gives_the_same_fleet(model: ModuleType) -> None:
    first, second = (model.Fleet(plan_of(model), seed=7).run(5).delays_s for _ in range(2))
    assert first == second
