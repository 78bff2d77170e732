"""Findings of simulated sweeps, in one call each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from accmpeg.evaluation.bench.rows import CellRow
from accmpeg.evaluation.findings.analysis import find
from accmpeg.evaluation.findings.findings import DnnFindings, Gap, ReferenceFindings
from tests.evaluation.simulated import clip_rows

CLIPS = tuple(f"street-{number}" for number in range(8))


def study(rows: Sequence[CellRow], **more: Any) -> DnnFindings:
    found = find(rows, **{"references": ["own"], "baselines": ["aq-1"], "draws": 50, **more})
    return found.dnns[0]


def headline(rows: Sequence[CellRow], **more: Any) -> ReferenceFindings:
    return study(rows, **more).headline


def gap_of(findings: ReferenceFindings, method: str, target: float = 0.9, **more: Any) -> Gap:
    comparison = findings.comparison(method, "aq-1", **more)
    assert comparison is not None
    gap = comparison.gap(target)
    assert gap is not None
    return gap


def sweep(shares: dict[str, float], clips: Sequence[str] = CLIPS, **more: Any) -> list[CellRow]:
    generator = np.random.default_rng(5)
    return [row for clip in clips for row in clip_rows(clip, shares, generator=generator, **more)]
