"""Which frames went to the server and which it has answered, over all connections of a camera's run."""

from typing import Any

from accmpeg.camera.outputs import FrameResult
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.wire import ResultMessage

__all__ = ["Ledger"]


REORDERED = 32
"""Decoders put 16 frames in order at most, and the server gives up a frame that is overtaken by 17: an answer
that is overtaken by more was lost."""


class Ledger:
    """Makes results of answers, which come in the order of display: with B-frames not in that of sending.

    A result that comes twice, as after a reconnection, is passed on once.
    """

    def __init__(self, clock: SteadyClock, stats: CameraStats) -> None:
        self.answered: dict[str, int] = {}
        """Of each stream, the frame up to which the results of all that were sent have come."""
        self.had: dict[str, int] = {}
        """Of each earlier run's stream, the last frame that the server had already had: answered then."""
        self._clock = clock
        self._stats = stats
        self._sent: dict[str, dict[int, tuple[dict[str, float], int, bool]]] = {}
        """Of each frame that waits for its result: what each stage took, when it was captured, and whether it
        had waited in a spool."""
        self._lost: set[int] = set()
        """Frames that the last break took, whose results may still come over the next connection."""
        self._early: dict[str, set[int]] = {}
        """Frames beyond `answered` whose results have come."""

    def sent(self, stream_id: str, sequence: int, unit: TimedUnit, *, late: bool) -> None:
        """A frame went out; `late` after it had waited in a spool."""
        if not self._has_come(stream_id, sequence):
            waiting = self._sent.setdefault(stream_id, {})
            waiting[sequence] = unit.stages_ms, unit.captured_us, late

    def lose(self) -> None:
        """What was sent and not answered is lost with its connection, unless the next tells its result."""
        self.give_up()
        self._lost = {sequence for waiting in self._sent.values() for sequence in waiting}
        self._sent.clear()

    def give_up(self) -> None:
        """No more results come of what was lost. It is counted only now, for a count never falls."""
        self._stats.add("dropped_lost", len(self._lost))
        self._lost.clear()

    def covers(self, stream_id: str, sequence: int) -> bool:
        """Whether a frame of a stream, and all before it, were answered, in this run or an earlier one."""
        return sequence <= max(self.answered.get(stream_id, -1), self.had.get(stream_id, -1))

    def take(
        self, stream_id: str, message: ResultMessage, now_us: int, *, late: bool = False
    ) -> FrameResult | None:
        """The result in an answer, None if it came before; `late` where an earlier connection lost it."""
        if self._has_come(stream_id, message.sequence):
            self._stats.add("repeated_results")
            return None
        unknown: tuple[dict[str, float], int | None, bool] = ({}, None, False)
        waiting = self._sent.setdefault(stream_id, {})
        stages_ms, captured_us, spooled = waiting.pop(message.sequence, unknown)
        spooled = spooled or late
        self._settle(stream_id, message.sequence, waiting)
        received_us = self._clock.utc_us(now_us)
        # By the clock that never jumps, where this run captured the frame and has not forgotten it.
        delay_us = received_us - message.captured_us if captured_us is None else now_us - captured_us
        self._stats.add("results")
        self._lost.discard(message.sequence)
        if self._lost and message.sequence > max(self._lost):  # that of a frame of this connection
            self.give_up()
        if message.dropped is not None:
            self._stats.add("dropped_server")
        elif not spooled:
            self._stats.delay(delay_us / 1000)
        return FrameResult(
            stream_id=stream_id,
            sequence=message.sequence,
            pts=message.pts,
            captured_us=message.captured_us,
            received_us=received_us,
            delay_ms=round(delay_us / 1000, 3),
            spooled=spooled,
            result=message.result,
            dropped=message.dropped,
            camera_ms=stages_ms,
            server_ms=message.server_ms,
        )

    def _has_come(self, stream_id: str, sequence: int) -> bool:
        return sequence <= self.answered.get(stream_id, -1) or sequence in self._early.get(stream_id, ())

    def _settle(self, stream_id: str, sequence: int, waiting: dict[int, Any]) -> None:
        """Moves `answered` on, after a result has come."""
        early = self._early.setdefault(stream_id, set()) | {sequence}
        newest, had = max(early), self.had.get(stream_id, -1)
        first_open = min((each for each in waiting if each > had), default=newest + 1)
        answered = max(min(newest, first_open - 1), newest - REORDERED, self.answered.get(stream_id, -1))
        self.answered[stream_id] = answered
        self._early[stream_id] = {each for each in early if each > answered}
        for each in [each for each in waiting if each <= answered]:
            del waiting[each]
