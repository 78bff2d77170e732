"""What a sweep's rows say: the one way from rows to figures.

```
rows ─▶ by server DNN ─▶ by reference ─▶ tracks (bitrate, delay) ─▶ comparisons, best of, nulls ─▶ Findings
```
Pure: no files, no clock; the same rows and seed give the same findings.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from accmpeg.errors import UsageError
from accmpeg.evaluation.bench.rows import CellRow, ReferenceName
from accmpeg.evaluation.findings.best_of import groups_of
from accmpeg.evaluation.findings.findings import CameraCost, DnnFindings, Findings, Point, ReferenceFindings
from accmpeg.evaluation.findings.measured import cell_score, has_delay, measure_clips, why_unused
from accmpeg.evaluation.findings.notes import dnn_notes
from accmpeg.evaluation.findings.study import Study
from accmpeg.evaluation.methods import BASELINES

__all__ = ["find", "primary_pairs"]


def find(
    rows: Sequence[CellRow],
    *,
    primary: Sequence[str] = (),
    baselines: Sequence[str] = BASELINES,
    references: Sequence[ReferenceName] = ("confirmed", "own", "labels"),
    links_bps: Mapping[str, float | None] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Findings:
    """Every figure of a sweep.

    `primary`: the comparisons named beforehand, `METHOD:BASELINE`, or `METHOD` for the first baseline; those
    that were not measured are said in the notes. `references`: the headline's first; those that no cell was
    counted against are left out. `links_bps`: bandwidth by link, None where it is not known. `draws`: of
    blocks; ten times as many of clips.
    Raises `UsageError` where none of the baselines was measured, unless they are the fixed ones.
    """
    done = dict.fromkeys(row.method for row in rows if row.role == "method")
    if not set(baselines) & set(done) and not set(baselines) <= set(BASELINES):
        raise UsageError(
            f"no method of this sweep is called {', '.join(baselines)}: choose the baseline from "
            f"{', '.join(done)}"
        )
    pairs = primary_pairs(primary, list(done), baselines)
    found = dict.fromkeys(link for row in rows for link in row.delays)
    known_bps = {link: (links_bps or {}).get(link) for link in found}
    dnns = []
    for dnn in dict.fromkeys(row.dnn for row in rows):
        mine = [row for row in rows if row.dnn == dnn]
        dnns.append(_dnn(mine, pairs, baselines, references, known_bps, draws=draws, seed=seed))
    return Findings(tuple(dnns), pairs, known_bps, draws, seed)


def primary_pairs(
    primary: Sequence[str], methods: Sequence[str], baselines: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Methods and baselines of `METHOD` or `METHOD:BASELINE`; a method's own name may hold colons.

    A method against itself is no comparison and is left out.

    >>> primary_pairs(["a", "g:k=1:aq-1", "aq-1"], ["a", "g:k=1", "aq-1"], ["aq-1"])
    (('a', 'aq-1'), ('g:k=1', 'aq-1'))
    """
    known = {*methods, *groups_of(methods)}
    first = next(iter([*(name for name in baselines if name in methods), *baselines]))
    pairs = []
    for text in primary:
        cuts = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == ":"]
        named = [(own, other) for own, other in cuts if own in known and other in known]
        pairs.append(named[0] if named and text not in known else (text, first))
    return tuple(dict.fromkeys((own, other) for own, other in pairs if own != other))


def with_baselines(
    primary: Sequence[str], methods: Sequence[str], baselines: Sequence[str]
) -> tuple[str, ...]:
    """The same comparisons as `METHOD:BASELINE`, whatever will be compared with later.

    >>> with_baselines(["a", "a:b2", "a:absent"], ["a", "b2", "aq-1"], ["aq-1"])
    ('a:aq-1', 'a:b2', 'a:absent')
    """
    pairs = [(text, primary_pairs([text], methods, baselines)) for text in primary]
    known = {*methods, *groups_of(methods)}
    return tuple(":".join(pair) if pair[0] in known else text for text, found in pairs for pair in found)


