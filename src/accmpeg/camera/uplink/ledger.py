"""Which frames went to the server and which it has answered, over all connections of a camera's run."""

from accmpeg.camera.outputs import FrameResult
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.unit import TimedUnit
from accmpeg.media.clock import SteadyClock
from accmpeg.protocol.wire import ResultMessage

__all__ = ["Ledger"]


class Ledger:
    """Makes results of answers. A result that comes twice, as after a reconnection, is passed on once."""

    def __init__(self, clock: SteadyClock, stats: CameraStats) -> None:
        self.answered: dict[str, int] = {}
        """Of each stream, the last frame whose result has come."""
        self.had: dict[str, int] = {}
        """Of each earlier run's stream, the last frame that the server had already had: answered then."""
        self._clock = clock
        self._stats = stats
        self._sent: dict[int, tuple[dict[str, float], int]] = {}
        """Of each frame that waits for its result: what each stage took, and when it was captured."""
        self._late: set[int] = set()

    def sent(self, sequence: int, unit: TimedUnit, *, late: bool) -> None:
        """A frame went out; `late` after it had waited in a spool."""
        self._sent[sequence] = unit.stages_ms, unit.captured_us
        if late:
            self._late.add(sequence)

    def lose(self) -> None:
        """What was sent and not answered is lost with its connection."""
        self._stats.add("dropped_lost", len(self._sent))
        self._sent.clear()

    def covers(self, stream_id: str, sequence: int) -> bool:
        """Whether a frame of a stream has been answered, in this run or an earlier one."""
        return sequence <= max(self.answered.get(stream_id, -1), self.had.get(stream_id, -1))

    def take(self, stream_id: str, message: ResultMessage, now_us: int) -> FrameResult | None:
        """The result in an answer, None if it came before."""
        if message.sequence <= self.answered.get(stream_id, -1):
            self._stats.add("repeated_results")
            return None
        self.answered[stream_id] = message.sequence
        stages_ms, captured_us = self._sent.get(message.sequence, ({}, None))
        for sequence in [each for each in self._sent if each <= message.sequence]:
            del self._sent[sequence]
        spooled = message.sequence in self._late
        self._late.discard(message.sequence)
        received_us = self._clock.utc_us(now_us)
        # By the clock that never jumps, where this run captured the frame and has not forgotten it.
        delay_us = received_us - message.captured_us if captured_us is None else now_us - captured_us
        self._stats.add("results")
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
