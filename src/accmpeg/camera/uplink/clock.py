"""How far the server's clock is ahead of the camera's."""

from collections import deque
from dataclasses import dataclass

__all__ = ["ClockEstimate", "ClockSync"]

_DRIFT = 100e-6  # of two ordinary quartz clocks against each other, generously


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
