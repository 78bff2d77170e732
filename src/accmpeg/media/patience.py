"""How long frames wait for a worker that is behind, where newer ones are worth more."""

__all__ = ["Patience"]


class Patience:
    """Tells a delay that passes from a worker that is too slow, as CoDel does (Nichols and Jacobson 2012).

    While the queue runs empty now and then, frames may wait for `burst_s`, so that a short stall of the
    machine loses none. Where it has not been empty for `INTERVAL_S`, more frames come than can be done, and
    waiting would only make all of them late: then only for `standing_s`. Not for several threads at once.

    >>> patience = Patience(standing_s=0.1, burst_s=0.3)
    >>> patience.took(now_s=10, left=2)
    >>> patience.limit_s(now_s=10.5), patience.limit_s(now_s=11.5)
    (0.3, 0.1)
    """

    INTERVAL_S = 1.0

    def __init__(self, *, standing_s: float, burst_s: float) -> None:
        self._standing_s = standing_s
        self._burst_s = burst_s
        self._behind_since_s: float | None = None

    def took(self, now_s: float, left: int) -> None:
        """The worker took a frame, and so many still wait."""
        if not left:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = now_s

    def limit_s(self, now_s: float) -> float:
        """So old a frame may now be where a newer one waits."""
        behind = self._behind_since_s is not None and now_s - self._behind_since_s > self.INTERVAL_S
        return self._standing_s if behind else self._burst_s
