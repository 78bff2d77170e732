"""How long to wait before something that failed is tried again."""

from collections.abc import Callable
from typing import ClassVar

__all__ = ["Backoff"]


class Backoff:
    """Waits of `FIRST_S` seconds, doubled by every failure up to `LONGEST_S`; a success begins anew.

    Args:
        jitter: Gives a random number in [0, 1), by which a wait becomes up to half shorter: those that lost
            the same server must not all come back at once. Without it every wait is the whole one.

    >>> backoff = Backoff()
    >>> [backoff.failed() for _ in range(6)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    >>> backoff.succeeded()
    >>> backoff.failed()
    1.0
    """

    FIRST_S: ClassVar[float] = 1.0
    LONGEST_S: ClassVar[float] = 30.0

    def __init__(self, jitter: Callable[[], float] = lambda: 0.0) -> None:
        self._jitter = jitter
        self._failures = 0

    def failed(self) -> float:
        """Counts a failure; returns the seconds to wait before the next attempt."""
        # Beyond ten doublings it is the longest wait anyway, and the power would overflow in some weeks.
        whole_s = min(self.LONGEST_S, self.FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return whole_s * (1 - 0.5 * self._jitter())

    def succeeded(self) -> None:
        """Forgets the failures."""
        self._failures = 0
