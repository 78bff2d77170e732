"""Waits between attempts."""

import pytest

from accmpeg.protocol.backoff import Backoff


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff()
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.succeeded()
    assert backoff.failed() == 1


def test_months_of_failures_wait_no_longer() -> None:
    backoff = Backoff()
    assert max(backoff.failed() for _ in range(5000)) == Backoff.LONGEST_S


@pytest.mark.parametrize(("drawn", "waited_s"), [(0.0, 1.0), (0.5, 0.75), (0.999, 0.5)])
def test_jitter_takes_up_to_half_away(drawn: float, waited_s: float) -> None:
    assert Backoff(lambda: drawn).failed() == pytest.approx(waited_s, abs=0.001)
