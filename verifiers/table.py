"""The table verifier: the completion's table has the gold table's cells, by value.

    Task("1", "...", "city,people\\nOslo,717710", "table", {"rows": "free"})

`answer` is the gold table, in any of the forms of `verifiers.structured.tables`. Of `metadata`:

| | | default |
|---|---|---|
| `columns` | `fixed`: as in the gold table; `free`: any order, found by their headers | `free` |
| `rows` | `fixed`: as in the gold table; `free`: any order, each as often as there | `fixed` |
| `text` | `exact`: case counts; `folded`: it does not | `exact` |
| `format` | the form that the completion must have: `markdown`, `csv`, `tsv`, `json` | any |

The table is read from what follows the last `</think>`: the last fenced block that is labelled with a form or not at
all; without one, the last Markdown table; else all of the text, as JSON, TSV or CSV. A block that is not closed is a
table cut off, which is incorrect.

A wrong table may earn the F1 of its cells, at most `MAX_PARTIAL`: a cell is a value in a column, and in a row where the
rows are fixed.

What this does not do: it does not guess which columns were meant; a header in other words is another column.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.structured.blocks import answer_part, fenced_blocks
from verifiers.structured.json_values import Unreadable
from verifiers.structured.schemas import shown
from verifiers.structured.tables import FORMS, LABELS, Table, form_of, read_table

MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
MAX_PARTIAL = 0.9
"""The most that a wrong table earns."""
SHOWN = 200
"""Characters of the table that are kept in a verdict."""
MAX_NAMED = 3
"""Columns or rows that a reason names."""
NUM_KEPT = 64
"""Gold tables kept ready; a group of rollouts shares one."""
_SETTINGS = {
    "columns": ("free", "fixed"), "rows": ("fixed", "free"), "text": ("exact", "folded"), "format": ("", *FORMS),
}  # fmt: skip
"""What each setting may be, its default first."""
_TOO_MUCH = ("too_long", "too_deep")


class TableVerifier:
    """Correct if the completion's table equals the gold table, by value."""

    name = "table"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the table in it."""
        chosen: dict[str, str] = {}
        for setting, allowed in _SETTINGS.items():
            chosen[setting] = task.metadata.get(setting, allowed[0])
            if chosen[setting] not in allowed:
                return no_verdict(f"setting_unreadable: {setting}")
        folded = chosen["text"] == "folded"
        try:
            gold = _gold(task.answer, folded)
        except Unreadable as error:
            return no_verdict(f"gold_unreadable: {error.reason}")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        extracted = ""
        try:
            text, form = _found(completion, chosen["format"])
            extracted = text.strip()[:SHOWN]
            found = read_table(text, form, folded)
        except Unreadable as error:
            return incorrect(OVER_BUDGET if error.reason in _TOO_MUCH else shown(error.reason), extracted or None)
        compared = Comparison(gold, found, chosen["columns"] == "fixed", chosen["rows"] == "fixed")
        reason = compared.reason()
        if reason is None:
            return correct(extracted, "same_table")
        return incorrect(reason, extracted, min(MAX_PARTIAL, compared.cell_f1()))


@dataclass(frozen=True)
class Comparison:
    """A table beside the gold table."""

    gold: Table
    found: Table
    fixed_columns: bool
    fixed_rows: bool

    def reason(self) -> str | None:
        """What differs, with names; None where nothing does."""
        missing = [name for name in self.gold.columns if name not in self.found.columns]
        extra = [name for name in self.found.columns if name not in self.gold.columns]
        if missing or extra:
            return _named(("missing_columns", missing), ("extra_columns", extra))
        if self.fixed_columns and self.gold.columns != self.found.columns:
            return "column_order"
        wanted, rows = self.gold.rows, self._rows()
        if self.fixed_rows and len(rows) == len(wanted):
            if rows == wanted:
                return None
            if Counter(rows) == Counter(wanted):
                return "row_order"
            places = [
                (number, column)
                for number, (one, other) in enumerate(zip(wanted, rows, strict=True), 1)
                for column, *pair in zip(self.gold.columns, one, other, strict=True)
                if pair[0] != pair[1]
            ]
            number, column = places[0]
            return f"other_cells: {len(places)}, first {shown(column, 40) or 'column 1'} in row {number}"
        lost, added = Counter(wanted) - Counter(rows), Counter(rows) - Counter(wanted)
        if not lost and not added:
            return None
        named = dict(zip(reversed(rows), reversed(self.found.names), strict=True))
        named |= dict(zip(reversed(wanted), reversed(self.gold.names), strict=True))
        return _named(
            ("missing_rows", [named[row] for row in lost.elements()]),
            ("extra_rows", [named[row] for row in added.elements()]),
        )

    def cell_f1(self) -> float:
        """F1 of the cells as multisets, in [0, 1]."""
        wanted, cells = self._cells(self.gold), self._cells(self.found)
        total = wanted.total() + cells.total()
        return 2 * (wanted & cells).total() / total if total else 0.0

    def _rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows with their cells in the gold table's order of columns; both have the same columns."""
        order = [self.found.columns.index(name) for name in self.gold.columns]
        return tuple(tuple(row[place] for place in order) for row in self.found.rows)

    def _cells(self, table: Table) -> Counter[tuple[int, str, str]]:
        return Counter(
            (number if self.fixed_rows else 0, column, value)
            for number, row in enumerate(table.rows)
            for column, value in zip(table.columns, row, strict=True)
        )


def _found(completion: str, wanted: str) -> tuple[str, str]:
    """The text that should be the table, and its form. Raises Unreadable."""
    text = answer_part(completion)
    form = None
    blocks = [block for block in fenced_blocks(text) if block.label in LABELS or not block.label]
    if blocks:
        if not blocks[-1].closed:
            raise Unreadable("unclosed_block")
        text, form = blocks[-1].text, LABELS.get(blocks[-1].label)
    form = form or form_of(text)
    if form is None:
        raise Unreadable("no_table")
    if wanted and form != wanted:
        raise Unreadable(f"other_format: {form}")
    return text, form


def _named(*parts: tuple[str, Iterable[str]]) -> str:
    """`missing_rows: Oslo, Bergen; extra_rows: Rome`; parts without a name are left out."""
    told = []
    for what, given in parts:
        names = list(given)
        if names:
            rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            told.append(f"{what}: {', '.join(shown(name, 30) or 'empty' for name in names[:MAX_NAMED])}{rest}")
    return "; ".join(told)


@functools.lru_cache(maxsize=NUM_KEPT)
def _gold(answer: str, folded: bool) -> Table:
    form = form_of(answer)
    if form is None:
        raise Unreadable("no_table")
    return read_table(answer, form, folded)
