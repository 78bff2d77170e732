"""Figures of findings as the texts of table cells."""

import json
from typing import Any

from accmpeg.evaluation.findings.findings import CameraCost, Comparison, Gap, Interval
from accmpeg.evaluation.methods import METHODS

__all__ = [
    "NONE",
    "camera_text",
    "chunk_text",
    "clip_cell",
    "clip_text",
    "gap_text",
    "interval_text",
    "ms",
    "number_text",
    "p_text",
    "plain",
    "reached_text",
    "share",
    "signed",
    "spread_text",
]

NONE = "—"


def plain(value: Any) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def gap_text(gap: Gap | None, *, marks: bool = True) -> str:
    if gap is None or gap.percent is None:
        return NONE
    mark = "*" if marks and gap.no_effect else ""
    return f"{signed(gap.percent)} %{mark}{interval_text(gap.interval)}"


def interval_text(interval: Interval | None) -> str:
    return "" if interval is None else f" [{signed(interval.low)}, {signed(interval.high)}]"


def clip_text(gap: Gap | None) -> str:
    if gap is None or gap.worst_percent is None:
        return NONE
    return f"{signed(gap.worst_percent)} % {gap.worst_clip}"


def number_text(percent: float | None) -> str:
    return NONE if percent is None else f"{signed(percent)} %"


def chunk_text(method: str) -> str:
    declared = METHODS.get(method)
    return NONE if declared is None or declared.chunk_frames == 1 else str(declared.chunk_frames)


def reached_text(gap: Gap, clips: int) -> str:
    return f"{gap.reached} of {clips}"


def spread_text(gap: Gap | None) -> str:
    having = [] if gap is None else [clip.percent for clip in gap.clips if clip.percent is not None]
    return f"{signed(min(having))} to {signed(max(having))} %" if having else NONE


def clip_cell(clip: Any) -> str:
    return f"{signed(clip.percent)}" if clip.percent is not None else clip.why


def camera_text(cost: CameraCost | None) -> str:
    return NONE if cost is None else f"{cost.ratio:.2f} ({cost.ms:.1f} ms)"


def p_text(comparison: Comparison) -> str:
    having = [gap.p_holm for gap in comparison.gaps if gap.p_holm is not None]
    return ", ".join(p_value(value) for value in having) if having else NONE


def p_value(value: float) -> str:
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def ms(value: float) -> str:
    return f"{value:,.0f}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """
    >>> signed(-3.2), signed(0.2)
    ('−3', '0')
    """
    rounded = round(value)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "−")
