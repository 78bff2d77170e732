"""Delays over a link, against closed forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.evaluation.link import fifo_delays_ms, paper_delay_s

LINK = {"bandwidth_bps": 1e6, "propagation_ms": 10.0, "server_ms": 20.0}


def test_the_paper_s_published_point() -> None:
    assert paper_delay_s(8_000_484, 1800, 0.5e6) == pytest.approx(1.022, abs=5e-4)


@given(st.integers(1, 60), st.integers(1, 4000))
def test_without_a_queue_the_delay_is_the_sum_of_its_parts(frames: int, size_bytes: int) -> None:
    capture_ms = [40.0 * index for index in range(frames)]
    delays = fifo_delays_ms(capture_ms, [5.0] * frames, [size_bytes] * frames, **LINK)
    assert delays == pytest.approx([5 + size_bytes * 8 / 1000 + 30] * frames)


def test_a_queue_grows_by_what_the_link_can_t_carry() -> None:
    # 50 ms of sending every 40 ms: each frame waits 10 ms longer than the one before.
    delays = fifo_delays_ms([0, 40, 80], [0, 0, 0], [6250] * 3, **LINK)
    assert delays == pytest.approx([80, 90, 100])


def test_a_slow_camera_delays_the_next_frame() -> None:
    assert fifo_delays_ms([0, 10], [100, 5], [0, 0], **LINK) == pytest.approx([130, 125])


def test_lists_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        fifo_delays_ms([0], [1, 2], [3], **LINK)