def _dnn(
    rows: list[CellRow],
    primary: tuple[tuple[str, str], ...],
    baselines: Sequence[str],
    references: Sequence[ReferenceName],
    links_bps: Mapping[str, float | None],
    *,
    draws: int,
    seed: int,
) -> DnnFindings:
    methods = tuple(dict.fromkeys(row.method for row in rows if row.role == "method"))
    groups = groups_of(methods)
    bases = tuple(base for base in baselines if base in methods)
    every_clip = tuple(dict.fromkeys(row.clip for row in rows))
    by_reference: list[ReferenceFindings] = []
    counted = [name for name in references if any(row.blocks.counts.get(name) for row in rows)]
    relative: dict[tuple[ReferenceName, str], float] = {}
    blocks: dict[str, int] = {}
    # Where every cell failed there is still a value, which says so.
    for reference in counted or references[:1]:
        clips = measure_clips(rows, reference, draws=draws, seed=seed, halves=bool(groups))
        absent = [name for name in every_clip if name not in {clip.clip for clip in clips}]
        study = Study(reference, clips, absent, methods, bases, groups, primary, links_bps, seed)
        by_reference.append(study.findings())
        blocks |= {clip.clip: clip.blocks for clip in clips}
        for clip in clips:
            for row in clip.rows:
                value = clip.relative(row, reference)
                if value is not None:
                    relative[reference, row.key] = value
    names = [reference.reference for reference in by_reference]
    return DnnFindings(
        dnn=rows[0].dnn,
        task=rows[0].task,
        methods=methods,
        baselines=bases,
        groups=groups,
        points=tuple(_point(row, names, relative, links_bps, blocks) for row in rows if row.status == "ok"),
        camera=tuple(_camera(rows, methods)),
        references=tuple(by_reference),
        notes=dnn_notes(
            rows, baselines=baselines, primary=primary, measured=(*methods, *groups), links_bps=links_bps
        ),
    )


def _point(
    row: CellRow,
    references: Sequence[ReferenceName],
    relative: Mapping[tuple[ReferenceName, str], float],
    links_bps: Mapping[str, float | None],
    blocks: Mapping[str, int],
) -> Point:
    scores = {name: cell_score(row, name) for name in references}
    return Point(
        clip=row.clip,
        method=row.method,
        role=row.role,
        quality=row.quality,
        bitrate_bps=row.bitrate_bps,
        scores={name: value for name, value in scores.items() if value is not None},
        relative={name: relative[name, row.key] for name in references if (name, row.key) in relative},
        measures=dict(row.measures),
        stream_size_px=(row.stream_width_px, row.stream_height_px),
        camera_ms=row.camera_ms,
        camera_ratio=row.camera_ratio,
        delays={
            link: delay for link, delay in row.delays.items() if has_delay(row, link, links_bps.get(link))
        },
        paper_delay_s=dict(row.paper_delay_s),
        why_unused=why_unused(row, blocks.get(row.clip)) if row.role in ("method", "null") else "",
    )


def _camera(rows: Sequence[CellRow], methods: Sequence[str]) -> Iterable[CameraCost]:
    for method in methods:
        ratios: dict[str, list[float]] = {}
        costs_ms: dict[str, list[float]] = {}
        for row in rows:
            if row.method == method and row.role == "method" and row.status == "ok" and row.camera_ratio > 0:
                ratios.setdefault(row.clip, []).append(row.camera_ratio)
                costs_ms.setdefault(row.clip, []).append(row.camera_ms)
        if ratios:
            clips = {clip: float(np.median(values)) for clip, values in ratios.items()}
            cost_ms = float(np.median([np.median(values) for values in costs_ms.values()]))
            yield CameraCost(method, float(np.median(list(clips.values()))), cost_ms, clips)
