"""Everything about one server DNN under one reference, from measured clips to findings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from accmpeg.evaluation.bench.rows import Delay, ReferenceName
from accmpeg.evaluation.findings.best_of import BEST_STOCK, chosen_on_halves, chosen_on_others
from accmpeg.evaluation.findings.comparing import Panel, Side, compare, side_of
from accmpeg.evaluation.findings.findings import (
    HEADLINE_TARGETS,
    LEVELS,
    ClipFindings,
    Comparison,
    Curve,
    Gap,
    ReferenceFindings,
    Rule,
    TargetPoint,
)
from accmpeg.evaluation.findings.measured import (
    DrawnCurve,
    MeasuredClip,
    Track,
    bitrate_track,
    delay_track,
    has_delay,
)
from accmpeg.evaluation.findings.notes import reference_notes
from accmpeg.evaluation.findings.resampling import BlockWeights, holm

__all__ = ["Study"]

_Tracks = Mapping[tuple[str, str], Track]
"""By method and clip."""


@dataclass(frozen=True)
class Study:
    """The measured clips of a server DNN under a reference, and what is to be compared on them."""

    reference: ReferenceName
    clips: Sequence[MeasuredClip]
    absent: Sequence[str]
    """Clips on which nothing was counted against the reference."""
    methods: Sequence[str]
    baselines: Sequence[str]
    groups: Mapping[str, tuple[str, ...]]
    primary: Sequence[tuple[str, str]]
    links_bps: Mapping[str, float | None]
    seed: int

    def findings(self) -> ReferenceFindings:
        clips = tuple(self._clip(clip) for clip in self.clips)
        comparisons = [
            self._fixed(method, base, link)
            for link in self._kinds
            for base in self.baselines
            for method in self.methods
            if method != base
        ]
        extra = [
            self._fixed(method, base, None)
            for method, base in self.primary
            if method in self.methods and base in self.methods and base not in self.baselines
        ]
        best_of = list(self._best_of())
        every = _corrected([*comparisons, *extra, *best_of])
        return ReferenceFindings(
            reference=self.reference,
            clips=clips,
            curves=tuple(self._curves()),
            operating_points=tuple(
                self._operating_point(method, target)
                for method in self.methods
                for target in HEADLINE_TARGETS
            ),
            comparisons=every[: len(comparisons) + len(extra)],
            best_of=every[len(comparisons) + len(extra) :],
            nulls=_corrected(list(self._nulls())),
            notes=reference_notes(self.reference, clips, self.absent, self._tracks[None]),
        )

    @property
    def _kinds(self) -> tuple[str | None, ...]:
        """Bitrate, then delay by link."""
        return (None, *self.links_bps)

    @cached_property
    def _counted(self) -> list[MeasuredClip]:
        return [clip for clip in self.clips if not clip.why_left_out]

    @cached_property
    def _panel(self) -> Panel:
        names = tuple(clip.clip for clip in self._counted)
        return Panel(names, np.asarray([clip.weight for clip in self._counted]), self.seed)

    @cached_property
    def _blocks(self) -> list[BlockWeights]:
        return [clip.weights for clip in self._counted if clip.weights is not None]

    @cached_property
    def _tracks(self) -> Mapping[str | None, _Tracks]:
        """Of all methods, by kind."""
        return {kind: self._tracks_of("method", self.methods, kind) for kind in self._kinds}

    def _tracks_of(self, role: str, methods: Iterable[str], kind: str | None) -> _Tracks:
        def track(name: str, clip: MeasuredClip) -> Track:
            curve = clip.curves.get((role, name))
            shown = name if role == "method" else f"{name} between its points"
            if kind is None:
                return bitrate_track(shown, curve)
            return delay_track(shown, curve, clip.weights, kind, self.links_bps[kind])

        return {(name, clip.clip): track(name, clip) for name in methods for clip in self._counted}

    def _fixed(self, method: str, base: str, link: str | None) -> Comparison:
        def sides(name: str) -> list[Side]:
            return [
                side_of(self._tracks[link][name, clip], blocks.clip)
                for clip, blocks in zip(self._panel.clips, self._blocks, strict=True)
            ]

        return self._compared(method, base, sides, "fixed", link)

    def _compared(
        self, method: str, base: str, sides: Callable[[str], list[Side]], rule: Rule, link: str | None
    ) -> Comparison:
        pairs = list(zip(sides(method), sides(base), strict=True))
        # A group has no comparison named beforehand but the one that users can repeat: trying first.
        named = link is None and rule in ("fixed", "halves") and (method, base) in self.primary
        return compare(self._panel, (method, base), pairs, rule=rule, link=link, primary=named)

    def _best_of(self) -> Iterable[Comparison]:
        """Every method against the best stock setting; the best variant of a system against all baselines."""
        stock = [BEST_STOCK] if BEST_STOCK in self.groups else []
        pairs = [(method, base) for base in stock for method in self.methods]
        variants = [name for name in self.groups if name != BEST_STOCK]
        pairs += [(name, base) for name in variants for base in (*self.baselines, *stock)]
        pairs += [pair for pair in self.primary if set(pair) & set(self.groups)]
        for link in self._kinds:
            halves, others = self._halves(link), self._others(link)
            for method, base in dict.fromkeys(pairs):
                if {method, base} <= {*self.methods, *self.groups}:
                    yield self._compared(method, base, halves, "halves", link)
                    yield self._compared(method, base, others, "others", link)

    def _halves(self, link: str | None) -> Callable[[str], list[Side]]:
        tracks = self._tracks[link]
        chosen = {
            group: [
                chosen_on_halves({name: tracks[name, clip] for name in members}, blocks)
                for clip, blocks in zip(self._panel.clips, self._blocks, strict=True)
            ]
            for group, members in self.groups.items()
        }

        def sides(name: str) -> list[Side]:
            return chosen.get(name) or [
                side_of(tracks[name, clip], blocks.second, f"{name} on the second half")
                for clip, blocks in zip(self._panel.clips, self._blocks, strict=True)
            ]

        return sides

    def _others(self, link: str | None) -> Callable[[str], list[Side]]:
        tracks = self._tracks[link]
        chosen = {
            group: chosen_on_others(
                [{name: tracks[name, clip] for name in members} for clip in self._panel.clips],
                self._panel.weights,
                self._blocks,
            )
            for group, members in self.groups.items()
            if self._blocks
        }

        def sides(name: str) -> list[Side]:
            return chosen.get(name) or [
                side_of(tracks[name, clip], blocks.clip)
                for clip, blocks in zip(self._panel.clips, self._blocks, strict=True)
            ]

        return sides

    def _nulls(self) -> Iterable[Comparison]:
        again = [
            name for name in self.methods if any(("null", name) in clip.curves for clip in self._counted)
        ]
        for link in self._kinds:
            second = self._tracks_of("null", again, link)
            for name in again:
                pairs = [
                    (
                        side_of(second[name, clip], blocks.clip),
                        side_of(self._tracks[link][name, clip], blocks.clip),
                    )
                    for clip, blocks in zip(self._panel.clips, self._blocks, strict=True)
                ]
                yield compare(self._panel, (name, name), pairs, rule="null", link=link)

    def _clip(self, clip: MeasuredClip) -> ClipFindings:
        uncoded = {
            row.method: value
            for row in clip.rows
            if row.role == "uncoded" and (value := clip.relative(row, self.reference)) is not None
        }
        first = clip.rows[0]
        return ClipFindings(
            clip.clip,
            clip.ceiling,
            uncoded,
            clip.weight,
            first.source_bitrate_bps,
            first.frames,
            clip.blocks,
            clip.why_left_out,
        )

    def _curves(self) -> Iterable[Curve]:
        for clip in self._counted:
            for (role, method), curve in clip.curves.items():
                if role == "method":
                    track = self._tracks[None][method, clip.clip]
                    at = np.exp(track.logs[0])
                    yield Curve(
                        clip.clip,
                        method,
                        tuple(np.exp(curve.log_bitrate[0]).tolist()),
                        tuple(curve.relative[0].tolist()),
                        tuple(curve.fitted[0].tolist()),
                        {
                            level: None if why else float(bps)
                            for level, bps, why in zip(LEVELS, at, track.why, strict=True)
                        },
                    )

    def _operating_point(self, method: str, target: float) -> TargetPoint:
        reached: list[tuple[float, float]] = []
        delays: dict[str, list[tuple[float, Delay]]] = {}
        missing: dict[str, list[str]] = {}
        for clip in self._counted:
            track = self._tracks[None][method, clip.clip]
            number = track.targets.index(target)
            if track.why[number]:
                continue
            log_bitrate = float(track.logs[0, number])
            reached.append((clip.weight, log_bitrate))
            for link, bandwidth_bps in self.links_bps.items():
                timed = self._tracks[link][method, clip.clip]
                why = timed.why[timed.targets.index(target)]
                if why:
                    missing.setdefault(link, []).append(f"{clip.clip}: {why}")
                else:
                    curve = clip.curves["method", method]
                    delay = _delay_at(curve, log_bitrate, link, bandwidth_bps)
                    delays.setdefault(link, []).append((clip.weight, delay))
        weights, logs = zip(*reached, strict=True) if reached else ((), ())
        return TargetPoint(
            method=method,
            target=target,
            bitrate_bps=float(np.exp(np.average(logs, weights=weights))) if reached else None,
            bitrate_clips=len(reached),
            delays={link: _mean_delay(parts) for link, parts in delays.items()},
            delay_clips={link: len(parts) for link, parts in delays.items()},
            why_no_delay={link: tuple(whys) for link, whys in missing.items()},
        )


def _delay_at(curve: DrawnCurve, log_bitrate: float, link: str, bandwidth_bps: float | None) -> Delay:
    """Every figure of the points' delays, read at a bitrate."""
    points = [
        (float(curve.log_bitrate[0, place]), curve.rows[index].delays[link])
        for place, index in enumerate(curve.order[0])
        if has_delay(curve.rows[index], link, bandwidth_bps)
    ]
    x = [at for at, _ in points]
    return Delay(
        **{
            name: float(np.interp(log_bitrate, x, [getattr(delay, name) for _, delay in points]))
            for name in Delay.model_fields
        }
    )


def _mean_delay(parts: Sequence[tuple[float, Delay]]) -> Delay:
    weights = [weight for weight, _ in parts]
    return Delay(
        **{
            name: float(np.average([getattr(delay, name) for _, delay in parts], weights=weights))
            for name in Delay.model_fields
        }
    )


def _corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm's correction over the headline targets of the primary comparisons; no other p-value is kept."""

    def tested(comparison: Comparison, gap: Gap) -> bool:
        return comparison.primary and gap.target in HEADLINE_TARGETS and gap.p is not None

    found = [gap.p for each in comparisons for gap in each.gaps if tested(each, gap) and gap.p is not None]
    corrected = iter(holm(found))

    def marked(comparison: Comparison, gap: Gap) -> Gap:
        return replace(gap, p_holm=next(corrected)) if tested(comparison, gap) else replace(gap, p=None)

    return tuple(
        replace(
            each,
            gaps=tuple(marked(each, gap) for gap in each.gaps),
            bd=None if each.bd is None else replace(each.bd, p=None),
        )
        for each in comparisons
    )
