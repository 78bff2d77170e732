"""Charts as plain values, drawn as small inline SVG for the report and as PNG with Matplotlib.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; dashes and markers repeat what they
say. Lines and text take the page's own colour, so that SVG charts follow a dark page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from accmpeg.errors import SinkError

__all__ = [
    "Bar",
    "Chart",
    "Line",
    "Style",
    "bars_png",
    "bars_svg",
    "chart_png",
    "chart_svg",
    "marker_symbols",
    "styles",
]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_MARKERS = ("o", "s", "^", "D", "v")
_STOCK_COLOUR = "#808080"
_WIDTH_PX, _HEIGHT_PX = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 12, 42


@dataclass(frozen=True)
class Style:
    colour: str
    dash: str
    marker: str


@dataclass(frozen=True)
class Line:
    """A curve with one interval per point, or none."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tips: Sequence[str]
    intervals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """Accuracy over something on a logarithmic axis; `name` is unique on the page and names the PNG."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    interval: tuple[float, float] | None
    label: str


def styles(methods: Sequence[str]) -> Mapping[str, Style]:
    """A look per method, the same in all charts, the first ones the easiest to tell apart.

    Stock x264 is grey, the best of it black, and `@dnn` has the colour of its sibling.
    """
    looks: dict[str, Style] = {}
    families = list(dict.fromkeys(method.removesuffix("@dnn") for method in methods))
    stock = [name for name in families if name.startswith(("aq-", "constant-qp", "best-stock"))]
    others = [name for name in families if name not in stock]
    for number, name in enumerate(stock):
        colour = "currentColor" if name.startswith("best-stock") else _STOCK_COLOUR
        looks[name] = Style(colour, _DASHES[number % 4], _MARKERS[number % 5])
    for number, name in enumerate(others):
        turn = number // len(_COLOURS)
        looks[name] = Style(_COLOURS[number % len(_COLOURS)], ("", "2 3")[turn % 2], _MARKERS[turn % 5])
    for method in methods:
        if method.endswith("@dnn"):
            family = looks[method.removesuffix("@dnn")]
            looks[method] = Style(family.colour, "7 4" if not family.dash else "9 3 2 3", "D")
    return {method: looks[method] for method in methods}


def chart_svg(chart: Chart, looks: Mapping[str, Style]) -> str:
    """An SVG element that scales with its column: a group with `data-m` per curve, a tip per point."""
    points = [(x, y) for line in chart.lines for x, y in zip(line.x, line.y, strict=True)]
    if not points:
        return ""
    x_ticks, y_ticks = _log_ticks([x for x, _ in points]), _ticks([y for _, y in points])
    x_low, x_high = math.log(x_ticks[0]), math.log(x_ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        right = (math.log(x) - x_low) / (x_high - x_low)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            round(_LEFT + right * (_WIDTH_PX - _LEFT - _RIGHT), 1),
            round(_HEIGHT_PX - _BOTTOM - up * (_HEIGHT_PX - _TOP - _BOTTOM), 1),
        )

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH_PX} {_HEIGHT_PX}" role="img" '
        f'aria-label="{escape(chart.title)}">'
    ]
    for tick in x_ticks:
        x, _ = at(tick, y_ticks[0])
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{_HEIGHT_PX - _BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{_HEIGHT_PX - _BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for tick in y_ticks:
        _, y = at(x_ticks[0], tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH_PX - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    middle = (_LEFT + _WIDTH_PX - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT_PX - 8}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(
        f'<text transform="translate(12 {(_TOP + _HEIGHT_PX - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(chart.y_label)}</text>'
    )
    for line in chart.lines:
        look = looks[line.name]
        places = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        parts.append(f'<g data-m="{escape(line.name)}" stroke="{look.colour}" fill="{look.colour}">')
        route = "L".join(f"{x} {y}" for x, y in places)
        dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
        parts.append(f'<path class="line" d="M{route}"{dash}/>')
        for x, (low, high) in zip(line.x, line.intervals, strict=False):
            column, top = at(x, high)
            parts.append(f'<path class="interval" d="M{column} {top}V{at(x, low)[1]}"/>')
        for (x, y), tip in zip(places, line.tips, strict=True):
            mark = f'<use href="#mark-{_MARKERS.index(look.marker)}" x="{x}" y="{y}">'
            parts.append(f"{mark}<title>{escape(tip)}</title></use>")
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def bars_svg(title: str, bars: Sequence[Bar], looks: Mapping[str, Style]) -> str:
    """Horizontal bars from zero, with intervals and a line at 1."""
    if not bars:
        return ""
    row_px, name_px = 22, 150
    most = max(bar.interval[1] if bar.interval else bar.value for bar in bars)
    scale = (_WIDTH_PX - name_px - 105) / max(most, 1.0)
    height_px = row_px * len(bars) + 8
    parts = [
        f'<svg class="bars" viewBox="0 0 {_WIDTH_PX} {height_px}" role="img" aria-label="{escape(title)}">'
    ]
    for number, bar in enumerate(bars):
        y, end = 4 + number * row_px, name_px + bar.value * scale
        tip = f"<title>{escape(f'{bar.name}: {bar.label}')}</title>"
        parts.append(f'<text x="{name_px - 6}" y="{y + 15}" text-anchor="end">{escape(bar.name)}</text>')
        parts.append(
            f'<rect x="{name_px}" y="{y + 3}" width="{bar.value * scale:.1f}" height="{row_px - 6}" '
            f'fill="{looks[bar.name].colour}">{tip}</rect>'
        )
        if bar.interval:
            low, high = (name_px + edge * scale for edge in bar.interval)
            parts.append(f'<path class="whisker" d="M{low:.1f} {y + 11}H{high:.1f}"/>')
            end = max(end, high)
        parts.append(f'<text x="{max(end, name_px + scale) + 5:.1f}" y="{y + 15}">{escape(bar.label)}</text>')
    one = name_px + scale
    parts.append(f'<path class="one" d="M{one:.1f} 0V{height_px}"/></svg>')
    return "".join(parts)


def chart_png(chart: Chart, looks: Mapping[str, Style], path: Path) -> None:
    """The same chart for documents. Needs Matplotlib; raises SinkError if it can't write."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for line in chart.lines:
        look = looks[line.name]
        dash = (0, tuple(float(part) / 2 for part in look.dash.split())) if look.dash else "-"
        axes.plot(
            line.x,
            line.y,
            color=_ink(look),
            linestyle=dash,
            marker=look.marker,
            markersize=4,
            label=line.name,
        )
        for x, interval in zip(line.x, line.intervals, strict=False):
            axes.plot([x, x], interval, color=_ink(look), linewidth=0.8, alpha=0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.grid(alpha=0.3, which="both")
    if chart.lines:
        figure.legend(loc="outside right upper", fontsize="x-small")
    _save(figure, path)


def bars_png(title: str, bars: Sequence[Bar], looks: Mapping[str, Style], path: Path) -> None:
    """The same bars for documents. Raises SinkError if it can't write."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.25 * len(bars)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for bar in reversed(bars):
        axes.barh(bar.name, bar.value, color=_ink(looks[bar.name]))
        if bar.interval:
            axes.plot(bar.interval, [bar.name, bar.name], color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(title=title)
    axes.tick_params(axis="y", labelsize="small")
    _save(figure, path)


def _ink(look: Style) -> str:
    return "black" if look.colour == "currentColor" else look.colour


def _save(figure: "object", path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})  # type: ignore[attr-defined]
    except OSError as error:
        raise SinkError(f"can't write the figure {path}: {error.strerror}") from error


def marker_symbols() -> str:
    """An invisible SVG element with the markers that all charts of a page refer to."""
    r = 3.2
    outlines = {
        "o": f"M{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        "s": f"M{-r} {-r}h{2 * r}v{2 * r}h{-2 * r}z",
        "^": f"M0 {-r}l{r} {2 * r}h{-2 * r}z",
        "v": f"M0 {r}l{r} {-2 * r}h{-2 * r}z",
        "D": f"M0 {-r - 0.5}l{r} {r + 0.5}l{-r} {r + 0.5}l{-r} {-r - 0.5}z",
    }
    paths = "".join(
        f'<path id="mark-{_MARKERS.index(kind)}" d="{outline}"/>' for kind, outline in outlines.items()
    )
    return (
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>{paths}</defs></svg>'
    )


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around the values, as few as leave the values most of a logarithmic axis.

    >>> _log_ticks([30, 400])
    [30.0, 100.0, 300.0, 1000.0]
    >>> _log_ticks([52, 75])
    [50.0, 60.0, 70.0, 80.0]
    """
    low, high = math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 1
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), range(10, 100, 2)):
        steps = [round(digit * 10.0**power, 9) for power in range(low, high + 1) for digit in digits]
        first = max(index for index, step in enumerate(steps) if step <= min(values))
        last = min(index for index, step in enumerate(steps) if step >= max(values) and index > first)
        ticks = steps[first : last + 1]
        filled = math.log(max(values) / min(values)) / math.log(ticks[-1] / ticks[0])
        if filled > 0.7 and len(ticks) >= 4:
            break
    return ticks


def _ticks(values: Sequence[float]) -> list[float]:
    """About five round numbers around the values.

    >>> _ticks([0.52, 0.98])
    [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    span = max(max(values) - min(values), 0.01)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 5)
    first, last = math.floor(min(values) / step + 1e-9), math.ceil(max(values) / step - 1e-9)
    return [round(number * step, 9) for number in range(first, max(last, first + 1) + 1)]
