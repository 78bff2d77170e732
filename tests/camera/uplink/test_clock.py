"""Clock offset by request and reply, against clocks whose truth is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accmpeg.camera.uplink.clock import ClockSync

Microseconds = st.integers(0, 2_000_000)


@given(
    st.integers(-(10**15), 10**15), st.lists(st.tuples(Microseconds, Microseconds, Microseconds), min_size=1)
)
def test_the_truth_lies_within_the_error(ahead_us: int, exchanges: list[tuple[int, int, int]]) -> None:
    sync = ClockSync()
    now_us = 1_700_000_000_000_000
    for there_us, work_us, back_us in exchanges:
        sent_us = now_us
        received_us = sent_us + there_us + ahead_us
        now_us = sent_us + there_us + work_us + back_us
        sync.add(sent_us, received_us, received_us + work_us, now_us)
        found = sync.estimate(now_us)
        assert found is not None
        assert abs(found.offset_us - ahead_us) <= found.error_us
        now_us += 5_000_000


def test_the_shortest_round_trip_wins() -> None:
    sync = ClockSync()
    sync.add(0, 1_000, 1_000, 1_000)  # all of the second's thousandth on the way there
    sync.add(10_000, 10_010, 10_010, 10_020)
    found = sync.estimate(10_020)
    assert found is not None
    assert (found.offset_us, found.round_trip_us) == (0, 20)
    assert found.error_us == pytest.approx(10, abs=2)


def test_impossible_exchanges_are_ignored() -> None:
    sync = ClockSync()
    sync.add(1000, 0, 5000, 1500)  # the server worked longer than the whole took
    sync.add(2000, 0, 0, 1000)  # the camera's clock ran backwards
    assert sync.estimate(2000) is None


def test_a_server_clock_that_was_set_is_noticed() -> None:
    sync = ClockSync()
    sync.add(0, 10, 10, 20)
    sync.add(1_000_000, 61_000_010, 61_000_010, 1_000_020)
    found = sync.estimate(1_000_020)
    assert found is not None
    assert found.offset_us == 60_000_000
