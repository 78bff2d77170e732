"""Where to measure next: a coarse look, then the operating points that close the widest gap in the band.

Pure: the next point follows from those measured so far, so a sweep that was killed goes on to the same ones.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

__all__ = ["BAND", "COARSE", "between", "next_quality"]

BAND = (0.80, 0.98)
"""Of the ceiling: below, answers are lost that nobody would give up; above, S sees the DNN's own jitter."""

COARSE = (26, 34, 42)
_FINEST, _COARSEST = 10, 51
_STRIDE = 6


def next_quality(measured: Mapping[int, float], count: int, *, shift: int = 0) -> int | None:
    """The next QP or CRF to measure, given the relative score S of those measured; None when it is enough.

    First the coarse ones (moved by `shift`); then beyond them while the band is not spanned; then the middle
    of the two neighbours whose scores lie furthest apart inside the band.

    >>> next_quality({26: 0.99, 34: 0.95, 42: 0.75}, count=7)
    38
    """
    for quality in (min(_COARSEST, max(_FINEST, level + shift)) for level in COARSE):
        if quality not in measured:
            return quality
    if len(measured) >= count:
        return None
    finest, coarsest = min(measured), max(measured)
    if measured[coarsest] > BAND[0] and coarsest < _COARSEST:
        return min(_COARSEST, coarsest + _STRIDE)
    if measured[finest] < BAND[1] and finest > _FINEST and not _levels_off(measured):
        return max(_FINEST, finest - _STRIDE)
    gaps = [
        (_gap(measured[a], measured[b]), b - a, (a + b) // 2)
        for a, b in pairwise(sorted(measured))
        if b - a > 1
    ]
    if not gaps or max(gaps)[0] <= 0:
        return None
    return max(gaps)[2]


def between(measured: Sequence[int]) -> list[float]:
    """Qualities between neighbours: where a method is measured again, to be compared with itself.

    >>> between([26, 34, 35])
    [30.0, 34.5]
    """
    return [(a + b) / 2 for a, b in pairwise(sorted(measured))]


def _gap(a: float, b: float) -> float:
    low, high = sorted((a, b))
    return max(0.0, min(high, BAND[1]) - max(low, BAND[0]))


def _levels_off(measured: Mapping[int, float]) -> bool:
    """Finer no longer helps: a stream of few pixels never reaches the ceiling of many."""
    finest = sorted(measured)[:2]
    return (
        len(finest) == 2
        and finest[1] - finest[0] <= _STRIDE
        and abs(measured[finest[0]] - measured[finest[1]]) < 0.005
    )
