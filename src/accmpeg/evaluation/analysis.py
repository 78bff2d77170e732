"""What a sweep's rows say: curves, rates against baselines, noise and camera cost.

```
rows ─▶ curves per DNN, clip and method ─┬▶ bytes and mean delay at equal accuracy, per clip and over clips
                                         └▶ pooled curves, null comparison, noise floor, camera cost
```
Pure: no files, no clock.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from accmpeg.errors import UsageError
from accmpeg.evaluation.metrics import Interpolation, bootstrap_interval
from accmpeg.evaluation.rates import (
    MIN_POINTS,
    ClipRate,
    Points,
    PooledRate,
    Rate,
    compare,
    compare_pooled,
)
from accmpeg.evaluation.rows import CellRow

__all__ = [
    "ACCURACY_NAMES",
    "BEST_STOCK",
    "DEFAULT_BANDS",
    "DEFAULT_BASELINES",
    "MEASURES",
    "WHOLE",
    "Curve",
    "DnnAnalysis",
    "PooledPoint",
    "Ratio",
    "analyse",
    "diverges",
    "link_bandwidth_bps",
]

_STOCK = ("aq-0", "aq-1", "aq-2", "aq-3")
BEST_STOCK: Mapping[str, tuple[str, ...]] = {
    "best-stock": _STOCK,
    "best-stock-any-size": (*_STOCK, *(f"{name}@dnn" for name in _STOCK), "constant-qp@dnn"),
}
"""Baselines that stand for the best of several settings per clip, picked by bytes and with hindsight: harder
to beat than any one setting."""

DEFAULT_BASELINES = ("constant-qp", *BEST_STOCK)
DEFAULT_BANDS: Mapping[str, tuple[float, float]] = {"detection": (0.85, 0.96), "instances": (0.85, 0.96)}
"""Accuracy band by task; the other tasks are compared over all accuracies that both curves reach."""
WHOLE = (0.0, 1.0)

MEASURES: Mapping[str, tuple[str, ...]] = {"detection": ("accuracy", "f1"), "instances": ("accuracy", "f1")}
"""What is compared, by task: the rows' accuracy, and measures beside it. AP is a mean over classes, so one
rare object weighs as much as all cars; F1 at the server DNN's threshold counts every object alike."""

ACCURACY_NAMES = {
    "detection": "AP@0.5",
    "instances": "mask AP@0.5",
    "keypoints": "OKS AP",
    "segmentation": "mIoU",
}


@dataclass(frozen=True)
class Curve:
    """The measured operating points of one method on one clip, from small to big."""

    clip: str
    method: str
    rows: tuple[CellRow, ...]

    @property
    def by_bytes(self) -> Points:
        return Points(tuple(float(row.bytes) for row in self.rows), _accuracies(self.rows))

    def by_delay(self, link: str, bandwidth_bps: float | None) -> Points:
        """Mean delay instead of bytes, without the points that the link can't carry."""
        rows = [row for row in self.rows if link in row.delay_mean_ms and not diverges(row, bandwidth_bps)]
        return Points(tuple(row.delay_mean_ms[link] for row in rows), _accuracies(rows))


@dataclass(frozen=True)
class PooledPoint:
    """One operating point over all clips; intervals are bootstrap 95 % over clips."""

    quality: str
    bitrate_bps: float
    """The sum of all clips' bytes over the sum of their durations."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    delay_ms: Mapping[str, float]
    """Mean over clips, by link; links that can't carry one of the clips are left out."""


@dataclass(frozen=True)
class Ratio:
    """Camera CPU time over that of plain x264 aq-1 of the same size and equally many bytes."""

    value: float
    interval: tuple[float, float] | None
    clips: int
    base: str
    camera_ms: float
    """Median over all points of all clips, per source frame."""


