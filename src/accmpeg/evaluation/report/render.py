"""The report of a sweep: HTML, the same tables as Markdown, PNG figures, CSV. All of it renders `Findings`.

```
cells.jsonl, run.json ─▶ analysis.find ─▶ Findings ─▶ report.html, report.md, figures/, findings.json, ctc/
```
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accmpeg.errors import EvaluationError, SinkError
from accmpeg.evaluation.bench.record import links_bps, read_record
from accmpeg.evaluation.bench.rows import CELLS_NAME, read_rows
from accmpeg.evaluation.findings.analysis import find, with_baselines
from accmpeg.evaluation.findings.findings import HEADLINE_TARGETS, DnnFindings, Findings, ReferenceFindings
from accmpeg.evaluation.methods import BASELINES, PRIMARY
from accmpeg.evaluation.report.charts import (
    along_figure,
    camera_figure,
    curves_figure,
    delay_figure,
    save_png,
    svg_of,
)
from accmpeg.evaluation.report.ctc import write_ctc
from accmpeg.evaluation.report.tables import (
    REFERENCE_NAMES,
    Table,
    along_table,
    best_of_table,
    clip_gap_table,
    clips_table,
    delay_table,
    headline_table,
    null_table,
    points_table,
    settings_tables,
    spread_table,
)
from accmpeg.version import __version__

__all__ = ["read_findings", "write_report"]

FINDINGS_NAME = "findings.json"


@dataclass(frozen=True)
class _Picture:
    caption: str
    address: str


@dataclass(frozen=True)
class _Chart:
    title: str
    name: str
    svg: str


@dataclass(frozen=True)
class _Section:
    """One server DNN by one reference; what does not depend on the reference is with the first."""

    anchor: str
    title: str
    reference: str
    headlines: Sequence[Table]
    details: Sequence[Table]
    delays: Sequence[Table]
    charts: Sequence[_Chart]
    notes: Sequence[str]
    clips: Sequence[tuple[str, Table, Sequence[_Picture]]]


@dataclass(frozen=True)
class _Document:
    title: str
    version: str
    cells: int
    failed: int
    sections: Sequence[_Section]
    settings: Sequence[Table] = field(default_factory=list)


def read_findings(folder: str | Path, *, baselines: Sequence[str] = ()) -> Findings:
    """Every figure that follows from the cells in a sweep's folder.

    Args:
        folder: Where `evaluate` wrote its results.
        baselines: Names of methods to compare with; none for the fixed ones.

    Raises:
        EvaluationError: The folder holds no finished cell, or what it holds can't be read.
    """
    folder = Path(folder)
    rows = read_rows(folder / CELLS_NAME)
    if not rows:
        raise EvaluationError(
            f"{folder} holds no finished cell of a sweep: run accmpeg evaluate --output {folder}"
        )
    record = read_record(folder)
    # Whatever is compared with here, what was named beforehand stays what it was.
    named = with_baselines(record.get("primary") or PRIMARY, [row.method for row in rows], BASELINES)
    return find(
        rows,
        primary=named,
        baselines=tuple(baselines) or BASELINES,
        links_bps=links_bps(record),
    )


def write_report(
    folder: str | Path,
    *,
    baselines: Sequence[str] = (),
    pictures: bool = True,
    findings: Findings | None = None,
) -> Path:
    """Writes all forms of the report into a sweep's folder: HTML, Markdown, figures, `findings.json`, CSV.

    Args:
        folder: Where `evaluate` wrote its results.
        baselines: Names of methods to compare with; none for the fixed ones.
        pictures: False keeps every frame of the clips out, for clips that may not be shown.
        findings: Those of this folder, where they were read already; they take a while.

    Returns:
        The path of the HTML file.

    Raises:
        EvaluationError: The folder holds no finished cell, or what it holds can't be read.
        SinkError: A file can't be written.
    """
    folder = Path(folder)
    findings = findings or read_findings(folder, baselines=baselines)
    rows = read_rows(folder / CELLS_NAME)
    document = _Document(
        title=", ".join(dict.fromkeys(dnn.dnn for dnn in findings.dnns)),
        version=__version__,
        cells=len(rows),
        failed=sum(row.status == "failed" for row in rows),
        sections=[
            _section(dnn, reference, folder, findings, pictures=pictures)
            for dnn in findings.dnns
            for reference in dnn.references
        ],
        settings=settings_tables(read_record(folder)),
    )
    path = folder / "report.html"
    _write(path, _html(document))
    _write(folder / "report.md", _markdown(document))
    _write(folder / FINDINGS_NAME, findings.to_json())
    write_ctc(rows, folder / "ctc")
    return path


def _section(
    dnn: DnnFindings, reference: ReferenceFindings, folder: Path, findings: Findings, *, pictures: bool
) -> _Section:
    is_headline = reference is dnn.headline
    target = HEADLINE_TARGETS[0]
    charts = []
    slug = f"{dnn.dnn}-{reference.reference}"
    figures: list[tuple[str, str, Any]] = [
        (f"against {base}", f"{slug}-along-{base}", along_figure(dnn, reference, base))
        for base in dnn.baselines[:2]
    ]
    if is_headline:
        figures += [
            *(
                (link, f"{slug}-delay-{_slug(link)}", delay_figure(dnn, reference, link, target))
                for link in _links(findings)
            ),
            ("camera cost", f"{dnn.dnn}-camera", camera_figure(dnn)),
        ]
    figures.append(("clip by clip", f"{slug}-clips", curves_figure(dnn, reference)))
    for title, name, figure in figures:
        if figure is not None:
            charts.append(_Chart(title, name, svg_of(figure)))
            save_png(figure, folder / "figures" / f"{name}.png")
    return _Section(
        anchor=slug,
        title=f"{dnn.dnn}: {dnn.task}",
        reference=REFERENCE_NAMES[reference.reference],
        headlines=_having([headline_table(dnn, reference, base) for base in dnn.baselines]),
        details=_having(
            [
                *(along_table(dnn, reference, base) for base in dnn.baselines),
                *(spread_table(dnn, reference, base) for base in dnn.baselines),
                best_of_table(reference),
                null_table(reference),
                clips_table(reference),
                *(clip_gap_table(dnn, reference, base, target) for base in dnn.baselines[:2]),
            ]
        ),
        delays=_having(
            [
                delay_table(dnn, reference, link, target, base)
                for link in _links(findings)
                for base in dnn.baselines[:1]
            ]
            if is_headline
            else []
        ),
        charts=charts,
        notes=[*(dnn.notes if is_headline else ()), *reference.notes],
        clips=[
            (
                clip,
                points_table(dnn, reference, clip),
                _pictures(folder / "pictures", clip, dnn.dnn) if pictures else [],
            )
            for clip in dict.fromkeys(point.clip for point in dnn.points)
            if is_headline
        ],
    )


def _links(findings: Findings) -> list[str]:
    """The narrowest first, traces last."""
    return sorted(findings.links_bps, key=lambda link: findings.links_bps[link] or math.inf)


def _having(tables: Sequence[Table]) -> list[Table]:
    return [table for table in tables if table.rows]


def _slug(link: str) -> str:
    return link.replace(" ", "").replace("/", "p")


def _pictures(folder: Path, clip: str, dnn: str) -> list[_Picture]:
    path = folder / f"{clip}--{dnn}.json".replace("/", "_")
    if not path.exists():
        return []
    pictures = []
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        for image in described["images"]:
            file = folder / image["file"]
            data = base64.b64encode(file.read_bytes()).decode()
            caption = f"Frame {described['frame']}: {image['caption']}"
            pictures.append(_Picture(caption, f"data:image/jpeg;base64,{data}"))
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"can't read the pictures of {path}: {error}; use --no-pictures") from error
    return pictures


def _html(document: _Document) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("accmpeg.evaluation.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(document=document)


def _markdown(document: _Document) -> str:
    parts = [
        f"# Comparison for {document.title}",
        f"{document.cells} cells, {document.failed} failed. Written by accmpeg {document.version}.",
    ]
    for section in document.sections:
        parts += [
            f"## {section.title}",
            f"Scored against {section.reference}.",
            *map(_markdown_table, section.headlines),
            *(f"![{chart.title}](figures/{chart.name}.png)" for chart in section.charts),
            *map(_markdown_table, [*section.delays, *section.details]),
        ]
        if section.notes:
            parts += ["### What to know", "\n".join(f"- {line}" for line in section.notes)]
    if document.settings:
        parts += ["## Settings and versions", *map(_markdown_table, document.settings)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"**{table.title}**", "", *cells, *(["", table.note] if table.note else [])])


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"can't write {path}: {error.strerror}") from error
