"""The tables that an evaluation prints of its `results.json`: models by figures, what was lost, budgets, task sets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

NUM_COLUMNS = 120
"""Width of the printed tables where there is no terminal."""
MANY_MODELS = 3
"""With more of them, the table by task set has room neither for the best constant answers nor for intervals' decimals.
"""


def print_table(results: Mapping[str, Any]) -> None:
    """Everything that was asked for, and nothing else, on stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=NUM_COLUMNS)
    for table in tables(results):
        # Printed apart, as a table wraps them at its own width.
        title, caption, table.title, table.caption = table.title, table.caption, None, None
        console.print(title, style="italic")
        if table.row_count:
            console.print(table)
        if caption:
            console.print(caption, style="dim")
            console.print()


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """The tables, in the order in which they are printed."""
    models = results["models"]
    yield _overall(results)
    if any(one.get("kept") or one["bits_per_byte"] for one in models.values()):
        yield _lost(results)
    if any(one.get("budgets") or one.get("no_budgets") for one in models.values()):
        yield _budgets(models)
    yield _by_task(results)
    if results.get("twins"):
        yield _twins(results["twins"])
    if results.get("audit"):
        yield _audit(results["audit"])


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="left" if place == 0 else "right")
    return table


def _overall(results: Mapping[str, Any]) -> Table:
    models = results["models"]
    first = next(iter(models.values()))
    sampled = [name for name in ("pass@k", "maj@k") if any(one.get(name) for one in models.values())]
    k = {name: next(one[name]["k"] for one in models.values() if one.get(name)) for name in sampled}
    headings = [
        "model", "pass@1", "gain over\nthe first", *(f"{name[:-1]}{k[name]}" for name in sampled),
        "tokens\nright/wrong", "cut", "format",
    ]  # fmt: skip
    num = first["pass@1"].get("total", "")
    title = f"{num} problems, judged by {escape(results['judge'])}; in percent, {results['confidence']:.0%} intervals"
    table = _table(title, *headings)
    for name, one in models.items():
        gained = results["gains"].get(name)
        row = [escape(name), _percent(one["pass@1"]), _percent(gained["pass@1"], sign=True) if gained else ""]
        row += [_percent(one.get(figure)) for figure in sampled]
        row += [_tokens(one), f"{100 * one.get('truncated_fraction', 0.0):.1f}", one["format"]]
        table.add_row(*row)
    if results.get("not_voted") and "maj@k" in sampled:
        table.caption = f"without a vote: {escape(', '.join(results['not_voted']))}"
    return table


def _lost(results: Mapping[str, Any]) -> Table:
    """Problems of other domains, and bits per byte of held-out texts, each with what changed from the first model."""
    models, gains = results["models"], results["gains"]
    title = "what was lost: kept tasks in percent, bits per byte with their rise in percent"
    table = _table(title, "", *map(escape, models))
    if any(one.get("kept") for one in models.values()):
        cells = [_changed(_percent(one.get("kept_all"), ends=name not in gains), (gains.get(name) or {}).get("kept"))
                 for name, one in models.items()]  # fmt: skip
        table.add_row("kept tasks", *cells)
    for text in dict.fromkeys(text for one in models.values() for text in one["bits_per_byte"]):
        cells = []
        for name, one in models.items():
            bits = one["bits_per_byte"].get(text)
            rise = ((gains.get(name) or {}).get("bits_per_byte") or {}).get(text)
            cells.append("" if bits is None else _changed(f"{bits:.3f}", rise))
        table.add_row(escape(text), *cells)
    return table


def _changed(value: str, change: Mapping[str, float] | None) -> str:
    return value if change is None else f"{value} {_percent(change, sign=True)}"


def _budgets(models: Mapping[str, Any]) -> Table:
    """Accuracy at each thinking budget."""
    rows = [row for one in models.values() for row in one.get("budgets", [])]
    k = next((row["maj@k"]["k"] for row in rows if row["maj@k"]), None)
    table = _table(
        "at thinking budgets", "model", "tokens of\nthought", "pass@1", "over the smallest",
        *([f"maj@{k}"] if k else []), "tokens", "closed by\nitself",
    )  # fmt: skip
    for name, one in models.items():
        for place, row in enumerate(one.get("budgets", [])):
            closed = row["closed_fraction"]
            table.add_row(
                "" if place else escape(name), f"{row['max_thinking_tokens']}", _percent(row["pass@1"]),
                _percent(row["over_smallest"], sign=True) if place else "", *([_percent(row["maj@k"])] if k else []),
                f"{row['mean_tokens']:.0f}", "" if closed is None else f"{100 * closed:.0f}",
            )  # fmt: skip
    without = [f"{name}: {one['no_budgets']}" for name, one in models.items() if one.get("no_budgets")]
    table.caption = escape("; ".join(without)) or None
    return table


