"""The report's charts, by Matplotlib, as SVG for the page and as PNG for everything else.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; dashes repeat what they say. Stock
settings are grey.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accmpeg.errors import SinkError
from accmpeg.evaluation.findings.findings import DnnFindings, ReferenceFindings
from accmpeg.evaluation.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["along_figure", "camera_figure", "curves_figure", "delay_figure", "save_png", "svg_of"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")
_GREYS = ("#000000", "#777777", "#999999", "#555555", "#bbbbbb")
_DASHES = ("-", "--", ":", "-.")
_MOST_LINES = 10
_COLUMNS = 3
_PARTS = ("camera_ms", "uplink_ms", "propagation_ms", "serve_ms", "wait_ms")


def along_figure(dnn: DnnFindings, reference: ReferenceFindings, baseline: str) -> "Figure | None":
    """The gap in bytes to a baseline along the share of the ceiling, with intervals."""
    methods = [name for name in _shown(dnn) if name != baseline]
    lines = [(name, reference.comparison(name, baseline)) for name in methods]
    drawn = [(name, each) for name, each in lines if each is not None and each.along]
    if not drawn:
        return None
    figure = _figure(6.4, 4.2)
    axes = figure.add_subplot()
    looks = _looks(dnn)
    for name, comparison in drawn:
        line = [(100 * each.level, each.percent) for each in comparison.along if each.percent is not None]
        axes.plot([level for level, _ in line], [gap for _, gap in line], label=name, **looks[name])
        banded = [(100 * each.level, each.interval) for each in comparison.along if each.interval is not None]
        if comparison.primary and banded:
            axes.fill_between(
                [level for level, _ in banded],
                [interval.low for _, interval in banded],
                [interval.high for _, interval in banded],
                color=looks[name]["color"],
                alpha=0.08,
                linewidth=0,
            )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("share of the ceiling, %")
    axes.set_ylabel(f"bytes against {baseline}, %")
    clips = len(reference.counted)
    axes.set_title(f"{dnn.dnn}, {clips} clip{'' if clips == 1 else 's'}")
    _finish(axes)
    return figure


def curves_figure(dnn: DnnFindings, reference: ReferenceFindings) -> "Figure | None":
    """Score over bitrate, a panel for each clip."""
    clips = [clip for clip in reference.counted if any(curve.clip == clip for curve in reference.curves)]
    if not clips:
        return None
    rows = -(-len(clips) // _COLUMNS)
    figure = _figure(max(6.4, 4.0 * min(_COLUMNS, len(clips))), max(3.6, 2.7 * rows))
    looks, shown = _looks(dnn), _shown(dnn)
    for number, clip in enumerate(clips):
        axes = figure.add_subplot(rows, min(_COLUMNS, len(clips)), number + 1)
        for curve in reference.curves:
            if curve.clip == clip and curve.method in shown and curve.bitrate_bps:
                kbps = [bitrate / 1000 for bitrate in curve.bitrate_bps]
                axes.plot(kbps, curve.fitted, label=curve.method, **looks[curve.method])
                axes.plot(kbps, curve.relative, ".", color=looks[curve.method]["color"], markersize=3)
        axes.set_xscale("log")
        axes.set_ylim(0.6, 1.02)
        axes.set_title(clip, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.2, which="both")
        if number == 0:
            axes.legend(fontsize=6)
        if number % _COLUMNS == 0:
            axes.set_ylabel("share of the ceiling", fontsize=8)
        if number >= len(clips) - _COLUMNS:
            axes.set_xlabel("kbit/s", fontsize=8)
    return figure


def delay_figure(dnn: DnnFindings, reference: ReferenceFindings, link: str, target: float) -> "Figure | None":
    """Where the delay comes from, by method; a mark where the age of the result in use lies."""
    points = [
        point
        for name in _shown(dnn)
        if (point := reference.operating_point(name, target)) is not None and link in point.delays
    ]
    if not points:
        return None
    figure = _figure(6.4, max(2.2, 0.8 + 0.32 * len(points)))
    axes = figure.add_subplot()
    left = [0.0] * len(points)
    names = [point.method for point in points]
    for part, colour in zip(_PARTS, _COLOURS, strict=False):
        widths = [getattr(point.delays[link], part) for point in points]
        axes.barh(names, widths, left=left, color=colour, label=part.removesuffix("_ms"), height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.plot([point.delays[link].age_mean_ms for point in points], names, "k|", label="age in use")
    axes.invert_yaxis()
    axes.set_xlabel("ms from capture to result")
    axes.set_title(f"{dnn.dnn} at {link}, {100 * target:.0f} % of the ceiling")
    _finish(axes)
    return figure


def camera_figure(dnn: DnnFindings) -> "Figure | None":
    """CPU time of the camera over that of plain x264 at the source size."""
    costs = dnn.camera
    if not costs:
        return None
    figure = _figure(6.4, max(2.0, 0.8 + 0.28 * len(costs)))
    axes = figure.add_subplot()
    looks = _looks(dnn)
    names = [cost.method for cost in costs]
    axes.barh(
        names,
        [cost.ratio for cost in costs],
        color=[_look(looks, name)["color"] for name in names],
        height=0.7,
    )
    for row, cost in enumerate(costs):
        axes.text(cost.ratio, row, f" {cost.ratio:.2f} ({cost.ms:.1f} ms)", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(cost.ratio for cost in costs))
    axes.set_title(f"{dnn.dnn}: camera CPU time over that of aq-1", fontsize=10)
    axes.tick_params(labelsize=8)
    return figure


def svg_of(figure: "Figure") -> str:
    """The figure as an SVG element for a page; text stays text."""
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "accmpeg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]


def save_png(figure: "Figure", path: Path) -> None:
    """Raises SinkError where the file can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Software": None})
    except OSError as error:
        raise SinkError(f"can't write the figure {path}: {error.strerror}") from error


def _shown(dnn: DnnFindings) -> Sequence[str]:
    """Few enough methods to tell apart: baselines first, then what was named beforehand, then ours."""
    compared = [each for reference in dnn.references for each in reference.comparisons]
    named = [each.method for each in compared if each.primary]
    ours = [
        name for name in dnn.methods if name in METHODS and METHODS[name].family in ("accmpeg", "feedback")
    ]
    wanted = dict.fromkeys([*dnn.baselines, *named, *ours, *dnn.methods])
    return [name for name in wanted if name in dnn.methods][:_MOST_LINES]


def _looks(dnn: DnnFindings) -> Mapping[str, dict[str, Any]]:
    """A look for each method, the same in all charts; a method at another size has its sibling's colour."""
    looks: dict[str, dict[str, Any]] = {}
    colours: dict[str, int] = {}
    greys = 0
    for name in dict.fromkeys([*_shown(dnn), *dnn.methods]):
        method = METHODS.get(name)
        if method is not None and method.family == "stock":
            looks[name] = {"color": _GREYS[greys % len(_GREYS)], "linestyle": _DASHES[greys % len(_DASHES)]}
            greys += 1
            continue
        number = colours.setdefault(name, len(colours))
        looks[name] = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        }
    return looks


def _look(looks: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return looks.get(name, {"color": _GREYS[0]})


def _figure(width_in: float, height_in: float) -> "Figure":
    # Not pyplot: it keeps every figure for ever and looks for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.2)
    # Beside the axes: bars and curves leave it no room inside.
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    axes.tick_params(labelsize=8)