@dataclass(frozen=True)
class DnnAnalysis:
    """Everything about one server DNN. Mappings are in the order of the sweep."""

    dnn: str
    task: str
    band: tuple[float, float]
    interpolation: Interpolation
    rows: tuple[CellRow, ...]
    baselines: tuple[str, ...]
    bandwidths_bps: Mapping[str, float | None]
    """Of the links, by name; None where it is not known."""
    measure: str = "accuracy"
    """What the rows' `accuracy` holds: themselves, or one of their other measures."""

    @property
    def label(self) -> str:
        """A name that no other analysis of a sweep has."""
        return self.dnn if self.measure == "accuracy" else f"{self.dnn}-{self.measure}"

    @property
    def accuracy_name(self) -> str:
        if self.measure != "accuracy":
            return self.measure.upper()
        return ACCURACY_NAMES.get(self.task, "accuracy")

    @cached_property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.method for row in self.rows if row.role == "method"))

    @cached_property
    def all_clips(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.clip for row in self.rows))

    @cached_property
    def empty_clips(self) -> tuple[str, ...]:
        """Clips on which the server DNN finds nothing, so that there is no accuracy to speak of."""
        done = [row for row in self.rows if row.status == "ok"]
        found = {row.clip for row in done if row.objects is None or row.objects > 0}
        return tuple(dict.fromkeys(row.clip for row in done if row.clip not in found))

    @cached_property
    def clips(self) -> tuple[str, ...]:
        """Clips that can be compared on."""
        return tuple(clip for clip in self.all_clips if clip not in self.empty_clips)

    @cached_property
    def curves(self) -> Mapping[tuple[str, str], Curve]:
        """By clip and method."""
        return self._curves_of("method")

    @cached_property
    def bytes_rates(self) -> Mapping[str, Mapping[str, Rate]]:
        """Bytes at equal accuracy, by baseline and method."""
        return {
            base: {method: self._rate(method, base, None) for method in self.methods}
            for base in self.baselines
        }

    @cached_property
    def delay_rates(self) -> Mapping[str, Mapping[str, Mapping[str, Rate]]]:
        """Mean delay at equal accuracy, by link, baseline and method."""
        return {
            link: {
                base: {method: self._rate(method, base, link) for method in self.methods}
                for base in self.baselines
            }
            for link in self.links
        }

    @cached_property
    def links(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(link for row in self.rows for link in row.delay_mean_ms))

    @cached_property
    def null(self) -> Mapping[str, Rate]:
        """Each method on its second rate grid against itself: what a figure of zero looks like."""
        second = self._curves_of("null")
        rates: dict[str, Rate] = {}
        for method in dict.fromkeys(method for _, method in second):
            rates[method] = Rate(
                tuple(
                    compare(
                        clip,
                        second[clip, method].by_bytes,
                        self.curves[clip, method].by_bytes,
                        band=self.band,
                        interpolation=self.interpolation,
                    )
                    for clip in self.clips
                    if (clip, method) in second and (clip, method) in self.curves
                )
            )
        return rates

    @cached_property
    def noise_floor(self) -> Mapping[str, float]:
        """Accuracy by clip of a stream finer than every compared point: differences above it mean nothing."""
        floor = [row for row in self.rows if row.role == "noise_floor" and row.status == "ok"]
        return {
            row.clip: row.accuracy for row in floor if row.accuracy is not None and row.clip in self.clips
        }

    def setting(self, name: str, clip: str) -> str | None:
        """The method that a name stands for on a clip; None where it was not measured there."""
        if name in BEST_STOCK:
            return self._chosen[name, clip]
        return name if (clip, name) in self.curves else None

    @cached_property
    def pooled(self) -> Mapping[str, Sequence[PooledPoint]]:
        """Curves over all clips, by method and by baseline, where equally many points lie on every clip."""
        names = dict.fromkeys([*self.methods, *self.baselines])
        return {name: points for name in names if (points := self._pooled(name)) is not None}

    @cached_property
    def pooled_rates(self) -> Mapping[str, Mapping[str, PooledRate | None]]:
        """Bytes at equal mean accuracy over clips, by baseline and method."""
        return {
            base: {
                method: compare_pooled(
                    [self._by_quality(self.curves.get((clip, method))) for clip in self.clips],
                    [
                        self._by_quality(self.curves.get((clip, self.setting(base, clip) or "")))
                        for clip in self.clips
                    ],
                    band=self.band,
                    interpolation=self.interpolation,
                )
                for method in self.methods
            }
            for base in self.baselines
        }

    @cached_property
    def pooled_null(self) -> Mapping[str, PooledRate | None]:
        """The null comparison on mean curves: the error of a pooled figure."""
        second = self._curves_of("null")
        return {
            method: compare_pooled(
                [self._by_quality(second.get((clip, method))) for clip in self.clips],
                [self._by_quality(self.curves.get((clip, method))) for clip in self.clips],
                band=self.band,
                interpolation=self.interpolation,
            )
            for method in dict.fromkeys(method for _, method in second)
        }

    @staticmethod
    def _by_quality(curve: Curve | None) -> Points:
        rows = sorted(curve.rows, key=lambda row: -row.quality) if curve else []
        return Points(tuple(float(row.bytes) for row in rows), _accuracies(rows))

    @cached_property
    def camera(self) -> Mapping[str, Ratio]:
        """Camera cost by method."""
        return {method: ratio for method in self.methods if (ratio := self._camera(method)) is not None}

    def _curves_of(self, role: str) -> Mapping[tuple[str, str], Curve]:
        groups: dict[tuple[str, str], list[CellRow]] = {}
        for row in self.rows:
            usable = row.status == "ok" and row.accuracy is not None and row.bytes > 0
            if row.role == role and usable and row.clip in self.clips:
                groups.setdefault((row.clip, row.method), []).append(row)
        return {
            (clip, method): Curve(clip, method, tuple(sorted(rows, key=lambda row: row.bytes)))
            for (clip, method), rows in groups.items()
        }

    def _points(self, clip: str, method: str | None, link: str | None) -> Points:
        curve = self.curves.get((clip, method or ""))
        if curve is None:
            return Points((), ())
        return curve.by_bytes if link is None else curve.by_delay(link, self.bandwidths_bps.get(link))

    def _rate(self, method: str, baseline: str, link: str | None) -> Rate:
        rates = []
        for clip in self.clips:
            against = self.setting(baseline, clip)
            if against is None:
                rates.append(ClipRate(clip, note=f"{baseline} was not measured"))
                continue
            points, base = self._points(clip, method, link), self._points(clip, against, link)
            rates.append(
                compare(
                    clip,
                    points,
                    base,
                    band=self.band,
                    unit="bytes" if link is None else "ms",
                    interpolation=self.interpolation,
                    baseline=against,
                )
            )
        return Rate(tuple(rates))

    @cached_property
    def _chosen(self) -> Mapping[tuple[str, str], str | None]:
        return {
            (base, clip): self._best(names, clip) for base, names in BEST_STOCK.items() for clip in self.clips
        }

    def _best(self, names: Sequence[str], clip: str) -> str | None:
        """The one that needs the fewest bytes against aq-1 in the band, by a figure that counts as one."""
        having = [name for name in names if (clip, name) in self.curves]
        having = [n for n in having if self.curves[clip, n].by_bytes.distinct >= MIN_POINTS] or having
        if not having:
            return None
        reference = "aq-1" if "aq-1" in having else having[0]

        def percent(name: str) -> float:
            if name == reference:
                return 0.0
            points, base = self.curves[clip, name].by_bytes, self.curves[clip, reference].by_bytes
            rate = compare(clip, points, base, band=self.band, interpolation=self.interpolation)
            if rate.percent is not None:
                return rate.percent
            return -100.0 if rate.verdict == "better" else float("inf")

        return min([reference, *having], key=percent)

    def _pooled(self, name: str) -> Sequence[PooledPoint] | None:
        curves = [self.curves.get((clip, self.setting(name, clip) or "")) for clip in self.clips]
        counts = {len(curve.rows) if curve else 0 for curve in curves}
        if len(counts) != 1 or counts == {0}:
            return None
        ranked = [sorted(curve.rows, key=lambda row: -row.quality) for curve in curves if curve]
        return [self._pool(rows) for rows in zip(*ranked, strict=True)]

    def _pool(self, rows: Sequence[CellRow]) -> PooledPoint:
        accuracies = _accuracies(rows)
        qualities = [min(row.quality for row in rows), max(row.quality for row in rows)]
        duration_s = sum(row.bytes * 8 / row.bitrate_bps for row in rows)
        carried = [
            link
            for link in self.links
            if all(
                link in row.delay_mean_ms and not diverges(row, self.bandwidths_bps.get(link)) for row in rows
            )
        ]
        return PooledPoint(
            quality="–".join(map(str, dict.fromkeys(qualities))),
            bitrate_bps=sum(row.bytes for row in rows) * 8 / duration_s,
            accuracy=float(np.mean(accuracies)),
            accuracy_interval=bootstrap_interval(accuracies),
            delay_ms={link: float(np.mean([row.delay_mean_ms[link] for row in rows])) for link in carried},
        )

    def _camera(self, method: str) -> Ratio | None:
        base = "aq-1@dnn" if method.endswith("@dnn") and "aq-1@dnn" in self.methods else "aq-1"
        logs, costs = [], []
        for clip in self.clips:
            curve, plain = self.curves.get((clip, method)), self.curves.get((clip, base))
            if curve is None or plain is None:
                continue
            log_bytes = np.log([row.bytes for row in plain.rows])
            at = np.interp(
                np.log([row.bytes for row in curve.rows]), log_bytes, [row.camera_ms for row in plain.rows]
            )
            cost_ms = [row.camera_ms for row in curve.rows]
            if min(at) <= 0 or min(cost_ms) <= 0:
                continue
            logs.append(float(np.median(np.log(np.asarray(cost_ms) / at))))
            costs.extend(cost_ms)
        if not logs:
            return None
        interval = bootstrap_interval(logs) if len(logs) >= 3 else None
        return Ratio(
            value=float(np.exp(np.mean(logs))),
            interval=None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1]))),
            clips=len(logs),
            base=base,
            camera_ms=float(np.median(costs)),
        )


