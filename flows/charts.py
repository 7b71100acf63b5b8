"""The report's and the run board's charts: small SVG drawings without any script or library.

Colours come from the report's style sheet (`flows/page/report.css`), so that one drawing serves light and dark; only
`panels` is a picture of its own.
Every mark that carries a figure has a <title>, which browsers show while the pointer rests on it.
All text goes through `escape`: labels may come from data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 10, 22
MAX_POINTS = 400
MAX_TOOLTIPS = 80
SMOOTH_FROM = 40
"""Curves with at least this many points are noisy enough that a running mean is drawn over them."""
PANEL_WIDTH, PANEL_HEIGHT = 232, 140
PANEL_POINTS = 120
"""Points of a curve in `panels`; a page holds many of them."""
PANEL_COLOURS = ("#2f7ed8", "#d9742b", "#2a9d63", "#a35bd0", "#c9483f", "#128f9e")
PANEL_STYLE = (
    "text{font:10.5px system-ui,sans-serif;fill:#888}.n{font-size:12px;font-weight:600}.v{font-size:13px;"
    "font-weight:700;text-anchor:end}.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#8884}.l{fill:none;stroke-width:2;"
    "stroke-linejoin:round}"
)

Point = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One line of a forest plot: a figure with its interval, in any unit."""

    label: str
    value: float
    low: float
    high: float
    emphasised: bool = False


