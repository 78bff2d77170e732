"""Every figure of a sweep, once: `analysis.find` computes it; reports, charts and tables only render.

```
Findings ─▶ DnnFindings ─┬▶ points             every finished cell: bitrate, scores, measures, delays
                         ├▶ camera             cost over plain x264, by method
                         └▶ ReferenceFindings ─┬▶ clips            ceilings, weights, who is left out and why
                                               ├▶ curves           bitrate at each level, by clip and method
                                               ├▶ operating_points delay and age at the targets, by method
                                               ├▶ comparisons      method against baseline: bitrate and delay
                                               ├▶ best_of          the same for groups, cross-fitted
                                               └▶ nulls            a method against itself
```

Values only: no rendering, no files. All percents are of the ratio method / baseline: −20 means a fifth less.
None stands where there is no figure; a sentence beside it (`why`, `notes`) says what is missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

from accmpeg.evaluation.bench.rows import Delay, ReferenceName, Role

__all__ = [
    "BD_BAND",
    "HEADLINE_TARGETS",
    "JITTER_ABOVE",
    "LEVELS",
    "MIN_CEILING",
    "MIN_CLIPS",
    "TARGETS",
    "Along",
    "CameraCost",
    "ClipFindings",
    "ClipGap",
    "Comparison",
    "Curve",
    "DnnFindings",
    "Findings",
    "Gap",
    "Interval",
    "Point",
    "ReferenceFindings",
    "Rule",
    "TargetPoint",
]

HEADLINE_TARGETS = (0.90, 0.95)
"""Shares of the ceiling at which bitrates, delays and primary comparisons are told."""
TARGETS = (0.80, 0.85, 0.90, 0.95, 0.98)
"""Which method wins may change along the curve, so a gap is told at each of these."""
LEVELS = (*(round(0.80 + 0.01 * step, 2) for step in range(16)), 0.98)
"""Shares of the ceiling of the finer line `Comparison.along` and of `Curve.at`; holds all targets."""
BD_BAND = (0.80, 0.95)
JITTER_ABOVE = 0.98
"""From here on the score sees the DNN's own jitter; gaps there are marked."""
MIN_CEILING = 0.5
"""A clip on which even a visually lossless stream scores less says nothing about streams."""
MIN_CLIPS = 8
"""Fewer clips have no interval."""

Rule = Literal["fixed", "halves", "others", "null"]
"""How the two sides were chosen. `fixed`: named beforehand. `halves`: the best of a group, chosen on each
clip's first half of blocks and judged on its second. `others`: chosen on the other clips, judged on the whole
clip. `null`: a method's points between its own operating points against its operating points."""


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap 95 % interval, in the unit of the figure it belongs to."""

    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A finished cell. Points that a curve does not use say so in `why_unused`."""

    clip: str
    method: str
    role: Role
    quality: float
    bitrate_bps: float
    """(keyframe / GOP + mean of the other frames) · 8 · frame rate."""
    scores: Mapping[ReferenceName, float]
    """S against each reference that the clip has."""
    relative: Mapping[ReferenceName, float]
    """S over the clip's ceiling; missing where the clip has none."""
    measures: Mapping[str, float]
    """AP@0.5, F1 and so on, as people know them; secondary."""
    stream_size_px: tuple[int, int]
    camera_ms: float
    camera_ratio: float
    delays: Mapping[str, Delay]
    """By link; links over which this cell has no delay (overload) are missing."""
    paper_delay_s: Mapping[str, float]
    why_unused: str = ""


@dataclass(frozen=True)
class ClipFindings:
    """A clip under one reference. Clips with `why_left_out` are in no mean."""

    clip: str
    ceiling: float | None
    """S of a visually lossless stream of the source."""
    uncoded: Mapping[str, float]
    """S over the ceiling of pristine frames scaled to a stream's size, by the name of the row's method."""
    weight: float
    """Objects counted (Σ of the reference's weights), or measured frames for segmentation."""
    source_bitrate_bps: float
    """Of the clip's own file; 0 where it has none."""
    frames: int
    blocks: int
    why_left_out: str = ""


@dataclass(frozen=True)
class Curve:
    """S over the ceiling against bitrate of one method on one clip: the isotonic fit on log bitrate."""

    clip: str
    method: str
    bitrate_bps: tuple[float, ...]
    """Of the points used, rising."""
    relative: tuple[float, ...]
    """As measured at these bitrates."""
    fitted: tuple[float, ...]
    """As fitted: never falling."""
    at: Mapping[float, float | None]
    """By level (see LEVELS): the smallest bitrate in bit/s that reaches it; None where it is not reached, or
    already exceeded at the smallest point."""


@dataclass(frozen=True)
class ClipGap:
    """Method against baseline on one clip at one target."""

    clip: str
    weight: float
    percent: float | None
    null_percent: float | None = None
    """Half the difference between the figures from the even and from the odd blocks: what chance does."""
    why: str = ""
    """Why there is no figure."""
    method: str = ""
    """Which member stands for the method on this clip, where it is the best of a group."""
    baseline: str = ""
    """The same for the baseline."""