def analyse(
    rows: Sequence[CellRow],
    *,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    bands: Mapping[str, tuple[float, float]] | None = None,
    links: Mapping[str, Any] | None = None,
    interpolation: Interpolation = "linear",
) -> list[DnnAnalysis]:
    """One analysis per server DNN and measure, in the order of the rows.

    `bands` gives accuracy bands by server DNN or task; `links` is the `links` table of `run.json`. Raises
    `UsageError` for a baseline that no row can stand for and for a band that is none.
    """
    bands = {**DEFAULT_BANDS, **(bands or {})}
    for name, (low, high) in bands.items():
        if not 0 <= low < high <= 1:
            raise UsageError(
                f"the accuracy band {low:g} to {high:g} ({name}) is none: give 0 <= LOW < HIGH <= 1"
            )
    measured = {row.method for row in rows if row.role == "method"}
    for base in baselines:
        if base not in DEFAULT_BASELINES and base not in measured:
            names = ", ".join(sorted({*BEST_STOCK, *measured}))
            raise UsageError(f"no method of this sweep is called {base!r}: choose the baseline from {names}")
    analyses: list[DnnAnalysis] = []
    for dnn in dict.fromkeys(row.dnn for row in rows):
        mine = tuple(row for row in rows if row.dnn == dnn)
        task = mine[0].task
        found = dict.fromkeys(link for row in mine for link in row.delay_mean_ms)
        analyses += [
            DnnAnalysis(
                dnn=dnn,
                task=task,
                band=bands.get(dnn, bands.get(task, WHOLE)) if measure == "accuracy" else WHOLE,
                interpolation=interpolation,
                rows=mine if measure == "accuracy" else _measured_by(measure, mine),
                baselines=tuple(baselines),
                bandwidths_bps={name: link_bandwidth_bps(name, (links or {}).get(name)) for name in found},
                measure=measure,
            )
            for measure in MEASURES.get(task, ("accuracy",))
            if measure == "accuracy" or any(measure in row.measures for row in mine)
        ]
    return analyses


