"""The camera's clock, and how far the server's is ahead of it."""

import time
from collections import deque
from dataclasses import dataclass

__all__ = ["CameraClock", "ClockEstimate", "ClockSync"]

_SET_US = 50_000  # the system's clock was set, rather than led along by NTP
_DRIFT = 100e-6  # of two ordinary quartz clocks against each other, generously


class CameraClock:
    """Two readings of the time, in microseconds since 1970.

    `now_us` never jumps: the system's time at the start, carried on by the monotonic clock. Whatever is a
    length of time (waits, delays, rates) comes from it. `utc_us` says what such a time is on the system's
    clock as it is set *now*: a Raspberry Pi has no clock of its own and begins days behind, until the network
    corrects it, and a camera that runs for months must not keep the wrong day for as long.
    """

    def __init__(self) -> None:
        self._start_us = _system_us() - _monotonic_us()
        self._correction_us = 0

    def now_us(self) -> int:
        return self._start_us + _monotonic_us()

    def now_ms(self) -> float:
        """The same in milliseconds."""
        return self.now_us() / 1000

    def utc_us(self, at_us: int) -> int:
        """A time of `now_us`, also an earlier one, by the system's clock as it is set at present."""
        off_us = _system_us() - self.now_us()
        if abs(off_us - self._correction_us) > _SET_US:
            self._correction_us = off_us
        return at_us + self._correction_us


def _system_us() -> int:
    return time.time_ns() // 1000


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """The server's clock is `offset_us` ahead of the camera's, give or take `error_us`."""

    offset_us: int
    error_us: int
    round_trip_us: int


class ClockSync:
    """Keeps the exchange with the shortest round trip of a window (as NTP's clock filter does, RFC 5905).

    With t1 sent, t2 received, t3 replied, t4 back: offset = ((t2 − t1) + (t3 − t4)) / 2, and the truth lies
    within half of the round trip (t4 − t1) − (t3 − t2) of it. Older samples lose to drift of 100 ppm.
    Times are microseconds; `now_us` is the camera's clock.
    """

    def __init__(self, window_us: int = 60_000_000) -> None:
        self._window_us = window_us
        self._samples: deque[tuple[int, int, int]] = deque()

    def add(self, sent_us: int, received_us: int, replied_us: int, now_us: int) -> None:
        """Takes one exchange; one that no honest clocks could give (a clock jumped meanwhile) is ignored."""
        round_trip_us = (now_us - sent_us) - (replied_us - received_us)
        if round_trip_us < 0 or replied_us < received_us or now_us < sent_us:
            return
        offset_us = ((received_us - sent_us) + (replied_us - now_us)) // 2
        if self._samples:
            known = self.estimate(now_us)
            if known is not None and abs(offset_us - known.offset_us) > known.error_us + round_trip_us:
                self._samples.clear()  # the server's clock was set: what was known of it is void
        self._samples.append((now_us, round_trip_us, offset_us))

    def estimate(self, now_us: int) -> ClockEstimate | None:
        """The best that is known now, or None before the first exchange."""
        while len(self._samples) > 1 and now_us - self._samples[0][0] > self._window_us:
            self._samples.popleft()
        if not self._samples:
            return None
        error_us, round_trip_us, offset_us = min(
            ((round_trip // 2 + int(_DRIFT * (now_us - at)) + 1, round_trip, offset)
             for at, round_trip, offset in self._samples)
        )  # fmt: skip
        return ClockEstimate(offset_us, error_us, round_trip_us)
