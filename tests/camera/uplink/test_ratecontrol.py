"""Rate control on simulated links: a bottleneck with a queue, no real time. Figures are exact repeats."""

import numpy as np
import pytest

from accmpeg.camera.uplink.ratecontrol import DelayRate, FixedRate, LinkEstimate, LinkSample
from linklab.bottleneck import STEPS, LinkTrace, simulate
from linklab.textbook import AimdRate

BUDGET_MS = 300.0
OUTAGE = LinkTrace("outage", [(0, 1e6), (8_000, 1000.0), (13_000, 1e6)], 25_000)


def walk(seed: int) -> LinkTrace:
    """A mobile link: the bandwidth moves every 500 ms, by a factor of up to 1.5, between 0.4 and 3 Mbit/s."""
    random = np.random.default_rng(seed)
    steps, bps = [], 1.2e6
    for start_ms in range(0, 40_000, 500):
        steps.append((float(start_ms), bps))
        bps = float(np.clip(bps * 1.5 ** random.uniform(-1, 1), 0.4e6, 3e6))
    return LinkTrace(f"walk {seed}", steps, 40_000)


@pytest.mark.parametrize("propagation_ms", [5.0, 25.0, 60.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_are_held_within_the_budget_without_a_stall(seed: int, propagation_ms: float) -> None:
    run = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), STEPS, seed=seed, propagation_ms=propagation_ms)
    assert run.settled_p95_ms() <= BUDGET_MS
    assert run.longest_stall_ms() <= 1000
    assert run.used_share() >= 0.75, "a budget is easily held by sending nothing"


def test_jitter_is_no_congestion() -> None:
    run = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), STEPS, jitter_ms=40)
    assert run.settled_p95_ms() <= BUDGET_MS
    assert run.used_share() >= 0.6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mobile_link(seed: int) -> None:
    run = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), walk(seed), seed=seed)
    assert run.p95_ms() <= BUDGET_MS
    assert run.longest_stall_ms() <= 1000


def test_an_outage_is_survived_and_left_behind() -> None:
    run = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), OUTAGE)
    after = [
        delay for captured, delay in zip(run.captured_ms, run.delay_ms, strict=True) if captured > 16_000
    ]
    assert len(after) >= 200
    assert float(np.percentile(after, 95)) <= BUDGET_MS
    assert run.targets_bps[-1][1] >= 600_000, "the rate comes back"


def test_a_fixed_bitrate_fails_where_the_link_falls_below_it() -> None:
    run = simulate(FixedRate(1_000_000, budget_ms=BUDGET_MS, newest_wins=False), STEPS)
    assert run.settled_p95_ms() > 2000


def test_it_uses_more_of_the_link_than_the_textbook_controller() -> None:
    ours = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), STEPS)
    textbook = simulate(AimdRate(800_000, budget_ms=BUDGET_MS), STEPS)
    assert ours.used_share() > textbook.used_share() + 0.05


def test_it_falls_within_a_round_trip_and_a_few_frames() -> None:
    trace = LinkTrace("drop", [(0, 2e6), (10_000, 0.5e6)], 14_000)
    run = simulate(DelayRate(800_000, budget_ms=BUDGET_MS), trace, gop_frames=10_000)
    below = next(now for now, target in run.targets_bps if now > 10_000 and target < 600_000)
    assert below - 10_000 < 2 * 25 + 100 + 10 * 33 + 200


def test_it_stops_at_the_ceiling() -> None:
    controller = DelayRate(300_000, budget_ms=BUDGET_MS)
    controller.ceiling_bps = 600_000
    run = simulate(controller, LinkTrace("wide", [(0, 5e6)], 20_000))
    assert max(target for _, target in run.targets_bps) <= 600_000
    assert run.targets_bps[-1][1] == 600_000


def test_a_silent_link_after_a_long_delay_does_not_shut_the_camera_up() -> None:
    controller = DelayRate(800_000, budget_ms=BUDGET_MS)
    controller.on_sample(100, LinkSample(1000, 10, 0, 0))
    controller.on_sample(900, LinkSample(2000, 810, 10, 10))
    assert not controller.admits()
    controller.on_frame(2000, 0.0, 0)
    assert controller.admits()


def test_capacity_is_measured_from_what_queues() -> None:
    link = LinkEstimate(5e6)
    link.add(50, LinkSample(1000, 1000, 0, 0))
    for step in range(1, 12):
        # 12 500 bytes every 100 ms is 1 Mbit/s; each frame has waited 20 ms longer than the one before.
        sent_ms = 80.0 * step
        link.add(50 + 100 * step, LinkSample(1000 + 12_500 * step, 1000 + 100 * step, sent_ms, sent_ms))
    assert link.capacity_bps == pytest.approx(1e6, rel=0.15)
    assert link.queue_ms == pytest.approx(220)


def test_clocks_may_be_apart() -> None:
    runs = [
        simulate(DelayRate(800_000), LinkTrace("short", [(0, 1e6)], 5000), clock_offset_ms=offset)
        for offset in (0.0, -5e9)
    ]
    assert runs[0].delay_ms == runs[1].delay_ms


@pytest.mark.parametrize(
    "bad", [{"bitrate_bps": 10}, {"bitrate_bps": 10**9}, {"bitrate_bps": 10**6, "budget_ms": 0}]
)
def test_bad_settings(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"bitrate|budget"):
        DelayRate(**bad)