@dataclass(frozen=True)
class Gap:
    """Method against baseline at one target, over the clips on which both have a figure.

    `percent` is 100·(exp(Σ w·log r / Σ w) − 1) with r = method / baseline of a clip and w the objects
    counted on it, so that every object counts once; `macro_percent` has equal w.
    """

    target: float | None
    """Share of the ceiling; None for the BD-rate over BD_BAND."""
    percent: float | None
    interval: Interval | None
    """Over clips and, inside them, blocks of ten frames: what other clips might show."""
    interval_these_clips: Interval | None
    """Over blocks only: the sampling noise on these very clips."""
    macro_percent: float | None
    macro_interval: Interval | None
    median_percent: float | None
    worst_percent: float | None
    worst_clip: str
    reached: int
    """Clips with a figure."""
    clips: tuple[ClipGap, ...]
    null_percent: float | None
    """The alternating-block null: the same mean of the clips' own nulls. Its expectation is zero."""
    null_spread_percent: float | None
    """Chance alone, on these clips, stays within ± this in 95 of 100 cases: 1.96·√(Σ (w·null)²) / Σ w."""
    no_effect: bool
    """There is a figure, but it is smaller than the null's spread."""
    clips_within_percent: float | None = None
    """95 % of the clips' figures lie within ± this; what a null is judged by."""
    null_clips_within_percent: float | None = None
    """The same of the clips' alternating-block nulls."""
    p: float | None = None
    """Two-sided bootstrap p-value; only of primary comparisons at headline targets with an interval."""
    p_holm: float | None = None
    """Corrected for all p-values of the DNN and reference."""
    jitter: bool = False
    """The target lies where the score sees the DNN's own jitter."""


@dataclass(frozen=True)
class Along:
    """A point of the gap's line along the curve: micro mean, as in `Gap`."""

    level: float
    percent: float | None
    interval: Interval | None
    clips: int


@dataclass(frozen=True)
class Comparison:
    """A method (or the best of a group) against a baseline."""

    method: str
    baseline: str
    rule: Rule
    link: str | None
    """None for bitrate; the link's name for mean delay at the operating point."""
    primary: bool
    """Named beforehand; everything else is exploratory."""
    gaps: tuple[Gap, ...]
    """At TARGETS; delays at HEADLINE_TARGETS."""
    bd: Gap | None = None
    """BD-rate over BD_BAND, as far as both curves reach; bitrate only."""
    along: tuple[Along, ...] = ()
    """At LEVELS; bitrate under rule `fixed` only."""

    def gap(self, target: float) -> Gap | None:
        return next((gap for gap in self.gaps if gap.target == target), None)


@dataclass(frozen=True)
class TargetPoint:
    """A method at a target: micro means over the clips on which it has the figure.

    Delays are those of the measured points, interpolated over log bitrate to where the curve reaches the
    target; the five parts add up to the mean.
    """

    method: str
    target: float
    bitrate_bps: float | None
    """Geometric micro mean over the clips that reach the target."""
    bitrate_clips: int
    delays: Mapping[str, Delay]
    """By link."""
    delay_clips: Mapping[str, int]
    why_no_delay: Mapping[str, tuple[str, ...]]
    """By link: a sentence per clip that has the bitrate but no delay."""


@dataclass(frozen=True)
class CameraCost:
    """CPU time of the camera; medians over the points of a clip, then over clips."""

    method: str
    ratio: float
    """To plain x264 (aq-1) at the source size."""
    ms: float
    """Per source frame."""
    clips: Mapping[str, float]
    """The ratio by clip."""


@dataclass(frozen=True)
class ReferenceFindings:
    """Everything that depends on what the score is counted against."""

    reference: ReferenceName
    clips: tuple[ClipFindings, ...]
    curves: tuple[Curve, ...]
    operating_points: tuple[TargetPoint, ...]
    """By method, then HEADLINE_TARGETS."""
    comparisons: tuple[Comparison, ...]
    """Every method against every baseline, bitrate first, then delay by link."""
    best_of: tuple[Comparison, ...]
    """Groups, cross-fitted, rules `halves` and `others`."""
    nulls: tuple[Comparison, ...]
    """Rule `null`: by method that was measured between its own operating points."""
    notes: tuple[str, ...]

    @property
    def counted(self) -> tuple[str, ...]:
        """The clips that are in the means."""
        return tuple(clip.clip for clip in self.clips if not clip.why_left_out)

    def comparison(
        self, method: str, baseline: str, *, link: str | None = None, rule: Rule = "fixed"
    ) -> Comparison | None:
        wanted = (method, baseline, link, rule)
        every = (*self.comparisons, *self.best_of, *self.nulls)
        return next((c for c in every if (c.method, c.baseline, c.link, c.rule) == wanted), None)

    def operating_point(self, method: str, target: float) -> TargetPoint | None:
        found = (p for p in self.operating_points if (p.method, p.target) == (method, target))
        return next(found, None)


@dataclass(frozen=True)
class DnnFindings:
    """Everything about one server DNN, in the order of the sweep."""

    dnn: str
    task: str
    methods: tuple[str, ...]
    baselines: tuple[str, ...]
    """Those of the wanted baselines that were measured."""
    groups: Mapping[str, tuple[str, ...]]
    """Names of "best of" groups and their measured members."""
    points: tuple[Point, ...]
    camera: tuple[CameraCost, ...]
    references: tuple[ReferenceFindings, ...]
    """The first is the headline's."""
    notes: tuple[str, ...]
    """What a reader has to know before believing a figure: failures, overloads, mixtures."""

    @property
    def headline(self) -> ReferenceFindings:
        return self.references[0]


@dataclass(frozen=True)
class Findings:
    """A whole sweep."""

    dnns: tuple[DnnFindings, ...]
    primary: tuple[tuple[str, str], ...]
    """Method and baseline of the comparisons named beforehand."""
    links_bps: Mapping[str, float | None]
    """Bandwidth by link; None where it is not known."""
    draws: int
    seed: int

    def to_json(self) -> str:
        """The whole value as one JSON document, in six digits; figures that do not exist are null."""
        return json.dumps(_plain(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Delay):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
