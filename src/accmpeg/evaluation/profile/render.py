"""What a search found, as a sentence, a table, a TOML file and a picture; computes nothing."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from accmpeg.errors import SinkError
from accmpeg.evaluation.methods.whole_stream import MAP_EVERY, PREFIX, StreamSetting
from accmpeg.evaluation.profile.gains import Seen
from accmpeg.evaluation.profile.search import Outcome
from accmpeg.version import __version__

__all__ = ["front", "saving", "sentences", "site_document", "table", "write_picture", "write_site"]

_CHOSEN, _AHEAD = "#d55e00", "#0072b2"
_NOTHING_BETTER = "Nothing that was tried is surely better on this footage"
_HEADROOM = 1.5
"""Of the rate that keeps the share: what more a camera may send before bits stop paying."""


def saving(seen: Seen) -> str:
    """Bytes against an untouched x264 with the interval for this footage: `-31 [-40, -22] %`."""
    if not seen.reached:
        return "never reached"
    low, high = (round(100 * math.expm1(value)) for value in seen.interval)
    return f"{round(100 * math.expm1(seen.gain)):+d} [{low:+d}, {high:+d}] %"


def front(outcome: Outcome) -> list[Seen]:
    """The settings that no other one beats in bytes, camera CPU and delay at once; fewest bytes first.

    None that sends more than an untouched x264: that is never chosen, however little CPU it takes.
    """
    seen = sorted(outcome.chosen_by.seen, key=lambda each: each.gain)

    def beaten(one: Seen) -> bool:
        return any(
            other.gain < one.gain
            and other.camera_ratio <= one.camera_ratio
            and other.delay_ms <= one.delay_ms + 1
            for other in seen
        )

    return [each for each in seen if each.reached and each.gain <= 0 and not beaten(each)]


def sentences(outcome: Outcome) -> list[str]:
    """What was chosen, what it saves, how sure it is; where the knee is, and the footage's own bitrate."""
    told = []
    curve = outcome.curve
    if curve is not None and curve.knee_bps is not None:
        told.append(
            f"An untouched x264 gains little above {_rate(curve.knee_bps)}: twice the bits bring less than "
            "1 % of the ceiling."
        )
    elif curve is not None:
        told.append("An untouched x264 gains from more bits all along what was measured.")
    if curve is not None and curve.source_bitrate_bps:
        share = float(np.interp(curve.source_bitrate_bps, curve.bitrate_bps, curve.share))
        times = curve.source_bitrate_bps / (curve.knee_bps or curve.source_bitrate_bps)
        beyond = f", {times:.1f} times that" if curve.knee_bps else ""
        least = "at least " if curve.source_bitrate_bps > curve.bitrate_bps[-1] else ""
        footage = f"{_rate(curve.source_bitrate_bps)}{beyond} ({least}{share:.0%} of the ceiling)"
        told.append(f"The footage itself has {footage}.")
    told += _readings(outcome)
    chosen, verdict = _seen(outcome), outcome.verdict
    if outcome.choice == StreamSetting():
        why = outcome.judged[0].why
        reason = f"The other half can't judge anything else: {why}" if why else _NOTHING_BETTER
        told.append(f"Chosen: an untouched x264. {reason}.")
        return told + _beside(outcome)
    why = f"it beat the next simpler setting with a probability of {outcome.chain[-1].probability:.0%}"
    told.append(f"Chosen: {_words(outcome.choice)}; {why}.")
    keep = f"{outcome.settings.keep:.0%} of the ceiling"
    other = "" if verdict is None else f", {saving(verdict)} on the other half"
    told.append(
        f"At {keep} it sends {_rate(chosen.bitrate_bps)}: {saving(chosen)} against an untouched x264 on the "
        f"footage that it was chosen on{other}."
    )
    if verdict is None or verdict.interval[1] > 0:
        told.append("The other half alone does not prove it: give more footage to be sure.")
    return told + _beside(outcome)


def table(outcome: Outcome) -> list[dict[str, str]]:
    """A row for each measured setting, fewest bytes first."""
    ahead = {each.setting for each in front(outcome)}
    nineties = {gains.keep: gains for gains in outcome.judged}
    rows = []
    for seen in sorted(outcome.chosen_by.seen, key=lambda each: each.gain):
        row = {
            "stream": seen.setting.name.removeprefix(PREFIX),
            f"bytes at {outcome.settings.keep:.0%}": saving(seen),
            "kbit/s": f"{seen.bitrate_bps / 1000:,.0f}",
            "camera CPU": f"{seen.camera_ratio:.2f}",
            # A camera that is busy for nearly all of the time has none that could be told.
            "delay, ms": "—" if math.isnan(seen.delay_ms) else f"{seen.delay_ms:.0f}",
        }
        for keep in (0.90, 0.95):
            judged = nineties[keep].of(seen.setting) if keep in nineties else None
            row[f"other half, {keep:.0%}"] = saving(judged) if judged is not None else ""
        notes = {
            "chosen": seen.setting == outcome.choice,
            "front": seen.setting != outcome.choice and seen.setting in ahead,
            "too dear": seen.camera_ratio > outcome.settings.most_camera_ratio,
            "too late": seen.delay_ms > outcome.settings.delay_budget_ms,
        }
        row[""] = ", ".join(note for note, true in notes.items() if true)
        rows.append(row)
    return rows


