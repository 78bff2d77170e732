"""Chance: blocks and clips drawn again, intervals, p-values.

```
blocks of a clip ─▶ weights: whole, even, odd, halves, draws with replacement ─▶ (a curve for each row)
log ratios (clips, draws) ─▶ clips drawn again, each with a draw of its blocks ─▶ interval, p-value
```

Neighbouring frames are alike, so blocks of ten are drawn, not frames; and clips are drawn because the next
camera looks at another street. Both sides of a comparison see the same draws, so what a block does to both
cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.findings.findings import Interval

__all__ = ["BlockWeights", "Rows", "block_weights", "holm", "over_clips", "p_value", "percent", "span"]

Floats = NDArray[np.float64]
_Number = TypeVar("_Number", bound=np.generic)

OUTER_PER_DRAW = 10
"""Draws of clips per draw of blocks: they only combine curves that are fitted already."""


@dataclass(frozen=True)
class Rows:
    """Which rows of `BlockWeights.weights` belong together: the whole of something, and what chance makes."""

    whole: int
    even: int
    odd: int
    drawn: slice

    def of(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """The rows of an array (rows, …) in the order whole, even, odd, drawn."""
        return np.concatenate([values[[self.whole, self.even, self.odd]], values[self.drawn]])


@dataclass(frozen=True)
class BlockWeights:
    """How often each block of a clip counts, (rows, blocks)."""

    weights: Floats
    clip: Rows
    first: Rows
    """The first half of the blocks alone, on which the best of a group is chosen."""
    second: Rows
    """The second half, on which it is judged."""


def block_weights(blocks: int, draws: int, seed: Sequence[int], *, halves: bool = True) -> BlockWeights:
    """All ways in which a clip of so many blocks is looked at; the middle block is of the second half.

    `halves=False` saves the draws of the halves, where nothing is chosen.
    """
    generator = np.random.default_rng(seed)
    index = np.arange(blocks)
    parts: list[Floats] = []
    rows = []
    start = 0
    members = (index >= 0, index < blocks // 2, index >= blocks // 2)
    for member, count in zip(members, (draws, *([draws if halves else 0] * 2)), strict=True):
        size = int(member.sum())
        drawn = np.zeros((count, blocks))
        if size:
            drawn[:, member] = generator.multinomial(size, np.full(size, 1 / size), count)
        even = index % 2 == 0
        parts += [np.stack([member, member & even, member & ~even]).astype(np.float64), drawn]
        rows.append(Rows(start, start + 1, start + 2, slice(start + 3, start + 3 + count)))
        start += 3 + count
    return BlockWeights(np.concatenate(parts), *rows)


def over_clips(whole: Floats, drawn: Floats, weights: Floats, seed: int) -> Floats:
    """Weighted means over clips drawn with replacement, each with one of its draws of blocks: (outer draws,).

    `whole`: the clips' figures; `drawn`: (clips, draws). A clip that is drawn twice comes with two
    independent draws of its blocks.

    The figures scatter by what differs between clips, variance τ², and by chance on each clip, σ². Both are
    in the spread of `whole`, and drawing blocks would add σ² once more. So the figures are first drawn in
    towards their mean μ, by a factor λ that leaves τ² alone. With p = w / Σ w:

        τ² = max(0, Σ p·(x − μ)² − Σ p(1 − p)·σ²) / Σ p(1 − p)        λ² = τ²·Σ p² / Σ p²·(x − μ)²
    """
    share = weights / weights.sum()
    mean = float(share @ whole)
    chance = drawn.var(axis=1)
    loose = share * (1 - share)
    between = max(0.0, float(share @ (whole - mean) ** 2 - loose @ chance) / float(loose.sum()))
    seen = float(share**2 @ (whole - mean) ** 2)
    shrink = np.sqrt(between * float(share @ share) / seen) if seen > 0 else 0.0
    picked, which = _picks(*drawn.shape, seed)
    values = (mean + shrink * (whole - mean))[picked] + (drawn - whole[:, None])[picked, which]
    weight = weights[picked]
    return np.asarray((weight * values).sum(axis=1) / weight.sum(axis=1))


@lru_cache(maxsize=64)
def _picks(clips: int, draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng((seed, clips, draws))
    shape = (OUTER_PER_DRAW * draws, clips)
    return generator.integers(0, clips, shape), generator.integers(0, draws, shape)


def span(logs: Floats) -> Interval:
    """The central 95 % of drawn log ratios, in percent."""
    low, high = np.percentile(logs, [2.5, 97.5])
    return Interval(percent(float(low)), percent(float(high)))


def percent(log_ratio: float) -> float:
    """
    >>> percent(0.0), round(percent(float(np.log(0.8))), 6)
    (0.0, -20.0)
    """
    return float(100 * np.expm1(log_ratio))


def p_value(logs: Floats) -> float:
    """Two-sided: how often draws of the log ratio lie beyond zero, the estimate counted as a draw.

    >>> p_value(np.array([0.1] * 98 + [-0.1]))
    0.04
    """
    rare = 1 + min(int((logs <= 0).sum()), int((logs >= 0).sum()))
    return min(1.0, 2 * rare / (len(logs) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the k-th smallest of m times m − k + 1, and none below that of a smaller one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = floor
    return corrected
