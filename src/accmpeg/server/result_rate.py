"""How many results a second a server DNN can give, so that no camera sends frames that nobody answers."""

__all__ = ["ResultRate"]

FRAMES, SHORTEST_S, LONGEST_S = 30, 0.5, 2.0
"""Frames are counted until there are so many before an offer is made of them, within these bounds."""
DEAF_S, STRANGE_S = 0.3, 1.0
"""So long after a cut frames still come as before it; so long, a DNN that is put in place is not judged."""
LOADED_SHARE = 0.8
"""Where fewer frames come than this share of what the DNN can do, one that gives way is no sign of overload:
the machine stalled, or frames came in a bunch."""
LEAST_SHARE, SURE_SHARE = 0.5, 0.7
"""Of what the DNN can do: no cut goes below the first, and where no frame is lost the second is sure."""
GROWTH_PER_S = 0.02
"""By so much an offer grows in its first second without a loss, by twice as much every three more."""
FREE_ABOVE = 1.5
"""An offer so many times what comes holds nobody down: there is none."""
LEAST_PER_S = 0.5


class ResultRate:
    """The rate of all live cameras of a server DNN together, found by what happens to their frames.

    While no frame gives way there is no limit. When some do because more come than the DNN can do, the rate
    is cut by their share; then it grows, slowly at first, for a camera may have gone. Every camera is offered
    the same part of it. Pure: time is an argument, in seconds.

    >>> rate = ResultRate()
    >>> rate.per_s(0.0, 2, capacity_per_s=25)
    >>> for frame in range(60):
    ...     rate.saw(answered=frame % 3 == 0)
    >>> rate.per_s(1.0, 2, capacity_per_s=25)
    10.0
    """

    def __init__(self) -> None:
        self._answered = self._lost = 0
        self._since_s: float | None = None
        self._cut_s = 0.0
        self._deaf_until_s = float("-inf")
        self._all_per_s: float | None = None

    def saw(self, *, answered: bool) -> None:
        """A live camera's frame was answered, or gave way because the DNN is behind."""
        if answered:
            self._answered += 1
        else:
            self._lost += 1

    def exchanged(self, now_s: float) -> None:
        """Another DNN is in place: the offer stays until it has shown what it can do."""
        self._deaf_until_s = now_s + STRANGE_S

    def per_s(self, now_s: float, cameras: int, capacity_per_s: float | None) -> float | None:
        """Results a second that each of so many cameras may count on; None without a limit.

        `capacity_per_s`: what the DNN can do by the time that its batches take, None while nothing is known.
        """
        self._renew(now_s, capacity_per_s)
        return None if self._all_per_s is None else max(LEAST_PER_S, self._all_per_s / max(1, cameras))

    def _renew(self, now_s: float, capacity_per_s: float | None) -> None:
        if self._since_s is None or now_s < self._deaf_until_s:
            self._begin(now_s)
            return
        span_s, came = now_s - self._since_s, self._answered + self._lost
        if span_s < SHORTEST_S or (came < FRAMES and span_s < LONGEST_S):
            return
        rate = came / span_s
        if self._lost:
            if capacity_per_s is not None and rate > LOADED_SHARE * capacity_per_s:
                before = rate if self._all_per_s is None else min(rate, self._all_per_s)
                self._all_per_s = max(before * self._answered / came, LEAST_SHARE * capacity_per_s)
                self._cut_s, self._deaf_until_s = now_s, now_s + DEAF_S
        elif self._all_per_s is not None:
            growth = GROWTH_PER_S * 2 ** min(5.0, (now_s - self._cut_s) / 3)
            sure_per_s = SURE_SHARE * (capacity_per_s or 0.0)
            self._all_per_s = max(self._all_per_s * (1 + growth * span_s), sure_per_s)
            if came and self._all_per_s > FREE_ABOVE * rate:
                self._all_per_s = None
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._answered = self._lost = 0
        self._since_s = now_s
