"""The clock that never jumps and knows the day, against a system clock that is set."""

import time

import pytest

from accmpeg.media.clock import SteadyClock


def test_a_clock_that_is_set_moves_times_of_day_and_no_lengths_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system_ns = time.time_ns
    clock = SteadyClock()
    captured_us = clock.now_us()
    assert clock.utc_us(captured_us) == captured_us
    three_days_us = 3 * 86_400_000_000
    monkeypatch.setattr(time, "time_ns", lambda: system_ns() + 1000 * three_days_us)
    assert clock.now_us() - captured_us < 1_000_000
    assert clock.utc_us(captured_us) - captured_us == pytest.approx(three_days_us, abs=10_000)
    first, second = clock.utc_us(captured_us), clock.utc_us(captured_us + 40_000)
    assert second - first == 40_000, "what was set once stays as it is"


def test_a_clock_that_is_led_along_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    system_ns = time.time_ns
    clock = SteadyClock()
    monkeypatch.setattr(time, "time_ns", lambda: system_ns() + 20_000_000)
    assert clock.utc_us(5) == 5


def test_the_clock_never_runs_backwards() -> None:
    clock = SteadyClock()
    times = [clock.now_us() for _ in range(1000)]
    assert times == sorted(times)
