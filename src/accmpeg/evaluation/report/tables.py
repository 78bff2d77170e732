"""Findings as tables of text: the same ones for the HTML report, the Markdown report and the terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from accmpeg.evaluation.findings.findings import (
    HEADLINE_TARGETS,
    TARGETS,
    Comparison,
    DnnFindings,
    ReferenceFindings,
)
from accmpeg.evaluation.report.texts import (
    NONE,
    camera_text,
    chunk_text,
    clip_cell,
    clip_text,
    gap_text,
    interval_text,
    ms,
    number_text,
    p_text,
    plain,
    reached_text,
    share,
    signed,
    spread_text,
)

__all__ = [
    "MEASURE_NAMES",
    "REFERENCE_NAMES",
    "Table",
    "along_table",
    "best_of_table",
    "clip_gap_table",
    "clips_table",
    "delay_table",
    "headline_table",
    "null_table",
    "points_table",
    "settings_tables",
    "spread_table",
]

REFERENCE_NAMES = {
    "own": "the DNN's own answers on the source",
    "confirmed": "own answers that a stronger DNN confirms",
    "labels": "true labels",
}
MEASURE_NAMES = {
    "ap50": "AP@0.5",
    "f1": "F1",
    "mask_ap50": "mask AP@0.5",
    "oks_ap": "OKS AP",
    "pck": "PCK",
    "miou": "mIoU",
    "pixel_agreement": "pixel agreement",
    "labels_ap50": "AP@0.5 (labels)",
    "labels_recall": "recall (labels)",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; `note` says how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def headline_table(dnn: DnnFindings, reference: ReferenceFindings, baseline: str) -> Table:
    """Bytes of every method against one baseline at 90 and 95 % of the ceiling, and what the camera pays."""
    cameras = {cost.method: cost for cost in dnn.camera}
    rows = []
    for method, comparison in _compared(dnn, reference, baseline):
        first, second = (comparison.gap(target) for target in HEADLINE_TARGETS)
        rows.append(
            (
                method,
                "primary" if comparison.primary else "exploratory",
                chunk_text(method),
                gap_text(first),
                gap_text(second),
                clip_text(first),
                "" if first is None else reached_text(first, len(reference.counted)),
                camera_text(cameras.get(method)),
                p_text(comparison),
            )
        )
    return Table(
        f"Bytes at equal answers, against {baseline}",
        (
            "method",
            "",
            "chunk",
            "at 90 %",
            "at 95 %",
            "worst clip at 90 %",
            "clips",
            "camera CPU",
            "p, corrected",
        ),
        tuple(rows),
        "Percent of the baseline's bytes at 90 and 95 % of the ceiling, every object counted once, with the "
        "95 % interval over clips and blocks of ten frames. An asterisk marks a figure that the null "
        "comparison does not tell from chance. Camera CPU: CPU time of everything on the camera over that of "
        "plain x264 (aq-1) at the source size. Chunk: frames that are gathered before any is answered.",
    )


def spread_table(dnn: DnnFindings, reference: ReferenceFindings, baseline: str) -> Table:
    """The headline figures with every kind of mean and interval."""
    rows = []
    for method, comparison in _compared(dnn, reference, baseline):
        for gap in comparison.gaps:
            if gap.target not in HEADLINE_TARGETS or gap.percent is None:
                continue
            rows.append(
                (
                    f"{method} at {100 * gap.target:.0f} %",
                    gap_text(gap),
                    f"{signed(gap.percent)} %{interval_text(gap.interval_these_clips)}",
                    number_text(gap.macro_percent) + interval_text(gap.macro_interval),
                    number_text(gap.median_percent),
                    number_text(gap.worst_percent),
                    number_text(gap.null_percent),
                    _within(gap.null_spread_percent),
                    _within(gap.null_clips_within_percent),
                )
            )
    return Table(
        f"Means and intervals, against {baseline}",
        (
            "method",
            "every object alike",
            "these clips alone",
            "every clip alike",
            "median clip",
            "worst clip",
            "null",
            "its spread",
            "its clips",
        ),
        tuple(rows),
        "Null: half the difference between the figures of even and of odd blocks, which is chance; its "
        "spread holds 95 % of what chance gives for the mean. 95 % of its clips lie within the last column.",
    )


def _within(percent: float | None) -> str:
    return "—" if percent is None else f"±{percent:.0f} %"


def along_table(dnn: DnnFindings, reference: ReferenceFindings, baseline: str) -> Table:
    """The gap along the curve: which method wins may change."""
    rows = []
    for method, comparison in _compared(dnn, reference, baseline):
        gaps = [comparison.gap(target) for target in TARGETS]
        rows.append((method, *(gap_text(gap) for gap in gaps), gap_text(comparison.bd)))
    return Table(
        f"Along the curve, against {baseline}",
        ("method", *(f"at {100 * target:.0f} %" for target in TARGETS), "BD-rate, 80 to 95 %"),
        tuple(rows),
        "Above 98 % of the ceiling the score sees the DNN's own jitter.",
    )


def clip_gap_table(dnn: DnnFindings, reference: ReferenceFindings, baseline: str, target: float) -> Table:
    """Every clip on its own: where a method loses."""
    rows = []
    for method, comparison in _compared(dnn, reference, baseline):
        gap = comparison.gap(target)
        if gap is None:
            continue
        own = {each.clip: each for each in gap.clips}
        rows.append((method, *(clip_cell(own[clip]) if clip in own else NONE for clip in reference.counted)))
    return Table(
        f"Clip by clip at {100 * target:.0f} %, against {baseline}",
        ("method", *reference.counted),
        tuple(rows),
        "Where there is no figure, the reason stands in its place.",
    )


def best_of_table(reference: ReferenceFindings) -> Table:
    """Groups of settings, the best chosen on other data than it is judged by."""
    rules = {"halves": "first half of the clip, judged on the second", "others": "the other clips"}
    rows = [
        (
            comparison.method,
            comparison.baseline,
            rules.get(comparison.rule, comparison.rule),
            *(gap_text(comparison.gap(target)) for target in HEADLINE_TARGETS),
            clip_text(comparison.gap(HEADLINE_TARGETS[0])),
        )
        for comparison in reference.best_of
        if comparison.link is None
    ]
    return Table(
        "The best of several settings, cross-fitted",
        ("group", "against", "chosen on", "at 90 %", "at 95 %", "worst clip at 90 %"),
        tuple(rows),
        "A best setting picked on the data that judges it owes part of its lead to luck; these do not.",
    )


def null_table(reference: ReferenceFindings) -> Table:
    """A method against itself: what a figure of nothing looks like here."""
    rows = [
        (
            comparison.method,
            *(gap_text(comparison.gap(target), marks=False) for target in HEADLINE_TARGETS),
            spread_text(comparison.gap(HEADLINE_TARGETS[0])),
        )
        for comparison in reference.nulls
        if comparison.link is None
    ]
    return Table(
        "A method against itself",
        ("method", "at 90 %", "at 95 %", "single clips at 90 %"),
        tuple(rows),
        "The same method measured again between its own operating points. What these figures show is error.",
    )


def delay_table(
    dnn: DnnFindings, reference: ReferenceFindings, link: str, target: float, baseline: str
) -> Table:
    """Delay and age over one link, at the operating point where a share of the ceiling is reached."""
    rows = []
    for method in dnn.methods:
        point = reference.operating_point(method, target)
        if point is None:
            continue
        delay = point.delays.get(link)
        clips = f"{point.delay_clips.get(link, 0)} of {len(reference.counted)}"
        comparison = reference.comparison(method, baseline, link=link)
        gap = None if comparison is None or method == baseline else comparison.gap(target)
        if delay is None:
            rows.append((method, *([NONE] * 10), clips))
            continue
        parts = (delay.camera_ms, delay.uplink_ms, delay.propagation_ms, delay.serve_ms, delay.wait_ms)
        rows.append(
            (
                method,
                ms(delay.mean_ms),
                gap_text(gap),
                ms(delay.p50_ms),
                ms(delay.p95_ms),
                *(ms(part) for part in parts),
                ms(delay.age_mean_ms),
                clips,
            )
        )
    return Table(
        f"Delay at {link}, where {100 * target:.0f} % of the ceiling is reached",
        (
            "method",
            "mean",
            f"against {baseline}",
            "p50",
            "p95",
            "camera",
            "uplink",
            "propagation",
            "serve",
            "wait",
            "age in use",
            "clips",
        ),
        tuple(rows),
        "Milliseconds from capture to result; its five parts add up to the mean. Age in use: at the capture "
        "of a frame, how old the picture is that the newest result speaks of. Clips on which the link, the "
        "camera or the server is overloaded have no delay.",
    )


def clips_table(reference: ReferenceFindings) -> Table:
    """The clips, what they weigh, and what the DNN's size alone costs."""
    rows = []
    for clip in reference.clips:
        uncoded = ", ".join(f"{share:.3f}" for share in clip.uncoded.values()) or NONE
        ceiling = NONE if clip.ceiling is None else f"{clip.ceiling:.3f}"
        source = f"{clip.source_bitrate_bps / 1000:,.0f}" if clip.source_bitrate_bps else NONE
        rows.append(
            (
                clip.clip,
                str(clip.frames),
                f"{clip.weight:,.0f}",
                ceiling,
                uncoded,
                source,
                clip.why_left_out or "counted",
            )
        )
    return Table(
        "Clips",
        ("clip", "frames", "weight", "ceiling", "uncoded at the DNN's size", "source, kbit/s", ""),
        tuple(rows),
        "Weight: objects counted (frames in segmentation). Ceiling: the score of a visually lossless stream "
        "of the source; all figures are shares of it.",
    )


