"""A method against a baseline over clips: figures, intervals, nulls.

```
Track of the method   ─▶ Side ┐ per clip                ┌▶ micro, macro, median, worst
                              ├─▶ log ratios (rows) ────┼▶ drawn: clips × blocks ─▶ intervals, p
Track of the baseline ─▶ Side ┘ whole, even, odd, drawn └▶ (even − odd) / 2 ─▶ null
```
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accmpeg.evaluation.findings.findings import (
    BD_BAND,
    HEADLINE_TARGETS,
    JITTER_ABOVE,
    LEVELS,
    MIN_CLIPS,
    TARGETS,
    Along,
    ClipGap,
    Comparison,
    Gap,
    Rule,
)
from accmpeg.evaluation.findings.measured import Track
from accmpeg.evaluation.findings.resampling import Rows, over_clips, p_value, percent, span

__all__ = ["WHOLE", "Panel", "Side", "compare", "side_of"]

Floats = NDArray[np.float64]

WHOLE, EVEN, ODD, DRAWN = 0, 1, 2, slice(3, None)
"""Rows of `Side.logs`."""

_MIN_BD_LEVELS = 6
"""Five hundredths of the ceiling: a BD-rate over less is one point's noise."""
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Panel:
    """The clips of a comparison, with what they weigh."""

    clips: tuple[str, ...]
    weights: Floats
    seed: int


@dataclass(frozen=True)
class Side:
    """One side of a comparison on one clip."""

    logs: Floats
    """(whole, even, odd, draws…; targets)."""
    why: tuple[str, ...]
    """By target, where there is no figure."""
    chosen: tuple[str, ...] = ()
    """By target, for the best of a group: the member that stands for it."""


@dataclass(frozen=True)
class _Logs:
    """The log ratios of the clips that have one."""

    having: list[int]
    whole: Floats
    null: Floats
    drawn: Floats


def side_of(track: Track, rows: Rows, part: str = "") -> Side:
    """A track as seen by some rows; `part` names them where they are not the whole clip."""
    if not len(track.logs):
        return Side(np.empty((0, len(track.targets))), track.why)
    why = track.why
    if part:
        why = tuple(
            f"does not cross {target:.0%} on {part}" if side else ""
            for target, side in zip(track.targets, track.side[rows.whole], strict=True)
        )
    return Side(rows.of(track.logs), why)


def compare(
    panel: Panel,
    names: tuple[str, str],
    sides: Sequence[tuple[Side, Side]],
    *,
    rule: Rule = "fixed",
    link: str | None = None,
    primary: bool = False,
) -> Comparison:
    """Two names, and their sides for each clip of the panel; all sides have the targets of one kind of track:
    LEVELS for bitrates, HEADLINE_TARGETS for delays."""
    levels = LEVELS if link is None else HEADLINE_TARGETS
    gaps = {
        level: _gap(panel, level, sides, number)
        for number, level in enumerate(levels)
        if rule == "fixed" or level in TARGETS
    }
    line = link is None and rule == "fixed"
    return Comparison(
        *names,
        rule=rule,
        link=link,
        primary=primary,
        gaps=tuple(gap for level, gap in gaps.items() if level in TARGETS),
        bd=_bd_gap(panel, sides) if link is None and rule in ("fixed", "null") else None,
        along=tuple(Along(level, gap.percent, gap.interval, gap.reached) for level, gap in gaps.items())
        if line
        else (),
    )


def _gap(panel: Panel, level: float, sides: Sequence[tuple[Side, Side]], number: int) -> Gap:
    ratios: list[Floats | None] = []
    whys, chosen = [], []
    for pair in sides:
        why = "; ".join(dict.fromkeys(side.why[number] for side in pair if side.why[number]))
        ratio = None if why else pair[0].logs[:, number] - pair[1].logs[:, number]
        if ratio is not None and not np.isfinite(ratio[WHOLE]):
            ratio, why = None, "the score is undefined"
        ratios.append(ratio)
        whys.append(why)
        chosen.append(tuple(side.chosen[number] if side.chosen else "" for side in pair))
    return _summary(panel, level, ratios, whys, chosen)