def site_document(outcome: Outcome) -> dict[str, Any]:
    """The options that `encode`, `stream` and `serve --input` take, and where they come from."""
    choice, chosen, verdict = outcome.choice, _seen(outcome), outcome.verdict
    width_px, height_px = choice.size_px or outcome.parts.size_px
    policy = {"none": "none", "feedback": "feedback", "accmodel": "graded"}[choice.map]
    document: dict[str, Any] = {
        "size": f"{width_px}x{height_px}",
        "b-frames": choice.b_frames,
        "mbtree-frames": choice.mbtree_frames,
        "policy": policy,
        "map-strength": choice.map_strength,
        "map-margin": choice.map_margin,
        "every": choice.map_every or MAP_EVERY,
        "preset": choice.preset,
        "aq-mode": choice.aq_mode,
        "crf": round(chosen.crf, 1),
        "max-bitrate": f"{max(1, round(_HEADROOM * chosen.bitrate_bps / 1000))}k",
    }
    record: dict[str, Any] = {
        "dnn": outcome.dnn.card.name,
        "dnn-sha256": outcome.dnn.card.sha256 or "",
        "source": f"{outcome.parts.size_px[0]}x{outcome.parts.size_px[1]}",
        "frames-per-second": round(float(outcome.parts.frame_rate), 3),
        "keep": outcome.settings.keep,
        "bitrate-bps": round(chosen.bitrate_bps),
        "bytes-percent": round(100 * math.expm1(chosen.gain), 1),
        # Not an option: a camera knows who else reads its stream, and so how rare keyframes may be.
        "keyframe-every": choice.gop_frames,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "accmpeg": __version__,
    }
    if outcome.dnn.accmodel is not None and choice.map == "accmodel":
        record["accmodel-sha256"] = outcome.dnn.accmodel.sha256
    if verdict is not None:
        record["other-half-bytes-percent"] = round(100 * math.expm1(verdict.gain), 1)
        record["other-half-interval-percent"] = [
            round(100 * math.expm1(each), 1) for each in verdict.interval
        ]
    if outcome.readings:
        record["readings"] = [
            {
                "size": f"{each.size_px[0]}x{each.size_px[1]}",
                "infer-ms": round(each.infer_ms, 1),
                "best-score": round(each.best, 4),
                **({} if each.bitrate_bps is None else {"bitrate-bps": round(each.bitrate_bps)}),
            }
            for each in outcome.readings
        ]
    return {**document, "profile": record}


def write_site(outcome: Outcome, path: Path) -> None:
    """Writes the TOML file. Raises SinkError."""
    said = "".join(f"# {sentence}\n" for sentence in sentences(outcome))
    try:
        path.write_text(said + tomli_w.dumps(site_document(outcome)), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"can't write {path}: {error.strerror}; give another -o") from error