def points_table(dnn: DnnFindings, reference: ReferenceFindings, clip: str) -> Table:
    """Every measured point of a clip, with the measures that people know."""
    points = [point for point in dnn.points if point.clip == clip]
    measures = list(dict.fromkeys(name for point in points for name in point.measures))
    shown = [name for name in measures if name in MEASURE_NAMES]
    rows = [
        (
            point.method if point.role == "method" else f"{point.method} ({point.role})",
            f"{point.quality:g}",
            f"{point.stream_size_px[0]}×{point.stream_size_px[1]}" if point.stream_size_px[0] else NONE,
            f"{point.bitrate_bps / 1000:,.1f}",
            share(point.scores.get(reference.reference)),
            share(point.relative.get(reference.reference)),
            *(share(point.measures.get(name)) for name in shown),
            f"{point.camera_ms:.1f}",
            point.why_unused,
        )
        for point in sorted(points, key=lambda point: (point.role, point.method, -point.quality))
    ]
    return Table(
        f"Points on {clip}",
        (
            "method",
            "QP or CRF",
            "size",
            "kbit/s",
            "S",
            "of the ceiling",
            *(MEASURE_NAMES[name] for name in shown),
            "camera, ms",
            "",
        ),
        tuple(rows),
    )


def settings_tables(record: Mapping[str, Any]) -> list[Table]:
    """What the sweep was run with."""
    titles = {
        "settings": "Settings",
        "versions": "Versions",
        "dnns": "Server DNNs",
        "clips": "Clips",
        "methods": "Methods",
        "links": "Links",
    }
    return [_settings_table(titles[name], record[name]) for name in titles if record.get(name)]


def _compared(
    dnn: DnnFindings, reference: ReferenceFindings, baseline: str
) -> Iterator[tuple[str, Comparison]]:
    """The methods that have a comparison with a baseline, in the order of the sweep."""
    for method in dnn.methods:
        comparison = reference.comparison(method, baseline)
        if comparison is not None and method != baseline:
            yield method, comparison


def _settings_table(title: str, section: Mapping[str, Any]) -> Table:
    if all(isinstance(value, Mapping) for value in section.values()):
        keys = list(dict.fromkeys(key for value in section.values() for key in value))
        rows = tuple((name, *(plain(value.get(key)) for key in keys)) for name, value in section.items())
        return Table(title, ("", *keys), rows)
    return Table(title, ("", ""), tuple((name, plain(value)) for name, value in section.items()))
