"""The time, for programs that run for months on machines whose clock may be set meanwhile."""

import time

__all__ = ["SteadyClock"]

_SET_US = 50_000  # the system's clock was set, rather than led along by NTP


class SteadyClock:
    """Two readings of the time, in microseconds since 1970.

    `now_us` never jumps: the system's time at the start, carried on by the monotonic clock. Whatever is a
    length of time (waits, delays, rates) comes from it. `utc_us` says what such a time is on the system's
    clock as it is set *now*: a Raspberry Pi has no clock of its own and begins days behind, until the network
    corrects it, and what runs for months must not keep the wrong day for as long.
    """

    def __init__(self) -> None:
        self._start_us = _system_us() - _monotonic_us()
        self._correction_us = 0

    def now_us(self) -> int:
        return self._start_us + _monotonic_us()

    def now_ms(self) -> float:
        """The same in milliseconds."""
        return self.now_us() / 1000

    def utc_us(self, at_us: int | None = None) -> int:
        """A time of `now_us`, also an earlier one, on the system's clock as it is set at present."""
        now_us = self.now_us()
        off_us = _system_us() - now_us
        if abs(off_us - self._correction_us) > _SET_US:
            self._correction_us = off_us
        return (now_us if at_us is None else at_us) + self._correction_us


def _system_us() -> int:
    return time.time_ns() // 1000


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000