def line_chart(title: str, points: Sequence[Point], unit: str = "step") -> Markup:
    """A curve over steps; points that are not finite are left out. Empty when fewer than two remain."""
    kept = thin([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)], MAX_POINTS)
    if len(kept) < 2:
        return Markup("")
    x_scale = Scale(min(x for x, _ in kept), max(x for x, _ in kept), LEFT, WIDTH - RIGHT)
    y_scale = Scale(min(y for _, y in kept), max(y for _, y in kept), HEIGHT - BOTTOM, TOP)
    noisy = len(kept) >= SMOOTH_FROM
    parts = [_axes(x_scale, y_scale, unit), _path(kept, x_scale, y_scale, "line faint" if noisy else "line")]
    if noisy:
        parts.append(_path(running_mean(kept, len(kept) // 12), x_scale, y_scale, "line"))
    for x, y in thin(kept, MAX_TOOLTIPS):
        parts.append(
            f'<circle class="hit" cx="{x_scale(x):.1f}" cy="{y_scale(y):.1f}" r="5">'
            f"<title>{unit} {x:g}: {number(y)}</title></circle>"
        )
    summary = f"{number(kept[0][1])} at first, {number(kept[-1][1])} at last"
    return _svg(WIDTH, HEIGHT, f"{title}: {summary}", parts)


def overlay_chart(
    title: str, curves: Sequence[tuple[str, Sequence[Point]]], parted_at: float | None = None, unit: str = "step"
) -> Markup:
    """Two curves over the same steps, the first one drawn faint, and a line where they part.

    Args:
        title: What is drawn.
        curves: Name and points of each; points that are not finite are left out.
        parted_at: The last step that they have in common.
        unit: Of the horizontal axis.
    """
    kept = [
        (name, thin([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)], MAX_POINTS))
        for name, points in curves
    ]
    kept = [(name, points) for name, points in kept if len(points) >= 2]
    if not kept:
        return Markup("")
    every = [point for _, points in kept for point in points]
    x_scale = Scale(min(x for x, _ in every), max(x for x, _ in every), LEFT, WIDTH - RIGHT)
    y_scale = Scale(min(y for _, y in every), max(y for _, y in every), HEIGHT - BOTTOM, TOP)
    parts = [_axes(x_scale, y_scale, unit)]
    if parted_at is not None and x_scale.low <= parted_at <= x_scale.high:
        x = f"{x_scale(parted_at):.1f}"
        parts.append(
            f'<line class="zero" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
            f"<title>parted after {unit} {parted_at:g}</title></line>"
        )
    for number_of, (name, points) in enumerate(kept):
        parts.append(_path(points, x_scale, y_scale, "line faint" if number_of == 0 and len(kept) > 1 else "line"))
        for x_value, y_value in thin(points, MAX_TOOLTIPS):
            parts.append(
                f'<circle class="hit" cx="{x_scale(x_value):.1f}" cy="{y_scale(y_value):.1f}" r="5">'
                f"<title>{escape(name)}, {unit} {x_value:g}: {number(y_value)}</title></circle>"
            )
    ends = "; ".join(f"{name} {number(points[-1][1])} at last" for name, points in kept)
    return _svg(WIDTH, HEIGHT, f"{title}: {ends}", parts)


def forest_plot(bars: Sequence[Bar], zero: float = 0.0, unit: str = "%", signed: bool = False) -> Markup:
    """Figures with intervals under one another, and a line at `zero` (no gain, or the floor)."""
    if not bars:
        return Markup("")
    width, row, left = 760, 30, 150
    values = [zero, *(end for bar in bars for end in (bar.low, bar.high, bar.value))]
    scale = Scale(min(values), max(values), left, width - 185)
    height = row * len(bars) + 34
    parts = []
    for tick in ticks(scale.low, scale.high):
        x = f"{scale(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="6" y2="{height - 24}"/>'
            f'<text class="tick" x="{x}" y="{height - 8}" text-anchor="middle">{number(tick)}{unit}</text>'
        )
    parts.append(f'<line class="zero" x1="{scale(zero):.1f}" x2="{scale(zero):.1f}" y1="4" y2="{height - 24}"/>')
    for index, bar in enumerate(bars):
        y = 6 + row * index + row / 2
        value, low, high = (f"{figure:{'+' if signed else ''}.1f}" for figure in (bar.value, bar.low, bar.high))
        text = f"{value}{unit} [{low}, {high}]"
        kind = "bar strong" if bar.emphasised else "bar"
        parts.append(
            f'<g class="{kind}"><title>{escape(bar.label)}: {text}</title>'
            f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{escape(bar.label[:20])}</text>'
            f'<line x1="{scale(bar.low):.1f}" x2="{scale(bar.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{scale(bar.value):.1f}" cy="{y}" r="5"/>'
            f'<text class="figure" x="{width - 6}" y="{y + 4}" text-anchor="end">{text}</text></g>'
        )
    return _svg(width, height, "figures with intervals", parts, "forest")


def stage_graph(nodes: Sequence[tuple[str, str]], edges: Sequence[tuple[str, str]]) -> Markup:
    """Stages from top to bottom as (id, CSS class), and arcs from what each one reads."""
    if not nodes:
        return Markup("")
    row, width, axis = 30, 230, 90
    middle = {name: 18 + row * index for index, (name, _) in enumerate(nodes)}
    parts = []
    for source, target in edges:
        if source in middle and target in middle:
            start, end = middle[source], middle[target]
            reach = axis - min(axis - 8, 8 + 12 * abs(end - start) // row)
            parts.append(
                f'<path class="edge" d="M{axis} {start} C{reach} {start} {reach} {end} {axis} {end}">'
                f"<title>{escape(target)} reads {escape(source)}</title></path>"
            )
    for name, kind in nodes:
        parts.append(
            f'<g class="node {escape(kind)}"><circle cx="{axis}" cy="{middle[name]}" r="6"/>'
            f'<text x="{axis + 14}" y="{middle[name] + 4}">{escape(name)}</text></g>'
        )
    return _svg(width, row * len(nodes) + 8, "stages and what they read", parts, "graph")


def panels(curves: Sequence[tuple[str, Sequence[Point]]], columns: int = 3) -> str:
    """Small curves side by side as one picture of its own, each under its name and its latest value.

    Colours are legible on light and on dark ground, as a picture does not know its page's.

    Args:
        curves: Name and points of each; points that are not finite are left out, and curves with fewer than two.
        columns: Curves in a row.

    Returns:
        SVG, empty where no curve remains.
    """
    kept = [
        (name, thin([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)], PANEL_POINTS))
        for name, points in curves
    ]
    kept = [(name, points) for name, points in kept if len(points) >= 2]
    columns = min(columns, len(kept))
    if not kept:
        return ""
    width, height = columns * PANEL_WIDTH, -(-len(kept) // columns) * PANEL_HEIGHT
    parts = [
        f'<g transform="translate({place % columns * PANEL_WIDTH} {place // columns * PANEL_HEIGHT})">'
        f"{_panel(name, points, PANEL_COLOURS[place % len(PANEL_COLOURS)])}</g>"
        for place, (name, points) in enumerate(kept)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<style>{PANEL_STYLE}</style>{''.join(parts)}</svg>"
    )


def _panel(name: str, points: Sequence[Point], colour: str) -> str:
    left, right, top, bottom = 38, PANEL_WIDTH - 14, 28, PANEL_HEIGHT - 24
    x_scale = Scale(min(x for x, _ in points), max(x for x, _ in points), left, right)
    y_scale = Scale(min(y for _, y in points), max(y for _, y in points), bottom, top)
    parts = [
        f'<text class="n" x="{left}" y="16">{escape(name[:24])}</text>'
        f'<text class="v" x="{right}" y="16" style="fill:{colour}">{number(points[-1][1])}</text>'
    ]
    for tick in ticks(y_scale.low, y_scale.high, 4):
        y = y_scale(tick)
        parts.append(
            f'<path class="g" d="M{left} {y:.1f}H{right}"/>'
            f'<text class="t e" x="{left - 5}" y="{y + 3.5:.1f}">{number(tick)}</text>'
        )
    for tick in [tick for tick in ticks(x_scale.low, x_scale.high, 4) if tick == round(tick)]:
        parts.append(f'<text class="t m" x="{x_scale(tick):.1f}" y="{PANEL_HEIGHT - 9}">{number(tick)}</text>')
    noisy = len(points) >= SMOOTH_FROM
    drawn = [(points, ' opacity=".35" stroke-width="1"' if noisy else "")]
    drawn += [(running_mean(points, len(points) // 8), "")] if noisy else []
    for line, style in drawn:
        words = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="l" stroke="{colour}"{style} points="{words}"/>')
    x, y = drawn[-1][0][-1]
    parts.append(f'<circle cx="{x_scale(x):.1f}" cy="{y_scale(y):.1f}" r="3" fill="{colour}"/>')
    return "".join(parts)


class Scale:
    """A linear map from data to pixels; a constant curve is drawn in the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if low == high == 0.0:
            high = 1.0  # a share or a count that stayed at nothing lies on the ground
        margin = 0.5 * abs(low) if high == low else 0.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers within [low, high], about `target` of them.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    raw = (high - low) / target
    if not raw > 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` of the points, evenly spread, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    return [points[round(index * (len(points) - 1) / (limit - 1))] for index in range(limit)]


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Mean of each point and its neighbours, `window` points wide, fewer at the ends."""
    half = max(1, window // 2)
    means = []
    for index, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, index - half) : index + half + 1]]
        means.append((x, sum(near) / len(near)))
    return means


def number(value: float) -> str:
    """A figure short enough for an axis.

    >>> number(12345.678), number(0.000123), number(2.5), number(-0.0)
    ('12.3k', '0.000123', '2.5', '0')
    """
    if value == 0:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2g}"


def _axes(x_scale: Scale, y_scale: Scale, unit: str) -> str:
    parts = []
    for tick in ticks(y_scale.low, y_scale.high, 6):
        y = y_scale(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    for tick in [tick for tick in ticks(x_scale.low, x_scale.high, 5) if tick == round(tick)]:  # no half steps
        parts.append(
            f'<text class="tick" x="{x_scale(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(tick)}</text>'
        )
    return "".join(parts)


def _path(points: Sequence[Point], x_scale: Scale, y_scale: Scale, kind: str) -> str:
    words = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{words}"/>'


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str = "chart") -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