def _by_task(results: Mapping[str, Any]) -> Table:
    models, constants, reached = results["models"], results["floor"]["best_constant"], results["floor"]["value"]
    table = _table("pass@1 by task set", "task set", "asked", "best\nconstant", *map(escape, models))
    flagged, digits = False, 1 if len(models) <= MANY_MODELS else 0

    def cells(given: Iterable[Mapping[str, float] | None]) -> Iterator[str]:
        return (_percent(one, digits=digits) for one in given)

    for task, best in constants.items():
        row = [one["by_task"][task] for one in models.values()]
        seen = any((cell.get("contamination") or {}).get("flag") for cell in row)
        flagged |= seen
        shown = escape(task) + (" (!)" if seen else "")
        constant = _constant(best, with_answer=len(models) <= MANY_MODELS)
        table.add_row(shown, f"{row[0]['total']}", constant, *cells(row))
    over_all = [one["pass@1"] for one in models.values()]
    table.add_row("all", f"{over_all[0].get('total', '')}", "" if reached is None else f"{100 * reached:.1f}",
                  *cells(over_all))  # fmt: skip
    sets = dict.fromkeys(name for one in models.values() for name in one.get("kept") or {})
    for name in sets:
        row = [(one.get("kept") or {}).get(name) for one in models.values()]
        total = next((cell["total"] for cell in row if cell), "")
        table.add_row(f"kept: {escape(name)}", f"{total}", "", *cells(row))
    if flagged:
        table.caption = "(!) the first model completes problems of this set from memory"
    return table


def _twins(found: Mapping[str, Any]) -> Table:
    """Problems and their twins, side by side."""
    table = _table("problems and their twins", "task set", "model", "problems", "twins", "twins less problems")
    for name, models in found.items():
        for place, (model, one) in enumerate(models.items()):
            cells = (_percent(one["original"]), _percent(one["twin"]), _percent(one["gap"], sign=True))
            table.add_row("" if place else escape(name), escape(model), *cells)
    return table


def _audit(found: Mapping[str, Any]) -> Table:
    """Agreement with the auditor, the gap, and the gain that it confirms."""
    title = f"audited by {escape(found['verifier'])} on {found['problems']} problems"
    table = _table(title, "model", "agreement", "gap", "gain by the judge there", "gain confirmed")
    for name, one in found["models"].items():
        gained = found["gains"].get(name) or {}
        gains = (_percent(gained.get(by), sign=True) for by in ("judge", "audit"))
        table.add_row(escape(name), _percent(one["agreement"]), _percent(one["gap"], sign=True), *gains)
    return table


def _tokens(one: Mapping[str, Any]) -> str:
    """Mean tokens of right and of wrong answers."""
    sides: Sequence[Mapping[str, float] | None] = [(one.get("tokens") or {}).get(side) for side in ("right", "wrong")]
    if not any(sides):
        return f"{one['mean_tokens']:.0f}"
    return "/".join("-" if side is None else f"{side['mean']:.0f}" for side in sides)


def _constant(best: Mapping[str, Any], with_answer: bool) -> str:
    """What the best constant answer reaches, and which it is; or why there is none."""
    if best["value"] is None:
        return escape(f"none: {best['reason']}") if with_answer else "none"
    if not with_answer:
        return f"{100 * best['value']:.1f}"
    return f"{100 * best['value']:.1f} ({escape(textwrap.shorten(best['answer'], 30, placeholder='...'))})"


def _percent(
    interval: Mapping[str, float] | None, sign: bool = False, ends: bool = True, digits: int = 1
) -> str:
    """`45.2 [43.1, 47.3]`, in percent; without ends where there are none, or none are wanted. `digits` are theirs."""
    if interval is None:
        return ""
    plus = "+" if sign else ""
    value = f"{100 * interval['value']:{plus}.1f}"
    if not ends or interval.get("low") is None:
        return value
    return f"{value} [{100 * interval['low']:{plus}.{digits}f}, {100 * interval['high']:{plus}.{digits}f}]"
