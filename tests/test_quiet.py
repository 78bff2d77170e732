"""A flood of one cause leaves few lines in the log, and they count the others."""

import logging

from accmpeg.quiet import FewRepeats


def record(event: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": event, "levelno": level, **fields})


def test_a_cause_writes_a_line_and_says_later_what_it_left_out() -> None:
    now_s = [0.0]
    quiet = FewRepeats(lambda: now_s[0])
    assert [quiet.filter(record("failed")) for _ in range(3)] == [True, False, False]
    assert quiet.filter(record("refused", code="auth"))
    assert quiet.filter(record("refused", code="busy")), "another cause"
    assert all(quiet.filter(record("left", logging.INFO)) for _ in range(3)), "only warnings are many"
    now_s[0] = 1.1
    assert quiet.filter(later := record("failed"))
    assert later.__dict__["left_out"] == 2


def test_a_flood_without_end_comes_down_to_a_line_a_minute_and_a_new_one_is_told_at_once() -> None:
    now_s = [0.0]
    quiet = FewRepeats(lambda: now_s[0])
    said_s = []
    for tenth in range(6000):
        now_s[0] = tenth / 10
        if quiet.filter(record("failed")):
            said_s.append(now_s[0])
    assert said_s == [0, 1, 3, 7, 15, 31, 63, *range(123, 600, 60)]
    now_s[0] = said_s[-1] + 60
    assert quiet.filter(record("failed"))
    now_s[0] += 61
    assert [quiet.filter(record("failed")) for _ in range(2)] == [True, False]
    now_s[0] += 1
    assert quiet.filter(record("failed")), "after a quiet minute it counts from a second again"