def _bd_gap(panel: Panel, sides: Sequence[tuple[Side, Side]]) -> Gap:
    """Mean log ratio over the levels in the band that both curves reach, by the trapezoid rule."""
    band = [number for number, level in enumerate(LEVELS) if BD_BAND[0] <= level <= BD_BAND[1]]
    ratios: list[Floats | None] = []
    whys = []
    for own, base in sides:
        common = [number for number in band if not own.why[number] and not base.why[number]]
        if len(common) < _MIN_BD_LEVELS:
            ratios.append(None)
            whys.append(f"the curves share only {max(0, len(common) - 1)} hundredths of the ceiling")
            continue
        weights = np.ones(len(common))
        weights[[0, -1]] = 0.5
        difference = own.logs[:, common] - base.logs[:, common]
        ratios.append(difference @ weights / weights.sum())
        whys.append("")
    return _summary(panel, None, ratios, whys, [("", "")] * len(whys))


def _summary(
    panel: Panel,
    target: float | None,
    ratios: Sequence[Floats | None],
    whys: Sequence[str],
    chosen: Sequence[tuple[str, ...]],
) -> Gap:
    logs = _stack(ratios)
    weights = panel.weights[logs.having]
    nulls = dict(zip(logs.having, logs.null, strict=True))
    clips = tuple(
        ClipGap(
            clip,
            float(panel.weights[index]),
            None if ratio is None else percent(float(ratio[WHOLE])),
            percent(nulls[index]) if index in nulls and np.isfinite(nulls[index]) else None,
            why,
            *names,
        )
        for index, (clip, ratio, why, names) in enumerate(zip(panel.clips, ratios, whys, chosen, strict=True))
    )
    jitter = target is not None and target >= JITTER_ABOVE
    if not logs.having:
        return Gap(
            target, None, None, None, None, None, None, None, "", 0, clips, None, None, False, jitter=jitter
        )
    estimate = float(np.average(logs.whole, weights=weights))
    worst = int(np.argmax(logs.whole))
    interval = these = macro = p = None
    if len(logs.having) >= MIN_CLIPS:
        drawn = over_clips(logs.whole, logs.drawn, weights, panel.seed)
        interval, p = span(drawn), p_value(drawn)
        these = span(np.average(logs.drawn, axis=0, weights=weights))
        macro = span(over_clips(logs.whole, logs.drawn, np.ones_like(weights), panel.seed))
    null, spread = _null(logs.null, weights)
    return Gap(
        target=target,
        percent=percent(estimate),
        interval=interval,
        interval_these_clips=these,
        macro_percent=percent(float(logs.whole.mean())),
        macro_interval=macro,
        median_percent=percent(float(np.median(logs.whole))),
        worst_percent=percent(float(logs.whole[worst])),
        worst_clip=panel.clips[logs.having[worst]],
        reached=len(logs.having),
        clips=clips,
        null_percent=None if null is None else percent(null),
        null_spread_percent=None if spread is None else percent(spread),
        no_effect=spread is not None and abs(estimate) <= spread,
        clips_within_percent=_within(logs.whole),
        null_clips_within_percent=_within(logs.null),
        p=p,
        jitter=jitter,
    )


def _stack(ratios: Sequence[Floats | None]) -> _Logs:
    having = [index for index, ratio in enumerate(ratios) if ratio is not None]
    if not having:
        empty = np.empty(0)
        return _Logs([], empty, empty, empty)
    stacked = np.stack([ratio for ratio in ratios if ratio is not None])
    whole = stacked[:, WHOLE]
    # A draw without any object has no score; it then says what the whole clip says.
    drawn = np.where(np.isfinite(stacked[:, DRAWN]), stacked[:, DRAWN], whole[:, None])
    return _Logs(having, whole, (stacked[:, EVEN] - stacked[:, ODD]) / 2, drawn)


def _null(nulls: Floats, weights: Floats) -> tuple[float | None, float | None]:
    """The mean over clips, and the half width of 95 % of such means if the sign on each clip is chance."""
    known = np.isfinite(nulls)
    if not known.any():
        return None, None
    nulls, weights = nulls[known], weights[known]
    mean = float(np.average(nulls, weights=weights))
    return mean, float(_NORMAL_95 * np.sqrt(((weights * nulls) ** 2).sum()) / weights.sum())


def _within(logs: Floats) -> float | None:
    finite = logs[np.isfinite(logs)]
    return float(np.percentile(np.abs(100 * np.expm1(finite)), 95)) if len(finite) else None
