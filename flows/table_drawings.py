"""The drawings of the all-against-all page: small SVG without any script; colours come from its style sheet.

Every mark that carries a figure has a <title>. All text goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from flows.charts import Scale, number, ticks

NUM_COLOURS = 8
"""Colours of the style sheet (`.c0` to `.c7`); further models take them again."""
_STRIP, _STRIP_HEIGHT = 96, 12
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 250, 46, 16, 14, 40


@dataclass(frozen=True)
class Curve:
    """A model's figures along an axis: (x, value, low, high), shares from 0 to 1."""

    label: str
    colour: int
    points: Sequence[tuple[float, float, float, float]]


def strip(value: float, low: float, high: float, base: float | None) -> Markup:
    """A share with its interval on a line from 0 to 1, and a tick where the base is."""
    scale = Scale(0.0, 1.0, 3, _STRIP - 3)
    middle = _STRIP_HEIGHT / 2
    parts = [f'<line class="track" x1="3" x2="{_STRIP - 3}" y1="{middle}" y2="{middle}"/>']
    if base is not None:
        parts.append(f'<line class="tickbase" x1="{scale(base):.1f}" x2="{scale(base):.1f}" y1="1" '
                     f'y2="{_STRIP_HEIGHT - 1}"/>')  # fmt: skip
    parts.append(
        f'<line class="span" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot" cx="{scale(value):.1f}" cy="{middle}" r="3.2"/>'
    )
    box = f"0 0 {_STRIP} {_STRIP_HEIGHT}"
    return Markup(f'<svg class="strip" viewBox="{box}" aria-hidden="true">{"".join(parts)}</svg>')


def curves(title: str, lines: Sequence[Curve], unit: str) -> Markup:
    """Shares over an axis of powers (budgets double), with intervals; a legend stands below. Empty without points."""
    import math

    every = [point for line in lines for point in line.points]
    if not every:
        return Markup("")
    places = sorted({x for x, *_ in every})
    x_scale = Scale(math.log2(places[0]), math.log2(places[-1]), _LEFT, _WIDTH - _RIGHT)
    top = max(high for *_, high in every)
    y_scale = Scale(0.0, min(1.0, top * 1.05) or 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in ticks(0.0, y_scale.high, 5):
        y = y_scale(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{100 * tick:.0f}%</text>')
    for place in places:
        parts.append(f'<text class="tick" x="{x_scale(math.log2(place)):.1f}" y="{_HEIGHT - _BOTTOM + 16}" '
                     f'text-anchor="middle">{number(place)}</text>')  # fmt: skip
    parts.append(f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
                 f"{escape(unit)}</text>")  # fmt: skip
    for line in lines:
        drawn = [(x_scale(math.log2(x)), y_scale(value), y_scale(low), y_scale(high), x, value, low, high)
                 for x, value, low, high in line.points]  # fmt: skip
        band = " ".join(f"{x:.1f},{high:.1f}" for x, _, _, high, *_ in drawn)
        band += " " + " ".join(f"{x:.1f},{low:.1f}" for x, _, low, *_ in reversed(drawn))
        parts.append(f'<g class="c{line.colour % NUM_COLOURS}"><polygon class="band" points="{band}"/>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in drawn)
        parts.append(f'<polyline class="curve" points="{path}"/>')
        for x, y, _, _, place, value, low, high in drawn:
            told = f"{line.label}, {number(place)} {unit}: {100 * value:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
            parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.6">'
                         f"<title>{escape(told)}</title></circle>")  # fmt: skip
        parts.append("</g>")
    return _svg(_WIDTH, _HEIGHT, title, parts, "curves")


def spans(title: str, rows: Sequence[tuple[str, int, Mapping[str, Any] | None, Mapping[str, Any] | None]]) -> Markup:
    """Tokens of right and wrong answers: the middle half as a bar, the median as a dot, the mean in the title.

    Args:
        title: What is drawn.
        rows: Label, colour, and `count`, `mean`, `low_quartile`, `median`, `high_quartile` of right and wrong answers.
    """
    kept = [(label, colour, right, wrong) for label, colour, right, wrong in rows if right or wrong]
    if not kept:
        return Markup("")
    width, left, row = 520, 150, 34
    most = max(float(one["high_quartile"]) for _, _, *both in kept for one in both if one)
    scale = Scale(0.0, most or 1.0, left, width - 20)
    height = row * len(kept) + 26
    parts = []
    for tick in ticks(0.0, scale.high, 5):
        x = f"{scale(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{height - 22}"/>'
                     f'<text class="tick" x="{x}" y="{height - 8}" text-anchor="middle">{number(tick)}</text>')
    for place, (label, colour, right, wrong) in enumerate(kept):
        y = row * place + 6
        parts.append(f'<g class="c{colour % NUM_COLOURS}"><text x="{left - 10}" y="{y + 15}" text-anchor="end">'
                     f"{escape(_short(label, 20))}</text>")  # fmt: skip
        for name, one, middle in (("right", right, y + 7), ("wrong", wrong, y + 18)):
            if one:
                told = (f"{label}, {one['count']:,} {name}: median {number(float(one['median']))}, middle half "
                        f"{number(float(one['low_quartile']))} to {number(float(one['high_quartile']))}, mean "
                        f"{number(float(one['mean']))}")  # fmt: skip
                parts.append(
                    f'<g class="{name}"><title>{escape(told)}</title><line x1="{scale(one["low_quartile"]):.1f}" '
                    f'x2="{max(scale(one["high_quartile"]), scale(one["low_quartile"]) + 1):.1f}" y1="{middle}" '
                    f'y2="{middle}"/><circle cx="{scale(one["median"]):.1f}" cy="{middle}" r="3.6"/></g>'
                )
        parts.append("</g>")
    return _svg(width, height, title, parts, "spans")


def dumbbells(title: str, rows: Sequence[tuple[str, int, Mapping[str, Any], Mapping[str, Any]]]) -> Markup:
    """Original and twin of each model on one line: a filled dot, a ring, and what lies between them."""
    if not rows:
        return Markup("")
    width, left, row = 520, 150, 26
    height = row * len(rows) + 26
    scale = Scale(0.0, 1.0, left, width - 20)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = f"{scale(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{height - 22}"/>'
                     f'<text class="tick" x="{x}" y="{height - 8}" text-anchor="middle">{100 * tick:.0f}%</text>')
    for place, (label, colour, original, twin) in enumerate(rows):
        y = row * place + 16
        told = f"{label}: {100 * original['value']:.1f}% of the originals, {100 * twin['value']:.1f}% of their twins"
        first, second = f"{scale(original['value']):.1f}", f"{scale(twin['value']):.1f}"
        parts.append(
            f'<g class="c{colour % NUM_COLOURS}"><title>{escape(told)}</title><text x="{left - 10}" y="{y + 4}" '
            f'text-anchor="end">{escape(_short(label, 20))}</text><line class="between" x1="{first}" x2="{second}" '
            f'y1="{y}" y2="{y}"/><circle class="point" cx="{first}" cy="{y}" r="5"/>'
            f'<circle class="ring" cx="{second}" cy="{y}" r="5"/></g>'
        )
    return _svg(width, height, title, parts, "dumbbells")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str) -> Markup:
    return Markup(f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
                  + "".join(parts) + "</svg>")  # fmt: skip
