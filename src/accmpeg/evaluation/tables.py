"""An analysis as tables of text: the same ones for the HTML report, the Markdown report and the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accmpeg.evaluation.analysis import DnnAnalysis, Ratio, diverges
from accmpeg.evaluation.rates import ClipRate, PooledRate, Rate
from accmpeg.evaluation.rows import CellRow

__all__ = [
    "Table",
    "baseline_table",
    "clip_tables",
    "delay_tables",
    "headline",
    "noise_table",
    "paper_table",
    "settings_tables",
    "verdicts",
]


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def headline(analysis: DnnAnalysis) -> Table:
    """Bytes at equal mean accuracy of every method against every baseline, and what it costs the camera."""
    rows = [
        (
            method,
            *(_pooled_text(analysis.pooled_rates[base][method], analysis) for base in analysis.baselines),
            _ratio_text(analysis.camera.get(method)),
        )
        for method in analysis.methods
    ]
    rows += [
        (
            f"null: {method} against itself",
            *(_pooled_text(rate, analysis) for _ in analysis.baselines[:1]),
            *("" for _ in analysis.baselines[1:]),
            "",
        )
        for method, rate in analysis.pooled_null.items()
    ]
    return Table(
        "Bytes at equal accuracy, all clips in one curve",
        ("method", *(f"vs {base}" for base in analysis.baselines), "camera CPU vs aq-1"),
        tuple(rows),
        "At each operating point accuracies and log-bytes are averaged over clips; BD-rate between the mean "
        "curves with the bootstrap 95 % interval over clips; negative is a saving. n/N: clips in it, if not "
        "all. Camera CPU is the ratio to aq-1 of the same stream size (aq-1@dnn for @dnn) at equally many "
        "bytes.",
    )


def baseline_table(analysis: DnnAnalysis, base: str) -> Table:
    """All figures over clips against one baseline."""
    rows = []
    for method in analysis.methods:
        rate, worst = analysis.bytes_rates[base][method], analysis.bytes_rates[base][method].worst
        rows.append(
            (
                method,
                _rate_text(rate),
                _percent(rate.mean),
                _percent(rate.median),
                "—" if worst is None else f"{_percent(worst.percent)} ({worst.clip})",
                _pooled_text(analysis.pooled_rates[base][method], analysis),
            )
        )
    return Table(
        f"Bytes against {base}, clip by clip",
        ("method", "geometric mean [95 %]", "mean", "median", "worst clip", "one curve"),
        tuple(rows),
        "Geometric mean over clips with the bootstrap 95 % interval over clips. n/N: clips with a figure; "
        "+k: further clips where only the method reaches its accuracy, −k: where only the baseline does.",
    )


def delay_tables(analysis: DnnAnalysis) -> list[Table]:
    """Mean capture-to-result delay at equal accuracy per link, a table per baseline."""
    if not analysis.links:
        return []
    return [
        Table(
            f"Mean delay at equal accuracy against {base}",
            ("method", *analysis.links),
            tuple(
                (method, *(_rate_text(analysis.delay_rates[link][base][method]) for link in analysis.links))
                for method in analysis.methods
            ),
            "Capture to result over an emulated link, as the bytes above; without operating points that send "
            "more than the link carries.",
        )
        for base in analysis.baselines
    ]


def paper_table(analysis: DnnAnalysis) -> Table:
    """Emulated delays beside the closed formula of the AccMPEG paper, at each method's middle point."""
    rows = []
    for method in analysis.methods:
        middles = [
            ranked[len(ranked) // 2]
            for clip in analysis.clips
            if (curve := analysis.curves.get((clip, method)))
            for ranked in [sorted(curve.rows, key=lambda row: row.quality)]
        ]
        if middles:
            accuracy = float(np.mean([row.accuracy or 0.0 for row in middles]))
            cells = (_delay_text(middles, link, analysis) for link in analysis.links)
            rows.append((method, f"{accuracy:.3f}", *cells))
    return Table(
        "Delay in ms: emulated mean and 95th percentile | the AccMPEG paper's formula",
        ("method", "mean accuracy", *analysis.links),
        tuple(rows),
        "Means over clips at the middle operating point of each method, so rows differ in accuracy. "
        "“overload”: on some clip the stream is more than the link carries and the delay grows with the "
        "clip's length.",
    )


def noise_table(analysis: DnnAnalysis) -> Table:
    """The noise floor and the null comparison, per clip and over clips."""
    null = analysis.null
    floor = analysis.noise_floor
    by_clip = {method: {clip.clip: clip for clip in rate.clips} for method, rate in null.items()}
    rows = [
        (
            clip,
            f"{floor[clip]:.3f}" if clip in floor else "not measured",
            *(_clip_text(by_clip[method].get(clip)) for method in null),
        )
        for clip in analysis.clips
    ]
    mean_floor = f"{np.mean(list(floor.values())):.3f}" if floor else "not measured"
    rows.append(("all clips", mean_floor, *(_rate_text(rate) for rate in null.values())))
    return Table(
        "Noise",
        ("clip", "noise floor", *(f"{method} vs itself" for method in null)),
        tuple(rows),
        "Noise floor: accuracy of a stream one QP step finer than the finest compared point; no difference "
        "above it means anything. Null comparison: bytes at equal accuracy of a method against itself on "
        "another rate grid; all figures have to be held against its interval."
        + ("" if null else " No method was run on a second rate grid."),
    )


def clip_tables(analysis: DnnAnalysis, clip: str) -> list[Table]:
    """What one clip says: rates against the baselines, and the measured points."""
    by_base = {
        base: {method: _of_clip(rate, clip) for method, rate in rates.items()}
        for base, rates in analysis.bytes_rates.items()
    }
    names = []
    for base in analysis.baselines:
        setting = analysis.setting(base, clip)
        names.append(f"vs {base}" if setting in (base, None) else f"vs {base} ({setting})")
    having = {method: curve for (name, method), curve in analysis.curves.items() if name == clip}
    rates = tuple(
        (method, *(_clip_text(by_base[base][method]) for base in analysis.baselines))
        for method in analysis.methods
    )
    most = max((len(curve.rows) for curve in having.values()), default=0)
    points = []
    for method, curve in having.items():
        ranked = sorted(curve.rows, key=lambda row: row.quality)
        cells = [_point_text(row) for row in ranked]
        points.append((method, *cells, *["—"] * (most - len(cells))))
    labelled = any(row.label_accuracy is not None for curve in having.values() for row in curve.rows)
    return [
        Table("Bytes at equal accuracy", ("method", *names), rates),
        Table(
            "Measured points",
            ("method", *(f"point {number}" for number in range(1, most + 1))),
            tuple(points),
            "Quality (QP or CRF): kB on the network, accuracy against the server DNN on the source"
            + (", in brackets against true labels." if labelled else "."),
        ),
    ]


def verdicts(analysis: DnnAnalysis) -> list[str]:
    """Which methods the pooled intervals call better or worse than each baseline."""
    texts = []
    for base, rates in analysis.pooled_rates.items():
        better = [m for m, rate in rates.items() if rate and rate.interval and rate.interval[1] < 0]
        worse = [m for m, rate in rates.items() if rate and rate.interval and rate.interval[0] > 0]
        texts.append(
            f"Against {base}, the interval lies below zero (fewer bytes) for "
            f"{', '.join(better) or 'no method'}; above zero (more bytes) for "
            f"{', '.join(worse) or 'no method'}; for all others the sign is undecided."
        )
    return texts


def settings_tables(run: Mapping[str, Any]) -> list[Table]:
    """`run.json` as tables: a table of keys and values, or of named things and their fields."""
    tables = []
    for title, content in run.items():
        if not isinstance(content, Mapping):
            content = {title: content}
        things = [value for value in content.values() if isinstance(value, Mapping)]
        if things and len(things) == len(content):
            columns = tuple(dict.fromkeys(str(key) for thing in things for key in thing))
            rows = tuple(
                (str(name), *(_value(thing.get(column, "")) for column in columns))
                for name, thing in content.items()
            )
            tables.append(Table(title.capitalize(), ("name", *columns), rows))
        else:
            rows = tuple((str(key), _value(value)) for key, value in content.items())
            tables.append(Table(title.capitalize(), ("what", "value"), rows))
    return tables


def _rate_text(rate: Rate) -> str:
    sides = "".join(f" {sign}{count}" for sign, count in (("+", rate.better), ("−", rate.worse)) if count)
    counts = f"{len(rate.values)}/{len(rate.clips)}{sides}"
    if rate.geometric_mean is None:
        return f"no figure ({counts})"
    interval = rate.interval
    shown = "" if interval is None else f" [{_signed(interval[0])}, {_signed(interval[1])}]"
    return f"{_signed(rate.geometric_mean)}{shown} % ({counts})"


def _pooled_text(rate: PooledRate | None, analysis: DnnAnalysis) -> str:
    if rate is None:
        return "no figure"
    clips = "" if rate.clips == len(analysis.clips) else f" ({rate.clips}/{len(analysis.clips)})"
    if rate.interval is None:
        return f"{_percent(rate.percent)}{clips}"
    low, high = rate.interval
    return f"{_signed(rate.percent)} [{_signed(low)}, {_signed(high)}] %{clips}"


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return "not measured"
    interval = ratio.interval
    return f"{ratio.value:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def _clip_text(rate: ClipRate | None) -> str:
    if rate is None:
        return "not measured"
    return rate.note if rate.percent is None else _percent(rate.percent)


def _of_clip(rate: Rate, clip: str) -> ClipRate | None:
    return next((one for one in rate.clips if one.clip == clip), None)


def _point_text(row: CellRow) -> str:
    labels = "" if row.label_accuracy is None else f" ({row.label_accuracy:.3f})"
    return f"{row.quality}: {row.bytes / 1000:,.0f} kB, {row.accuracy:.3f}{labels}"


def _delay_text(rows: Sequence[CellRow], link: str, analysis: DnnAnalysis) -> str:
    emulated = [row for row in rows if link in row.delay_mean_ms]
    if not emulated:
        return "—"
    mean_ms = float(np.mean([row.delay_mean_ms[link] for row in emulated]))
    p95_ms = float(np.mean([row.delay_p95_ms.get(link, np.nan) for row in emulated]))
    paper_s = [row.paper_delay_s[link] for row in emulated if link in row.paper_delay_s]
    formula = f" | {1000 * float(np.mean(paper_s)):,.0f}" if paper_s else ""
    over = any(diverges(row, analysis.bandwidths_bps.get(link)) for row in emulated)
    return f"{mean_ms:,.0f}, {p95_ms:,.0f}{formula}{' overload' if over else ''}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{_signed(value)} %"


def _signed(value: float) -> str:
    """
    >>> _signed(-3.2), _signed(0.2)
    ('−3', '0')
    """
    rounded = round(value)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "−")
