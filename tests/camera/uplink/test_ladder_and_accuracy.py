"""Size and frame-rate steps, and where more bits stop paying."""

import itertools

import numpy as np
import pytest

from accmpeg.camera.uplink.accuracy import AccuracyCurve
from accmpeg.camera.uplink.ladder import LEVELS, Ladder, Level


def ladder() -> Ladder:
    return Ladder(1280, 720, 30.0)  # the full stream wants 553 kbit/s


def test_few_bits_step_down_and_not_before_a_second() -> None:
    steps = ladder()
    assert steps.update(0, 2_000_000) == LEVELS[0]
    assert steps.update(100, 200_000) == LEVELS[0]
    assert steps.update(900, 200_000) == LEVELS[0]
    assert steps.update(1200, 200_000) == LEVELS[2]


def test_the_way_up_is_slow_one_level_at_a_time_and_wants_headroom() -> None:
    steps = ladder()
    for now_ms in (0, 1500):
        steps.update(now_ms, 80_000)
    assert steps.level == LEVELS[3]
    for now_ms in range(2000, 6000, 100):
        assert steps.update(now_ms, 3_000_000) == LEVELS[3]
    seen = [steps.update(now_ms, 3_000_000) for now_ms in range(6000, 30_000, 100)]
    assert list(dict.fromkeys(seen)) == [LEVELS[3], LEVELS[2], LEVELS[1], LEVELS[0]]


def test_a_rate_at_the_edge_does_not_flap() -> None:
    steps = ladder()
    levels = [
        steps.update(now, 553_000 + (40_000 if now // 3000 % 2 else -40_000)) for now in range(0, 60_000, 33)
    ]
    assert sum(a != b for a, b in itertools.pairwise(levels)) <= 1


def test_where_no_frame_may_be_left_out_only_the_size_gives_way() -> None:
    steps = Ladder(1280, 720, 30.0, every_frame=True)
    levels = [steps.update(1000.0 * second, 50_000) for second in range(10)]
    assert levels[-1] == Level(0.5, 1)


def test_small_pictures_are_not_made_smaller() -> None:
    steps = Ladder(320, 180, 30.0)
    for now_ms in (0, 1500, 3000):
        steps.update(now_ms, 1000)
    assert steps.level.scale == 1


def curve(offsets: float = 0.0, frame_qp: float = 30.0) -> AccuracyCurve:
    accgrad = np.zeros((4, 4), np.float32)
    accgrad[0, 0] = 10.0  # one block holds nearly everything
    return AccuracyCurve(accgrad, np.full((4, 4), offsets, np.float32), frame_qp, 1_000_000)


def test_loss_is_one_at_low_quality_and_none_at_high() -> None:
    assert curve(frame_qp=40.0).loss(1_000_000) == pytest.approx(1.0)
    assert curve(frame_qp=24.0).loss(1_000_000) == 0
    assert curve(frame_qp=36.0).loss(4_000_000) == 0, "four times the rate buys 12 QP"


def test_enough_is_where_the_loss_is_tolerable() -> None:
    enough_bps = curve().enough_bps(100_000, 20_000_000, tolerance=0.02)
    assert curve().loss(enough_bps) <= 0.02 < curve().loss(enough_bps * 0.97)
    assert curve(frame_qp=51.0).enough_bps(100_000, 2_000_000) == 2_000_000, "never enough in this range"


def test_more_bits_gain_less_and_less() -> None:
    losses = [curve(frame_qp=38.0).loss(500_000 * 2**doublings) for doublings in range(6)]
    gains = [before - after for before, after in itertools.pairwise(losses)]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] == pytest.approx(0, abs=1e-9)


def test_bits_where_the_gradient_lies_make_less_enough() -> None:
    flat = curve()
    offsets = np.full((4, 4), 5.0, np.float32)
    offsets[0, 0] = -6.0
    steered = AccuracyCurve(flat.accgrad_log2, offsets, 30.0, 1_000_000)
    assert steered.enough_bps(50_000, 20_000_000) < 0.6 * flat.enough_bps(50_000, 20_000_000)
