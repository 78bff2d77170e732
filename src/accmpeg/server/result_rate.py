"""How many results a second a server DNN can give, so that no camera sends frames that nobody answers."""

__all__ = ["ResultRate"]

FRAMES, SHORTEST_S, LONGEST_S = 30, 0.5, 2.0
"""Frames are counted until there are so many before an offer is made of them, within these bounds."""
DEAF_S = 0.3
"""So long after a cut frames still come as before it."""
GROWTH_PER_S = 0.02
"""By so much an offer grows in its first second without a loss, by twice as much every three more."""
FREE_ABOVE = 1.5
"""An offer so many times what comes holds nobody down: there is none."""
LEAST_PER_S = 0.5


class ResultRate:
    """The rate of all live cameras of a server DNN together, found by what happens to their frames.

    While no frame gives way there is no limit. When some do, the rate is cut by their share; then it grows,
    slowly at first, for a camera may have gone. Every camera is offered the same part of it. Pure: time is an
    argument, in seconds.

    >>> rate = ResultRate()
    >>> rate.per_s(0.0, cameras=2)
    >>> for frame in range(60):
    ...     rate.saw(answered=frame % 3 == 0)
    >>> rate.per_s(1.0, cameras=2)
    10.0
    """

    def __init__(self) -> None:
        self._answered = self._lost = 0
        self._since_s: float | None = None
        self._cut_s = 0.0
        self._all_per_s: float | None = None

    def saw(self, *, answered: bool) -> None:
        """A live camera's frame was answered, or gave way because the DNN is behind."""
        if answered:
            self._answered += 1
        else:
            self._lost += 1

    def per_s(self, now_s: float, cameras: int) -> float | None:
        """Results a second that each of so many cameras may count on; None without a limit."""
        self._renew(now_s)
        return None if self._all_per_s is None else max(LEAST_PER_S, self._all_per_s / max(1, cameras))

    def _renew(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s
        span_s, came = now_s - self._since_s, self._answered + self._lost
        if now_s - self._cut_s < DEAF_S and self._all_per_s is not None:
            self._begin(now_s)
            return
        if span_s < SHORTEST_S or (came < FRAMES and span_s < LONGEST_S):
            return
        rate = came / span_s
        if self._lost:
            before = rate if self._all_per_s is None else min(rate, self._all_per_s)
            self._all_per_s, self._cut_s = before * self._answered / came, now_s
        elif self._all_per_s is not None:
            growth = GROWTH_PER_S * 2 ** min(5.0, (now_s - self._cut_s) / 3)
            self._all_per_s *= 1 + growth * span_s
            if came and self._all_per_s > FREE_ABOVE * rate:
                self._all_per_s = None
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._answered = self._lost = 0
        self._since_s = now_s