def write_picture(outcome: Outcome, path: Path) -> None:
    """Draws answers over bitrate with the knee, and bytes over camera CPU. Raises SinkError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_answers(left, outcome)
    _draw_streams(right, outcome)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise SinkError(f"can't write {path}: {error.strerror}") from error


def _beside(outcome: Outcome) -> list[str]:
    """What the default would have sent, and what the time left out."""
    told = []
    default = outcome.judged[0].of(outcome.default)
    if default is not None and outcome.default not in (outcome.choice, StreamSetting()):
        keep = f"{outcome.settings.keep:.0%} of the ceiling"
        sends = f"sends {saving(default)}" if default.reached else f"does not keep {keep}"
        told.append(f"The default ({_words(outcome.default)}) {sends} on the other half.")
    more = outcome.left_out_minutes
    if not more:
        return told
    minutes = outcome.settings.minutes
    return [
        *told,
        f"{minutes:g} minutes cut the search short: {len(outcome.chosen_by.seen)} streams were compared, on "
        f"{outcome.chosen_by.parts} of {len(outcome.parts.choice)} parts of the footage, and the choice was "
        f"judged on {outcome.judged[0].parts} of {len(outcome.parts.judging)}. "
        f"--minutes {math.ceil(minutes + more)} would do here for all of it.",
    ]


def _draw_answers(axes: Any, outcome: Outcome) -> None:
    """Answers over bitrate."""
    curve = outcome.curve
    if curve is not None:
        kbps = curve.bitrate_bps / 1000
        axes.plot(kbps, 100 * curve.share, color="black", label="an untouched x264")
        if curve.true_share is not None:
            axes.plot(kbps, 100 * curve.true_share, "--", color=_AHEAD, label="its true accuracy")
        if curve.knee_bps is not None:
            axes.axvline(
                curve.knee_bps / 1000, color=_CHOSEN, linewidth=0.8, label="knee: more bits bring little"
            )
        if curve.source_bitrate_bps:
            axes.axvline(curve.source_bitrate_bps / 1000, color="#777777", ls=":", label="the footage's own")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    keep = outcome.settings.keep
    axes.axhline(100 * keep, color="#777777", linewidth=0.8, ls="--", label=f"to be kept: {keep:.0%}")
    chosen = _seen(outcome)
    axes.plot(chosen.bitrate_bps / 1000, 100 * keep, "*", color=_CHOSEN, markersize=11, label="the choice")
    axes.set_xlabel("bitrate, kbit/s")
    axes.set_ylabel("share of the ceiling, %")
    axes.legend(fontsize=8)


def _draw_streams(axes: Any, outcome: Outcome) -> None:
    """Bytes over camera CPU; the names of those ahead stand in a column, where they don't overlap."""
    ahead = front(outcome)
    others = [each for each in outcome.chosen_by.seen if each not in ahead]
    for shown, colour, label in ((others, "#999999", "beaten by another"), (ahead, _AHEAD, "front")):
        x, y = [each.camera_ratio for each in shown], [100 * math.expm1(each.gain) for each in shown]
        sizes = [20 + each.delay_ms / 4 for each in shown]
        axes.scatter(x, y, s=sizes, color=colour, label=label, zorder=3)
    chosen = _seen(outcome)
    at = chosen.camera_ratio, 100 * math.expm1(chosen.gain)
    axes.scatter(*at, s=140, color=_CHOSEN, marker="*", label="chosen", zorder=4)
    named = ahead if chosen in ahead else [*ahead, chosen]
    for place, each in enumerate(named):
        axes.annotate(
            each.setting.name.removeprefix(PREFIX),
            (each.camera_ratio, 100 * math.expm1(each.gain)),
            fontsize=8,
            color=_CHOSEN if each == chosen else "black",
            xytext=(1.02, 0.02 + 0.06 * place),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#999999"},
        )
    axes.axhline(0, color="black", linewidth=0.8, label="an untouched x264")
    axes.axvline(
        outcome.settings.camera_budget, color="#777777", linewidth=0.8, ls="--", label="the camera's budget"
    )
    axes.set_xlabel("camera CPU over a plain x264")
    axes.set_ylabel(f"bytes at {outcome.settings.keep:.0%} of the ceiling, % against an untouched x264")
    axes.set_title("the larger, the later", fontsize=8)
    axes.legend(fontsize=8)


def _readings(outcome: Outcome) -> list[str]:
    """What each other reading size would find, and take, against the card's own."""
    own, *others = outcome.readings or (None,)
    if own is None:
        return []
    told = []
    for each in others:
        more = each.best / own.best - 1
        rates = [
            "more than was measured" if rate is None else _rate(rate)
            for rate in (each.bitrate_bps, own.bitrate_bps)
        ]
        told.append(
            f"Reading {each.size_px[0]}x{each.size_px[1]} in place of {own.size_px[0]}x{own.size_px[1]}, the "
            f"server DNN finds {abs(more):.0%} {'more' if more >= 0 else 'less'} at best (S {each.best:.2f}, "
            f"not {own.best:.2f}). For as many answers as {outcome.settings.keep:.0%} of the card's own best "
            f"an untouched x264 takes {rates[0]}, not {rates[1]}; a pass takes {each.infer_ms:.0f} ms of a "
            f"core here, not {own.infer_ms:.0f}."
        )
    return told


def _seen(outcome: Outcome) -> Seen:
    found = outcome.chosen_by.of(outcome.choice)
    assert found is not None
    return found


def _words(setting: StreamSetting) -> str:
    maps: Mapping[str, str] = {
        "feedback": "a map of the server's last answers",
        "accmodel": "the AccModel's map",
    }
    parts = ["the source's size" if setting.size_px is None else f"{setting.size_px[0]}x{setting.size_px[1]}"]
    parts += [f"{setting.b_frames} B-frame{'s' * (setting.b_frames > 1)}"] if setting.b_frames else []
    parts += [f"mb-tree over {setting.mbtree_frames} frames"] if setting.mbtree_frames else []
    parts += [maps[setting.map]] if setting.map in maps else []
    parts += [f"{setting.map_strength:g} times as strong"] if setting.map_strength != 1 else []
    if setting.map_margin != StreamSetting.map_margin:
        parts.append(f"with a margin of {setting.map_margin} macroblocks")
    parts += [f"renewed every {setting.map_every} frames"] if setting.map_every is not None else []
    parts += [f"preset {setting.preset}"] if setting.preset != "veryfast" else []
    parts += ["AQ off"] if setting.aq_mode == 0 else []
    if setting.gop_frames != StreamSetting.gop_frames:
        parts.append(f"a keyframe every {setting.gop_frames} frames")
    return ", ".join(parts)


def _rate(bitrate_bps: float) -> str:
    return f"{bitrate_bps / 1e6:.2g} Mbit/s" if bitrate_bps >= 1e6 else f"{bitrate_bps / 1000:.0f} kbit/s"
