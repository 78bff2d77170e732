"""Times of frames, from packets and clocks that are wrong in the ways in which real ones are."""

import logging
from fractions import Fraction

import numpy as np
import pytest

from accmpeg.media.timeline import DisplayOrder, Timeline, measured_rate, spread_arrivals

MS = Fraction(1, 1000)


def shown_times(packets, frames, *, keyframes=(), reorders=True, delay=2):
    """Feeds packets (pts, dts), and takes out frames (raw pts) as a decoder of this delay would."""
    order, found, waiting = DisplayOrder(), [], list(frames)
    for number, (pts, dts) in enumerate(packets):
        order.fed(pts, dts)
        if number >= delay:
            raw = waiting.pop(0)
            found.append(order.shown(raw, is_keyframe=raw in keyframes, reorders=reorders))
    return found + [order.shown(raw, is_keyframe=raw in keyframes, reorders=reorders) for raw in waiting]


def test_times_that_count_packets_go_to_frames_in_order():
    packets = [(number, number - 1) for number in range(1, 10)]
    assert shown_times(packets, [1, 4, 3, 5, 2, 8, 7, 9, 6]) == list(range(1, 10))


def test_times_of_containers_without_pts_are_those_of_decoding():
    assert shown_times([(None, number) for number in range(6)], [None] * 6) == list(range(6))


def test_right_times_are_left_alone():
    packets = [(0, -2), (4, -1), (2, 0), (1, 1), (3, 2), (5, 3)]
    assert shown_times(packets, [0, 1, 2, 3, 4, 5]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("reorders", [False, True])
def test_a_lost_frame_does_not_shift_those_behind_the_next_keyframe(reorders):
    packets = [(number, number) for number in range(8)]
    found = shown_times(packets, [0, 1, 3, 4, 5, 6, 7], keyframes={4}, reorders=reorders, delay=1)
    assert found[3:] == [4, 5, 6, 7]


def test_a_packet_that_the_decoder_refused_gives_no_time():
    order = DisplayOrder()
    for pts in (0, 1):
        order.fed(pts, pts)
    order.failed()
    order.fed(2, 2)
    assert [order.shown(pts, is_keyframe=False, reorders=True) for pts in (0, 2)] == [0, 2]


def stamps(pts, arrivals_s=None, *, is_live=False, rate=25, time_base=MS):
    timeline = Timeline("cam", time_base, Fraction(rate), is_live=is_live)
    times = arrivals_s if arrivals_s is not None else [0.0] * len(pts)
    return [timeline.stamp(each, at_s) for each, at_s in zip(pts, times, strict=True)], timeline


def test_times_begin_at_0_and_keep_a_variable_rate():
    assert stamps([5000, 5040, 5047, 6000, 9000])[0] == [0, 40, 47, 1000, 4000]


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000, 95_443_717_000, -500])
def test_a_jump_is_closed_up_and_told_once(caplog, jump_ms):
    caplog.set_level(logging.WARNING)
    pts = [1_000_000 + number * 40 + jump_ms * (number >= 3) + jump_ms * (number >= 5) for number in range(8)]
    found, timeline = stamps(pts)
    assert found == [number * 40 for number in range(8)]
    assert timeline.jumps == 2
    assert len(caplog.records) == 1
    assert "cam" in caplog.text


def test_a_single_time_that_does_not_rise_shifts_nothing_after_it():
    assert stamps([0, 40, 80, 80, 160, 130, 240])[0] == [0, 40, 80, 81, 160, 161, 240]


def test_a_clock_that_stands_still_goes_on_by_the_rate_until_it_moves():
    found, timeline = stamps([7] * 500 + [47, 87])
    assert np.diff(found[10:]).tolist() == [40] * (len(found) - 11)
    assert timeline.jumps == 0
    coarse = [100 * (number // 5) for number in range(20)]  # 50 frames/s, told in tenths of a second
    assert stamps(coarse, rate=50)[0][::5] == coarse[::5]


def test_slow_footage_is_no_jump():
    assert stamps([0, 60_000, 120_000], rate=Fraction(1, 60))[0] == [0, 60_000, 120_000]


def test_a_live_source_that_was_silent_keeps_its_gap():
    found, timeline = stamps([0, 40, 15_040], [0.0, 0.04, 15.03], is_live=True)
    assert found == [0, 40, 15_040]
    assert timeline.jumps == 0


def test_a_live_clock_that_is_set_goes_on_as_frames_arrive():
    found, timeline = stamps([0, 200, 7_200_400, 7_200_600], [0.0, 0.2, 0.4, 0.6], is_live=True)
    assert found == [0, 200, 400, 600]
    assert timeline.jumps == 1


def test_frames_without_times_follow_their_arrival_or_the_rate():
    assert stamps([None] * 3, [5.0, 5.2, 5.5], is_live=True)[0] == [0, 200, 500]
    assert stamps([None] * 3)[0] == [0, 40, 80]


@pytest.mark.parametrize(
    ("arrivals_s", "rate"),
    [
        ([0.0, 0.0, 0.0, 0.21, 0.4, 0.6, 0.79, 1.0], 5),
        ([0.0, 1.0], 1),
        ([0.0, 0.0, 2.0], Fraction(1, 2)),
        ([number / 30 for number in range(31)], 30),
        ([0.0], None),
        ([0.0, 0.0, 0.0], None),
    ],
)
def test_the_rate_of_arrival(arrivals_s, rate):
    assert measured_rate(arrivals_s) == rate


def test_frames_that_had_waited_are_spread_out():
    assert spread_arrivals([1.0, 1.0, 1.0, 1.21, 1.4], Fraction(5)) == pytest.approx(
        [0.6, 0.8, 1.0, 1.21, 1.4]
    )
