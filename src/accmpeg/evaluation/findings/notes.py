"""What a reader has to know before believing a figure, in plain words; never a silent number."""

from collections.abc import Iterable, Mapping, Sequence

from accmpeg.evaluation.bench.rows import CellRow, ReferenceName
from accmpeg.evaluation.findings.findings import HEADLINE_TARGETS, ClipFindings
from accmpeg.evaluation.findings.measured import Track, why_unused
from accmpeg.evaluation.link.delay import LOAD_LIMIT

__all__ = ["dnn_notes", "reference_notes"]


def dnn_notes(
    rows: Sequence[CellRow],
    *,
    baselines: Sequence[str],
    primary: Sequence[tuple[str, str]],
    measured: Sequence[str],
    links_bps: Mapping[str, float | None],
) -> tuple[str, ...]:
    """About one server DNN's cells, whatever they are counted against."""
    done = [row for row in rows if row.status == "ok"]
    points = [row for row in done if row.role == "method"]
    return (
        *_failures(rows),
        *_unmeasured(baselines, primary, measured),
        *_overloads(points, links_bps),
        *_beyond_source(points),
        *_mixtures(done),
    )


def reference_notes(
    reference: ReferenceName,
    clips: Sequence[ClipFindings],
    absent: Sequence[str],
    tracks: Mapping[tuple[str, str], Track],
) -> tuple[str, ...]:
    """About one reference: clips left out, targets never reached. `tracks`: bitrates by method and clip."""
    notes = [f"{clip.clip}: left out: {clip.why_left_out}" for clip in clips if clip.why_left_out]
    if absent:
        notes.append(f"without the reference “{reference}”: {', '.join(absent)}")
    reasons: dict[str, list[str]] = {}
    for (_, clip), track in tracks.items():
        for why in dict.fromkeys(track.why[track.targets.index(target)] for target in HEADLINE_TARGETS):
            if why:
                reasons.setdefault(why, []).append(clip)
    return (*notes, *(f"{', '.join(where)}: {why}" for why, where in reasons.items()))


def _unmeasured(
    baselines: Sequence[str], primary: Sequence[tuple[str, str]], measured: Sequence[str]
) -> Iterable[str]:
    if missing := [name for name in baselines if name not in measured]:
        yield f"baselines that were not measured: {', '.join(missing)}"
    for method, base in primary:
        if missing := [name for name in (method, base) if name not in measured]:
            yield f"no primary comparison of {method} with {base}: {' and '.join(missing)} was not measured"


def _failures(rows: Sequence[CellRow]) -> Iterable[str]:
    groups: dict[tuple[str, str, str, str], list[CellRow]] = {}
    for row in rows:
        if row.status == "failed":
            key = (row.clip, row.method, row.role, row.reason or "no reason was given")
            groups.setdefault(key, []).append(row)
    for (clip, method, role, reason), failed in groups.items():
        qualities = ", ".join(f"{row.quality:g}" for row in failed)
        which = "" if role == "method" else f" ({role})"
        yield f"{clip}, {method}{which}: failed at quality {qualities}: {reason}"


def _overloads(points: Sequence[CellRow], links_bps: Mapping[str, float | None]) -> Iterable[str]:
    for place in ("camera", "server"):
        over = [row for row in points if getattr(row, f"{place}_load") > LOAD_LIMIT]
        if over:
            names = ", ".join(dict.fromkeys(row.method for row in over))
            yield (
                f"the {place} is busy for more than {LOAD_LIMIT:.0%} of the time in {len(over)} of "
                f"{len(points)} cells ({names}): they have no delay"
            )
    for link, bandwidth_bps in links_bps.items():
        if bandwidth_bps is None:
            yield f"{link}: its bandwidth is not known, so streams that overload it were not looked for"
            continue
        count = sum(row.bitrate_bps > bandwidth_bps for row in points)
        if count:
            yield f"{link}: {count} of {len(points)} cells send more than it carries: they have no delay"


def _beyond_source(points: Sequence[CellRow]) -> Iterable[str]:
    clips: dict[str, list[CellRow]] = {}
    for row in points:
        if 0 < row.source_bitrate_bps < row.bitrate_bps:
            clips.setdefault(row.clip, []).append(row)
    for clip, over in clips.items():
        yield (
            f"{clip}: {len(over)} cells have a bitrate above the source file's own "
            f"{over[0].source_bitrate_bps / 1000:,.0f} kbit/s: left out of the curves"
        )
    strange = [row for row in points if why_unused(row) and not 0 < row.source_bitrate_bps < row.bitrate_bps]
    for row in strange:
        yield f"{row.clip}, {row.method} at {row.quality:g}: left out: {why_unused(row)}"


def _mixtures(done: Sequence[CellRow]) -> Iterable[str]:
    by_clip = {row.clip: row for row in done}
    sizes = sorted({f"{row.width_px}×{row.height_px}" for row in by_clip.values()})
    rates = sorted({f"{row.frame_rate:.4g}" for row in by_clip.values()}, key=float)
    steps = sorted({row.step for row in by_clip.values()})
    if len(sizes) > 1:
        yield f"the clips differ in size ({', '.join(sizes)})"
    if len(rates) > 1:
        yield f"the clips differ in frame rate ({', '.join(rates)} per second)"
    if len(steps) > 1:
        yield f"answers are measured on every {', '.join(map(str, steps))}-th frame, by clip"
