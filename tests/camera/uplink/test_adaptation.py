"""Which frames are worth sending: no more than results are asked for, or can be given."""

from itertools import pairwise

import pytest

from accmpeg.camera.uplink.adaptation import Adaptation
from accmpeg.camera.uplink.ladder import FULL, Ladder
from accmpeg.camera.uplink.ratecontrol import DelayRate, FixedRate


def made(**options: object) -> Adaptation:
    controller = FixedRate(1_000_000, budget_ms=300, lowest_bps=100_000, highest_bps=8_000_000)
    return Adaptation(controller, None, **options)  # type: ignore[arg-type]


def taken(adaptation: Adaptation, frames: int, rate_per_s: float = 30.0) -> list[int]:
    return [index for index in range(frames) if adaptation.wants(round(1e6 * index / rate_per_s))]


def test_every_frame_where_nobody_asks_for_fewer() -> None:
    assert taken(made(), 30) == list(range(30))


def test_the_results_asked_for_are_spread_evenly() -> None:
    assert taken(made(results_per_s=10), 30) == list(range(0, 30, 3))
    twelve = taken(made(results_per_s=12), 300)
    assert len(twelve) == 120
    assert {after - before for before, after in pairwise(twelve)} == {2, 3}


def test_the_lower_of_what_is_asked_and_offered_holds() -> None:
    adaptation = made(results_per_s=10)
    adaptation.offered(5)
    assert len(taken(adaptation, 300)) == 50
    adaptation.offered(None)
    assert len([i for i in range(300, 600) if adaptation.wants(round(1e6 * i / 30))]) == 100


def test_a_spool_leaves_out_only_what_its_owner_asked_for() -> None:
    adaptation = made(spooling=True)
    adaptation.offered(5)
    assert taken(adaptation, 30) == list(range(30))


def test_after_a_pause_it_goes_on_from_there() -> None:
    adaptation = made(results_per_s=10)
    assert taken(adaptation, 3) == [0]
    later = [index for index in range(3000, 3006) if adaptation.wants(round(1e6 * index / 30))]
    assert later == [3000, 3003]


@pytest.mark.parametrize("spooling", [False, True])
def test_while_no_server_is_there_the_rate_is_kept(spooling: bool) -> None:
    """What was under way when the connection broke is never acknowledged."""
    adaptation = Adaptation(DelayRate(5_000_000), Ladder(1280, 720, 30), spooling=spooling)
    adaptation.before_frame(0.0, 0.0, connected=True, backlog=False)
    adaptation.sent(1.0, 0, 20_000)
    away = [
        adaptation.before_frame(now_ms, now_ms, connected=False, backlog=spooling)
        for now_ms in range(33, 10_000, 33)
    ]
    kept_bps = 2_500_000 if spooling else 5_000_000  # what goes to a spool leaves room to drain it
    assert {(plan.bitrate_bps, plan.level, plan.flush) for plan in away} == {(kept_bps, FULL, False)}
    adaptation.connected(10_000.0)
    adaptation.sent(10_001.0, 1, 20_000)
    back = adaptation.before_frame(10_033.0, 0.0, connected=True, backlog=False)
    assert (back.bitrate_bps, back.level) == (5_000_000, FULL)


def test_a_server_that_is_behind_says_nothing_of_the_link() -> None:
    """It answers every frame, two a second of 25, and what it can't read yet fills the network's buffers."""
    adaptation = Adaptation(DelayRate(1_000_000), Ladder(640, 384, 25), spooling=True)
    adaptation.connected(0.0)
    for number in range(1500):
        now_ms = 40.0 * number
        waiting_ms = max(0.0, now_ms - 2000)
        plan = adaptation.before_frame(now_ms, waiting_ms, connected=True, backlog=waiting_ms > 1000)
        adaptation.sent(now_ms, number, 5000)
        adaptation.acknowledged(now_ms, min(number, 16 + number // 12), now_ms)
        adaptation.served(now_ms, min(number, 16))
    assert plan.bitrate_bps is not None
    assert plan.bitrate_bps >= 1_000_000
    assert plan.level == FULL
    adaptation.served(now_ms, 0)
    silent = [adaptation.before_frame(now_ms + ms, 0.0, connected=True, backlog=False) for ms in (600, 1200)]
    assert (silent[-1].bitrate_bps or 0) < 500_000, "a silent link is no slow server"