def link_bandwidth_bps(name: str, settings: Any) -> float | None:
    """A link's mean bandwidth, from its settings' `bandwidth_bps` or else from a name such as `0.5 Mbit/s`.

    >>> link_bandwidth_bps("0.5 Mbit/s", None)
    500000.0
    """
    if isinstance(settings, Mapping) and isinstance(settings.get("bandwidth_bps"), int | float):
        return float(settings["bandwidth_bps"])
    found = re.fullmatch(r"([\d.]+) ?([kM])bit/s", name)
    return float(found[1]) * {"k": 1e3, "M": 1e6}[found[2]] if found else None


def diverges(row: CellRow, bandwidth_bps: float | None) -> bool:
    """Whether a stream sends more up the link than it carries, so that its queue grows without end."""
    if bandwidth_bps is None or not row.bytes:
        return False
    return row.bitrate_bps * row.uplink_bytes / row.bytes > bandwidth_bps


def _measured_by(measure: str, rows: Sequence[CellRow]) -> tuple[CellRow, ...]:
    """The rows with another measure in accuracy's place."""
    return tuple(row.model_copy(update={"accuracy": row.measures.get(measure)}) for row in rows)


def _accuracies(rows: Iterable[CellRow]) -> tuple[float, ...]:
    return tuple(row.accuracy for row in rows if row.accuracy is not None)
