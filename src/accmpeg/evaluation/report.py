"""The report of a sweep: one self-contained HTML file, the same tables as Markdown, PNG figures and CSV.

```
cells.jsonl, run.json, pictures/ ─▶ analysis ─▶ report.html, report.md, figures/*.png, ctc/DNN/METHOD.csv
```
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accmpeg
from accmpeg.errors import EvaluationError, SinkError
from accmpeg.evaluation.analysis import DEFAULT_BASELINES, WHOLE, DnnAnalysis, PooledPoint, analyse, diverges
from accmpeg.evaluation.charts import (
    Bar,
    Chart,
    Line,
    Style,
    bars_png,
    bars_svg,
    chart_png,
    chart_svg,
    marker_symbols,
    styles,
)
from accmpeg.evaluation.ctc import write_ctc
from accmpeg.evaluation.metrics import Interpolation
from accmpeg.evaluation.problems import missing_figures, problems
from accmpeg.evaluation.rows import CELLS_NAME, CellRow, read_rows
from accmpeg.evaluation.tables import (
    Table,
    baseline_table,
    clip_tables,
    delay_tables,
    headline,
    noise_table,
    paper_table,
    settings_tables,
    verdicts,
)

__all__ = ["RUN_NAME", "write_report"]

RUN_NAME = "run.json"
_FIRST_SHOWN = 8
_OURS = ("graded", "graded@dnn", "binary", "oracle-graded")


@dataclass(frozen=True)
class _Picture:
    caption: str
    address: str


@dataclass(frozen=True)
class _ClipSection:
    name: str
    tables: list[Table]
    charts: list[Chart]
    pictures: list[_Picture]


@dataclass(frozen=True)
class _Section:
    """All about one server DNN by one measure; what does not depend on the measure is with the first."""

    dnn: str
    task: str
    accuracy: str
    band: str
    clips: int
    headline: Table
    verdicts: list[str]
    delays: list[Table]
    noise: Table
    charts: list[Chart]
    bars: list[Bar]
    looks: Mapping[str, Style]
    first_shown: list[str]
    details: list[Table]
    clip_sections: list[_ClipSection]
    problems: Sequence[str]
    missing: Sequence[str]


@dataclass(frozen=True)
class _Document:
    title: str
    version: str
    cells: int
    failed: int
    interpolation: Interpolation
    sections: list[_Section]
    settings: list[Table] = field(default_factory=list)


def write_report(
    folder: Path,
    *,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    bands: Mapping[str, tuple[float, float]] | None = None,
    pictures: bool = True,
    interpolation: Interpolation = "linear",
) -> Path:
    """Writes all forms of the report into a sweep's folder; returns the path of the HTML file.

    `baselines`: none for the default ones. `bands`: accuracy bands by server DNN or task, where not the
    default. `pictures=False` keeps every frame of the clips out, for clips that may not be shown.
    Raises `EvaluationError` where the folder holds no cell, `UsageError` for an unknown baseline or a
    senseless band, `SinkError` where a file can't be written.
    """
    rows = read_rows(folder / CELLS_NAME)
    if not rows:
        raise EvaluationError(
            f"{folder} holds no finished cell of a sweep: run accmpeg evaluate --out {folder}"
        )
    run = _read_json(folder / RUN_NAME) if (folder / RUN_NAME).exists() else {}
    analyses = analyse(
        rows,
        baselines=tuple(baselines) or DEFAULT_BASELINES,
        bands=bands,
        links=run.get("links"),
        interpolation=interpolation,
    )
    document = _Document(
        title=", ".join(dict.fromkeys(analysis.dnn for analysis in analyses)),
        version=accmpeg.__version__,
        cells=len(rows),
        failed=sum(row.status == "failed" for row in rows),
        interpolation=interpolation,
        sections=[_section(analysis, folder if pictures else None) for analysis in analyses],
        settings=settings_tables(run),
    )
    path = folder / "report.html"
    _write(path, _html(document))
    _write(folder / "report.md", _markdown(document))
    for section in document.sections:
        for chart in section.charts:
            first = [line for line in chart.lines if line.name in section.first_shown]
            shown = Chart(chart.name, f"{section.dnn}: {chart.title}", chart.x_label, chart.y_label, first)
            chart_png(shown, section.looks, folder / "figures" / f"{chart.name}.png")
        if section.bars:
            title = f"{section.dnn}: camera CPU time, ratio to aq-1"
            bars_png(title, section.bars, section.looks, folder / "figures" / f"{section.dnn}-camera.png")
    write_ctc(rows, folder / "ctc")
    return path


def _section(analysis: DnnAnalysis, folder: Path | None) -> _Section:
    low, high = analysis.band
    named = [*analysis.methods, *analysis.baselines]
    looks = styles(list(dict.fromkeys([*(name for name in _OURS if name in named), *named])))
    return _Section(
        dnn=analysis.label,
        task=analysis.task,
        accuracy=analysis.accuracy_name,
        band="all accuracies both curves reach" if analysis.band == WHOLE else f"{low:g} to {high:g}",
        clips=len(analysis.clips),
        headline=headline(analysis),
        verdicts=verdicts(analysis),
        delays=delay_tables(analysis),
        noise=noise_table(analysis),
        charts=_pooled_charts(analysis),
        bars=[
            Bar(method, ratio.value, ratio.interval, f"{ratio.value:.2f} ({ratio.camera_ms:.1f} ms)")
            for method, ratio in analysis.camera.items()
            if analysis.measure == "accuracy"
        ],
        looks=looks,
        first_shown=_first_shown(analysis),
        details=[
            *(baseline_table(analysis, base) for base in analysis.baselines),
            *([paper_table(analysis)] if analysis.links else []),
        ],
        clip_sections=[
            _ClipSection(
                clip,
                clip_tables(analysis, clip),
                _clip_charts(analysis, clip),
                [] if folder is None else _pictures(folder / "pictures", clip, analysis.dnn),
            )
            for clip in analysis.clips
            if analysis.measure == "accuracy"
        ],
        problems=problems(analysis) if analysis.measure == "accuracy" else [],
        missing=missing_figures(analysis),
    )


def _first_shown(analysis: DnnAnalysis) -> list[str]:
    """The methods whose curves are drawn at first: baselines, ours, and the best of the others."""
    last = analysis.bytes_rates[analysis.baselines[-1]]
    ranked = sorted(
        (method for method in analysis.methods if last[method].geometric_mean is not None),
        key=lambda method: last[method].geometric_mean or 0.0,
    )
    wanted = dict.fromkeys([*analysis.baselines, "aq-1", *_OURS, *ranked])
    having = [name for name in wanted if name in analysis.methods or name in analysis.pooled]
    return having[:_FIRST_SHOWN]


def _pooled_charts(analysis: DnnAnalysis) -> list[Chart]:
    accuracy = f"mean {analysis.accuracy_name}"
    charts = [
        Chart(
            f"{analysis.label}-bytes",
            f"accuracy over bytes, {len(analysis.clips)} clips pooled",
            "kbit/s, everything on the network",
            accuracy,
            [
                Line(
                    name,
                    [point.bitrate_bps / 1000 for point in points],
                    [point.accuracy for point in points],
                    [_pooled_tip(name, point) for point in points],
                    [point.accuracy_interval for point in points],
                )
                for name, points in analysis.pooled.items()
            ],
        )
    ]
    for link in analysis.links:
        lines = []
        for name, points in analysis.pooled.items():
            carried = [point for point in points if link in point.delay_ms]
            if carried:
                tips = [
                    f"{name} {point.quality}: {point.delay_ms[link]:,.0f} ms, {point.accuracy:.3f}"
                    for point in carried
                ]
                x, y = [point.delay_ms[link] for point in carried], [point.accuracy for point in carried]
                lines.append(Line(name, x, y, tips, [point.accuracy_interval for point in carried]))
        slug = link.replace(" ", "").replace("/", "p")
        charts.append(
            Chart(
                f"{analysis.label}-delay-{slug}",
                f"accuracy over mean delay at {link}, pooled",
                "mean delay from capture to result, ms",
                accuracy,
                lines,
            )
        )
    return charts


def _clip_charts(analysis: DnnAnalysis, clip: str) -> list[Chart]:
    accuracy = analysis.accuracy_name
    curves = [curve for (name, _), curve in analysis.curves.items() if name == clip]

    def chart(what: str, label: str, x_of: Any, kept: Any, tip_of: Any) -> Chart:
        lines = []
        for curve in curves:
            rows = [row for row in sorted(curve.rows, key=lambda row: -row.quality) if kept(row)]
            if rows:
                tips = [tip_of(row) for row in rows]
                accuracies = [row.accuracy or 0.0 for row in rows]
                lines.append(Line(curve.method, [x_of(row) for row in rows], accuracies, tips))
        return Chart(
            f"{analysis.label}-{clip}-{what}", f"{clip}: accuracy over {what}", label, accuracy, lines
        )

    return [
        chart("bytes", "kbit/s, everything on the network", lambda row: row.bitrate_bps / 1000, bool, _tip),
        *(
            chart(
                f"mean delay at {link}",
                f"mean delay at {link}, ms",
                lambda row, link=link: row.delay_mean_ms[link],
                lambda row, link=link: (
                    link in row.delay_mean_ms and not diverges(row, analysis.bandwidths_bps.get(link))
                ),
                lambda row, link=link: f"{row.method} {row.quality}: {row.delay_mean_ms[link]:,.0f} ms",
            )
            for link in analysis.links
        ),
    ]


def _pooled_tip(name: str, point: PooledPoint) -> str:
    low, high = point.accuracy_interval
    return (
        f"{name} {point.quality}: {point.bitrate_bps / 1000:,.0f} kbit/s, "
        f"{point.accuracy:.3f} [{low:.3f}, {high:.3f}]"
    )


def _tip(row: CellRow) -> str:
    delays = ", ".join(f"{ms:,.0f} ms at {link}" for link, ms in row.delay_mean_ms.items())
    return (
        f"{row.method} {row.quality}: {row.bytes:,} bytes, {row.bitrate_bps / 1000:,.0f} kbit/s, "
        f"{row.accuracy:.3f}, camera {row.camera_ms:.1f} ms{'; delay ' if delays else ''}{delays}"
    )


def _pictures(folder: Path, clip: str, dnn: str) -> list[_Picture]:
    path = folder / f"{clip}--{dnn}.json"
    if not path.exists():
        return []
    described = _read_json(path)
    pictures = []
    for image in described.get("images", []):
        file = folder / image["file"]
        kind = "png" if file.suffix.lower() == ".png" else "jpeg"
        try:
            data = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            raise EvaluationError(
                f"can't read the picture {file}: {error.strerror}; use --no-pictures"
            ) from error
        caption = f"Frame {described.get('frame')}: {image['caption']}"
        pictures.append(_Picture(caption, f"data:image/{kind};base64,{data}"))
    return pictures


def _html(document: _Document) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("accmpeg.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(chart_svg=chart_svg, bars_svg=bars_svg, marker_symbols=marker_symbols)
    return environment.get_template("report.html").render(document=document)


def _markdown(document: _Document) -> str:
    parts = [
        f"# Comparison for {document.title}",
        f"{document.cells} cells, {document.failed} failed. "
        f"BD-rates by {document.interpolation} interpolation. Written by accmpeg {document.version}.",
    ]
    for section in document.sections:
        parts += [
            f"## {section.dnn} ({section.task}, {section.accuracy})",
            f"{section.clips} clips; accuracy band: {section.band}.",
            _markdown_table(section.headline),
            *section.verdicts,
            *map(_markdown_table, section.delays),
            _markdown_table(section.noise),
            *(f"![{chart.title}](figures/{chart.name}.png)" for chart in section.charts),
        ]
        if section.bars:
            parts.append(f"![Camera CPU time](figures/{section.dnn}-camera.png)")
        parts += [
            "### Problems",
            "\n".join(f"- {line}" for line in section.problems) or "None.",
            *map(_markdown_table, section.details),
        ]
        for clip in section.clip_sections:
            parts += [f"### {section.dnn} on {clip.name}", *map(_markdown_table, clip.tables)]
        if section.missing:
            parts += ["### Figures that there are not", "\n".join(f"- {line}" for line in section.missing)]
    if document.settings:
        parts += ["## Settings and versions", *map(_markdown_table, document.settings)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"**{table.title}**", "", *cells, *(["", table.note] if table.note else [])])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"can't read {path}: {error}") from error
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} holds no JSON object")
    return content


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"can't write {path}: {error.strerror}") from error
