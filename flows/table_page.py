"""The all-against-all page: one self-contained HTML file, nothing fetched, light and dark.

    draw(all_against_all([Path("store")])) -> text

Its one script sorts tables; the page's own policy allows that script by its digest and nothing else. What models,
recipes and data are called is data: it is escaped, and control and direction characters are written out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from corpora.page import visible
from flows.charts import Bar, forest_plot
from flows.table import Cell, Column, Evaluation, Table, distinct
from flows.table_drawings import NUM_COLOURS, Curve, curves, dumbbells, spans, strip

_PAGE = Path(__file__).parent / "page"
MOST_ASKED = 0.4
"""Share of the matrix's cells below which the page begins with one protocol."""
RISE = 0.01
"""Relative rise of bits per byte above which a text counts as lost (the default of a release's gates)."""


def draw(table: Table) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(_PAGE),
    )  # fmt: skip
    environment.filters.update(text=visible, share=_share, points=_points, signed=_signed)
    script = (_PAGE / "table.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_PAGE / "report.css").read_text(encoding="utf-8") + (_PAGE / "table.css").read_text(encoding="utf-8")
    colours = {model.key: number % NUM_COLOURS for number, model in enumerate(table.models)}
    bands = [(name, [one for one in table.columns if one.protocol == name]) for name in table.protocols]
    return environment.get_template("table.html.j2").render(
        style=Markup(style), script=Markup(script), script_digest=digest, table=table, colours=colours,
        bands=[(name, columns) for name, columns in bands if columns], rows=list(_rows(table)), flags=_flags(table),
        forests=[(name, list(_forests(table, columns))) for name, columns in bands], texts=_texts(table),
        evaluations=[_whole(table, one, colours) for one in table.evaluations], probes=list(_probes(table)),
        twins=list(_twins(table, colours)), sparse=_sparse(table), protocols=_protocols(table),
        confidence=_confidence(table),
    )  # fmt: skip


# The matrix --------------------------------------------------------------------------------------------------------


def _rows(table: Table) -> Iterator[tuple[Any, list[tuple[Column, Cell | None, Markup, str]]]]:
    """Every model with its cells: what is known, a drawing of it, and whether it is better than the base."""
    for model in table.models:
        cells = []
        for column in table.columns:
            cell = table.cells.get((model.key, column.key))
            drawing = Markup("") if cell is None else _strip(table, column, cell)
            cells.append((column, cell, drawing, "" if cell is None else standing(cell.gain)))
        yield model, cells


def _sparse(table: Table) -> bool:
    """Whether most of the matrix was not asked, so that the page begins with the first protocol alone."""
    return len(table.cells) < MOST_ASKED * len(table.models) * len(table.columns)


def standing(gain: Mapping[str, Any] | None) -> str:
    """`better` or `worse` where the interval excludes 0; `same` else, empty where there is no gain.

    >>> standing({"value": 0.1, "low": 0.02, "high": 0.2}), standing({"value": 0.1, "low": -0.1, "high": 0.2})
    ('better', 'same')
    """
    if gain is None:
        return ""
    return "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "same"


def _strip(table: Table, column: Column, cell: Cell) -> Markup:
    accuracy = cell.accuracy
    base = accuracy["value"] - cell.gain["value"] if cell.gain is not None else None
    return strip(accuracy["value"], accuracy["low"], accuracy["high"], base)


def _flags(table: Table) -> dict[str, str]:
    """Columns whose problems a probed model completed from memory, with whose."""
    found: dict[str, str] = {}
    for model in table.models:
        for column in table.columns:
            cell = table.cells.get((model.key, column.key))
            if cell is not None and cell.flag and cell.flag.get("flag"):
                found[column.key] = model.label
    return found


def _forests(table: Table, columns: list[Column]) -> Iterator[tuple[Column, Markup]]:
    """For each column the gains over the base, as far as there are two models."""
    for column in columns:
        bars = []
        for model in table.models:
            cell = table.cells.get((model.key, column.key))
            if cell is not None and cell.gain is not None:
                value, low, high = (100 * cell.gain[name] for name in ("value", "low", "high"))
                bars.append(Bar(_tail(model.label), value, low, high, emphasised=low > 0 or high < 0))
        if bars:
            yield column, forest_plot(bars, unit="", signed=True)


def _tail(label: str, most: int = 20) -> str:
    """The end of a label, which tells models of one recipe apart."""
    return label if len(label) <= most else "…" + label[1 - most :]


def _protocols(table: Table) -> list[tuple[str, dict[str, Any], list[Column], list[str]]]:
    """Each protocol with its settings in words, its columns, and the evaluations that followed it."""
    found = []
    for name, settings in table.protocols.items():
        columns = [one for one in table.columns if one.protocol == name]
        keys = {one.key for one in columns}
        followed = distinct(cell.evaluation for (_, key), cell in table.cells.items() if key in keys)
        told = {key.replace("_", " "): _told(value) for key, value in settings.items()}
        found.append((name, told, columns, sorted(followed, key=lambda one: int(one[1:]))))
    return found


def _told(value: Any) -> str:
    if value in (None, "", [], ()):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(one.get("name", one)) if isinstance(one, Mapping) else str(one) for one in value)
    return str(value)


# Whole evaluations -------------------------------------------------------------------------------------------------


