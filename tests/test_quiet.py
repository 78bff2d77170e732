"""A flood of one cause leaves few lines in the log, and they count the others."""

import logging

from accmpeg.quiet import ALL, ALL_S, NEWS, FewRepeats


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


def test_news_of_cameras_come_in_bursts_whatever_names_they_give_themselves() -> None:
    now_s = [0.0]
    quiet = FewRepeats(lambda: now_s[0])

    def came(camera: str) -> logging.LogRecord:
        return record("came", logging.INFO, camera=camera)

    assert sum(quiet.filter(came("gate")) for _ in range(100)) == NEWS
    assert quiet.filter(came("yard")), "another camera is as much news as before"
    now_s[0] = 61.0
    assert quiet.filter(later := came("gate"))
    assert later.__dict__["left_out"] == 100 - NEWS
    assert not quiet.filter(came("gate"))
    said = sum(quiet.filter(came(f"camera-{n}")) for n in range(10 * ALL))
    assert said < ALL
    now_s[0] += ALL_S
    assert quiet.filter(later := came("the-next-one"))
    assert later.__dict__["left_out"] == 10 * ALL - said
