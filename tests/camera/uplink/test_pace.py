"""Frames give way before the delay does, where a machine is behind; not where the link is slow."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from accmpeg.camera.uplink.pace import LEAST_PER_S, Pace, lag_ms

BUDGET_MS = 300.0
FRAME_RATE = 30.0


@dataclass
class Run:
    """Delays of answered frames by their time of capture."""

    captured_s: list[float] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)

    def p95_ms(self, from_s: float, to_s: float) -> float:
        return float(np.percentile(self._within(from_s, to_s), 95))

    def per_s(self, from_s: float, to_s: float) -> float:
        return len(self._within(from_s, to_s)) / (to_s - from_s)

    def _within(self, from_s: float, to_s: float) -> list[float]:
        return [
            delay
            for at_s, delay in zip(self.captured_s, self.delays_ms, strict=True)
            if from_s <= at_s < to_s
        ]


def simulated(
    service_ms: list[tuple[float, float]],
    *,
    seconds: float,
    rest_ms: float = 20.0,
    own_ms: float = 0.0,
    exchanged_s: float = math.inf,
    told: bool = True,
) -> Run:
    """A camera in front of one machine that takes frames in turn, each `service_ms` (from when on, so long).

    At `exchanged_s` the machine stands still for half a second, and says that it has another DNN. Service
    times scatter as those of a busy machine do; `own_ms` holds no other frame up.
    """
    pace, run, random = Pace(BUDGET_MS), Run(), np.random.default_rng(3)
    free_s, due_s = 0.0, 0.0
    coming: deque[tuple[float, float, float, float]] = deque()
    for index in range(round(seconds * FRAME_RATE)):
        now_s = index / FRAME_RATE
        if now_s >= exchanged_s:
            exchanged_s, free_s = math.inf, now_s + 0.5
            if told:
                pace.exchanged(now_s)
        while coming and coming[0][0] <= now_s:
            back_s, captured_s, delay_ms, lag = coming.popleft()
            pace.took(back_s, captured_s, delay_ms=delay_ms, lag_ms=lag)
        if pace.per_s is not None:
            due_s = max(due_s, now_s - 1 / pace.per_s)
            if now_s < due_s:
                continue
            due_s += 1 / pace.per_s
        mean_ms = next(each for since_s, each in reversed(service_ms) if now_s >= since_s)
        free_s = max(free_s, now_s) + mean_ms / 1000 * random.gamma(8, 1 / 8)
        lag = 1000 * (free_s - now_s) + own_ms
        coming.append((now_s + (lag + rest_ms) / 1000, now_s, lag + rest_ms, lag))
        run.captured_s.append(now_s)
        run.delays_ms.append(lag + rest_ms)
    return run


def test_a_machine_that_keeps_up_is_sent_every_frame() -> None:
    run = simulated([(0, 20)], seconds=30)
    assert run.per_s(0, 30) == pytest.approx(FRAME_RATE)


@pytest.mark.parametrize("service_ms", [45, 80])
def test_a_machine_that_is_behind_gets_fewer_frames_and_the_delay_holds(service_ms: float) -> None:
    run = simulated([(0, service_ms)], seconds=60)
    assert run.p95_ms(5, 60) <= 0.8 * BUDGET_MS
    assert run.per_s(5, 60) >= 0.6 * 1000 / service_ms, "and what it can do is used"


def test_what_a_neighbour_took_is_used_again_when_it_is_gone() -> None:
    run = simulated([(0, 25), (20, 60), (50, 25)], seconds=90)
    assert run.p95_ms(30, 50) <= 0.8 * BUDGET_MS, "after two cuts, the first of which was too small"
    assert run.per_s(25, 50) >= 0.7 * 1000 / 60
    assert run.per_s(70, 90) == pytest.approx(FRAME_RATE, rel=0.03)


@pytest.mark.parametrize("busy_ms", [60, 80, 120])
@pytest.mark.parametrize("then_ms", [20, 36, 45, 60])
def test_a_neighbour_that_takes_less_is_no_reason_for_a_jump(busy_ms: float, then_ms: float) -> None:
    run = simulated([(0, 25), (20, busy_ms), (60, then_ms)], seconds=120)
    for from_s in range(60, 100, 10):
        assert run.p95_ms(from_s, from_s + 20) <= BUDGET_MS
    assert run.per_s(90, 120) >= 0.7 * min(FRAME_RATE, 1000 / then_ms), "and what it can do is used"


def test_a_dnn_put_in_place_is_no_queue() -> None:
    run = simulated([(0, 20)], seconds=60, exchanged_s=30.0)
    assert run.per_s(0, 60) == pytest.approx(FRAME_RATE), "no frame is left out"
    assert simulated([(0, 20)], seconds=60, exchanged_s=30.0, told=False).per_s(30, 40) < 0.9 * FRAME_RATE
    slower = simulated([(0, 20), (30, 80)], seconds=60, exchanged_s=30.0)
    assert slower.p95_ms(40, 60) <= BUDGET_MS, "one that is slower is sent fewer"


def test_a_slow_link_costs_no_frames() -> None:
    run = simulated([(0, 20)], seconds=30, rest_ms=600)
    assert run.per_s(0, 30) == pytest.approx(FRAME_RATE)


def test_a_machine_that_is_slow_by_itself_is_used_nevertheless() -> None:
    """Its frames take longer than the budget whatever waits: leaving many out would bring nothing."""
    run = simulated([(0, 20)], seconds=120, own_ms=400)
    assert run.per_s(20, 120) >= 0.75 * FRAME_RATE


def test_some_frames_always_go_out() -> None:
    run = simulated([(0, 2000)], seconds=60)
    assert run.per_s(20, 60) >= 0.5 * LEAST_PER_S


def test_an_outage_is_no_sign_of_a_slow_machine() -> None:
    pace = Pace(BUDGET_MS)
    for since_s, took_ms in ((0.0, 20.0), (60.0, 20.0), (60.0 + 10 / FRAME_RATE, 300.0)):
        if since_s == 60.0:
            pace.connected()
        for index in range(10):
            at_s = since_s + index / FRAME_RATE
            pace.took(at_s, at_s - took_ms / 1000, delay_ms=took_ms + 20, lag_ms=took_ms)
    assert pace.per_s is not None, "a queue has built up"
    assert pace.per_s >= 0.3 * FRAME_RATE, "of what came back since"


def test_lag_is_what_machines_took_and_not_the_order() -> None:
    server = {"wait": 1.0, "decode": 2.0, "queue": 3.0, "infer": 4.0, "total": 200.0}
    assert lag_ms({"wait": 10.0, "encode_wall": 20.0, "encode": 15.0}, server) == 40.0
    assert lag_ms({}, {}) == 0.0
