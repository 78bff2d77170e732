"""A stall is waited for, a queue that stands is not."""

from accmpeg.media.patience import Patience


def test_a_stall_gets_the_long_limit_until_the_queue_has_stood_for_a_second() -> None:
    patience = Patience(standing_s=1, burst_s=3)
    assert patience.limit_s(100) == 3, "nothing was taken: all of it may be a stall"
    patience.took(100, left=5)
    patience.took(100.5, left=2)
    assert [patience.limit_s(now_s) for now_s in (100.9, 101.1)] == [3, 1]


def test_an_empty_queue_forgives() -> None:
    patience = Patience(standing_s=1, burst_s=3)
    patience.took(100, left=5)
    patience.took(101.5, left=0)
    assert patience.limit_s(101.6) == 3
    patience.took(102, left=1)
    assert [patience.limit_s(now_s) for now_s in (102.9, 103.1)] == [3, 1]