def _whole(table: Table, evaluation: Evaluation, colours: Mapping[str, int]) -> dict[str, Any]:
    """What only an evaluation as a whole has: figures over all its problems, samples, budgets, lengths."""
    results = evaluation.results
    names = evaluation.models
    labels = {name: table.label(evaluation, name) for name in names}
    models = {name: results["models"][name] for name in names}
    own = {name: colours[evaluation.weights[name]] for name in names}
    pairwise = results.get("pairwise") or {}
    budgets = {name: one.get("budgets") or [] for name, one in models.items()}
    drawn = [(figure, curves(f"{figure} by thinking budget", [
        Curve(labels[name], own[name], [_point(row, figure) for row in rows if row.get(figure)])
        for name, rows in budgets.items()
    ], "tokens of thinking")) for figure in ("pass@1", "maj@k")]  # fmt: skip
    gains = results.get("gains") or {}
    return {
        "about": evaluation, "names": names, "labels": labels, "models": models, "colours": own,
        "gains": {name: pairwise.get(f"{names[0]}->{name}") or gains.get(name) for name in names},
        "matrix": [[(pairwise.get(f"{b}->{a}") or {}).get("pass@1") if a != b else None for b in names] for a in names],
        "k": next((one["pass@k"]["k"] for one in models.values() if one.get("pass@k")), None),
        "voted": any(one.get("maj@k") for one in models.values()),
        "total": max(int(one["pass@1"]["total"]) for one in models.values()),
        "budgets": budgets, "curves": [(name, drawing) for name, drawing in drawn if drawing],
        "no_budgets": {name: one["no_budgets"] for name, one in models.items() if one.get("no_budgets")},
        "lengths": spans("tokens of right and wrong answers", [
            (labels[name], own[name], (one.get("tokens") or {}).get("right"), (one.get("tokens") or {}).get("wrong"))
            for name, one in models.items()
        ]),
    }  # fmt: skip


def _point(row: Mapping[str, Any], figure: str) -> tuple[float, float, float, float]:
    one = row[figure]
    return float(row["max_thinking_tokens"]), float(one["value"]), float(one["low"]), float(one["high"])


def _texts(table: Table) -> dict[str, Any]:
    """Bits per byte: texts (name, and how they were read) by models, with the relative rise over the base."""
    columns: list[tuple[str, Any]] = []
    asked_in: dict[int, list[str]] = {}
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for evaluation in table.evaluations:
        sources = evaluation.config.get("heldout_text") or []
        first = evaluation.models[0]
        for name in evaluation.models:
            for text, bits in (evaluation.results["models"][name].get("bits_per_byte") or {}).items():
                told = (evaluation.results.get("pairwise") or {}).get(f"{first}->{name}") or {}
                rise = (told.get("bits_per_byte") or {}).get(text) if name != first else None
                read = next((one for one in sources if str(one.get("name", "")).endswith(text.partition("#")[0])), None)
                # How much is read of a text changed between versions; figures of two evaluations agree on the base.
                base = round(float(evaluation.results["models"][first]["bits_per_byte"].get(text, 0.0)), 9)
                column = (text, (read, evaluation.weights[first], base))
                if column not in columns:
                    columns.append(column)
                asked = asked_in.setdefault(columns.index(column), [])
                asked += [evaluation.name] if evaluation.name not in asked else []
                cells.setdefault((evaluation.weights[name], columns.index(column)),
                                 {"bits": float(bits), "rise": rise, "evaluation": evaluation.name,
                                  "standing": _text_standing(rise)})  # fmt: skip
    rows = [(model, [cells.get((model.key, place)) for place in range(len(columns))]) for model in table.models]
    named = [(text, ", ".join(asked_in[place])) for place, (text, _) in enumerate(columns)]
    return {"columns": named, "rows": [(model, row) for model, row in rows if any(row)]}


def _text_standing(rise: Mapping[str, Any] | None) -> str:
    if rise is None or rise.get("low") is None:
        return ""
    return "better" if rise["high"] < 0 else "worse" if rise["high"] > RISE else "same"


# Memory ------------------------------------------------------------------------------------------------------------


def _probes(table: Table) -> Iterator[tuple[str, Column, Mapping[str, Any]]]:
    """Model, column and flag of every probed set."""
    for model in table.models:
        for column in table.columns:
            cell = table.cells.get((model.key, column.key))
            if cell is not None and cell.flag:
                yield model.label, column, cell.flag


def _twins(table: Table, colours: Mapping[str, int]) -> Iterator[tuple[Evaluation, str, Markup, list[tuple[str, Any]]]]:
    """Evaluation, set, drawing and figures of every set that was asked again with other numbers."""
    for evaluation in table.evaluations:
        for task_set, models in (evaluation.results.get("twins") or {}).items():
            rows = [(table.label(evaluation, name), colours[evaluation.weights[name]], models[name]["original"],
                     models[name]["twin"]) for name in evaluation.models if name in models]  # fmt: skip
            told = [(table.label(evaluation, name), models[name]) for name in evaluation.models if name in models]
            yield evaluation, task_set, dumbbells(f"{task_set} and its twins", rows), told


# Figures as text ---------------------------------------------------------------------------------------------------


def _confidence(table: Table) -> str:
    levels = sorted({float(one.results.get("confidence", 0.95)) for one in table.evaluations})
    return " and ".join(f"{level:.0%}" for level in levels)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _points(interval: Mapping[str, Any] | None) -> str:
    """Both ends of an interval, in percent."""
    if interval is None or interval.get("low") is None:
        return ""
    return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
