"""Which frames have been answered, where answers come in another order than frames went."""

from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.ledger import REORDERED, Ledger
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.wire import ResultMessage

RUN, EARLIER = "run", "earlier"


def ledger() -> tuple[Ledger, CameraStats]:
    stats = CameraStats()
    return Ledger(SteadyClock(), stats), stats


def send(ledger: Ledger, *sequences: int, stream_id: str = RUN) -> None:
    for sequence in sequences:
        unit = TimedUnit(b"", sequence, False, 1000 * sequence, 1000 * sequence, (32, 32), {"wait": 1.0})
        ledger.sent(stream_id, sequence, unit, late=False)


def take(ledger: Ledger, *sequences: int, stream_id: str = RUN) -> list[int]:
    """Those whose results are passed on."""
    found = [
        ledger.take(stream_id, ResultMessage(sequence=each, pts=each, captured_us=0), 0) for each in sequences
    ]
    return [each.sequence for each in found if each is not None]


def test_an_answer_that_overtakes_covers_nothing_before_it() -> None:
    book, stats = ledger()
    send(book, 0, 1, 2, 3)
    assert take(book, 0, 2, 3) == [0, 2, 3]
    assert book.answered[RUN] == 0, "frame 1 is the one that the others are built on"
    assert not book.covers(RUN, 3)
    assert take(book, 2, 1, 1) == [1]
    assert book.covers(RUN, 3)
    assert stats.get("repeated_results") == 2


def test_what_was_never_sent_holds_nothing_up() -> None:
    book, _ = ledger()
    send(book, 0, 5)
    assert take(book, 0, 5) == [0, 5]
    assert book.answered[RUN] == 5


def test_a_result_that_never_comes_is_given_up_in_the_end() -> None:
    book, _ = ledger()
    send(book, *range(REORDERED + 3))
    take(book, *range(1, REORDERED + 3))
    assert book.answered[RUN] >= 2
    assert take(book, 0) == []


def test_frames_that_go_again_for_the_decoder_alone_are_not_waited_for() -> None:
    book, stats = ledger()
    send(book, 0, 1, 2)
    take(book, 0, 1)
    send(book, 0, 1, 2, 3)  # over a new connection, from the keyframe on
    assert take(book, 2, 3) == [2, 3]
    assert book.covers(RUN, 3)
    book.had[EARLIER] = 4
    send(book, 3, 4, 5, stream_id=EARLIER)
    assert take(book, 5, stream_id=EARLIER) == [5]
    assert book.covers(EARLIER, 5)
    send(book, 4)
    book.lose()
    book.give_up()
    assert stats.get("dropped_lost") >= 1


def test_a_frame_is_counted_once_where_its_result_comes_over_the_next_connection() -> None:
    book, stats = ledger()
    send(book, *range(5))
    take(book, 0, 1)
    book.lose()
    send(book, 5)
    counted = []
    for sequence in (2, 3, 5):
        assert take(book, sequence) == [sequence]
        counted.append(stats.get("dropped_lost"))
    assert counted == [0, 0, 1], "a count never falls"
    assert stats.get("results") + stats.get("dropped_lost") == 6


def test_frames_of_a_server_that_stays_away_are_counted_as_lost() -> None:
    book, stats = ledger()
    send(book, 0, 1)
    book.lose()
    send(book, 2)
    book.lose()
    assert stats.get("dropped_lost") == 2
    book.give_up()
    assert stats.get("dropped_lost") == 3
