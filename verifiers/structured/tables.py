"""Tables as people and models write them, read into cells by value: Markdown, CSV, TSV, and JSON rows.

| form | |
|---|---|
| `markdown` | a header line, a line of dashes, then every line with a `|` in it; `\\|` is a pipe inside of a cell |
| `csv`, `tsv` | RFC 4180 with commas or tabs; the first record is the header; empty lines are skipped |
| `json` | a list of objects (every one with the same names), or a list of lists of which the first is the header |

A cell is a number where its text is nothing but one, else a text. Numbers are compared by value: `1,250.0` is `1250`,
`50%` is `0.5`, `1.5e3` is `1500`, and a JSON number is as good as its text. Thousands separators stand every three
digits or not at all. Digits that begin with an idle 0 (`007`, a postcode) are a text, and so is a number with a unit.

Texts are brought to Unicode's form NFC, with single spaces, without bold, italics or code around the whole cell; case
counts unless `folded`. Headers are compared without case. JSON's `true` is the text `true`, `null` the empty cell.

What this does not do: no merged cells, no HTML, no tables without a header, no decimal commas.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from verifiers.structured.json_values import MAX_DIGITS, MAX_EXPONENT, MAX_TEXT, Unreadable, Value, read_json

FORMS = ("markdown", "csv", "tsv", "json")
LABELS = {"markdown": "markdown", "md": "markdown", "table": "markdown", "csv": "csv", "tsv": "tsv", "json": "json"}
"""Labels of fenced blocks that hold a table."""
MAX_CELLS = 100_000

_NUMBER = re.compile(
    r"(?P<sign>[-+\u2212]?)(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE](?P<power>[-+]?[0-9]{1,4}))?\s?(?P<percent>%?)"
)
_IDLE_ZERO = re.compile(r"0[0-9]")
_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r":?-+:?")
_MARKS = ("**", "__", "*", "_", "`")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Headers as they are compared.
        rows: Cells as they are compared; all rows have as many as there are columns.
        names: The first cell of each row as it is written, for reasons.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


def form_of(text: str) -> str | None:
    """Which form a text seems to have; None where it looks like no table."""
    text = text.strip()
    if _rules(text.split("\n")):
        return "markdown"
    if text.startswith(("[", "{")):
        return "json"
    head = text.partition("\n")[0]
    return "tsv" if "\t" in head else "csv" if "," in head else None


def read_table(text: str, form: str, folded: bool = False) -> Table:
    """The table of a text in this form; in Markdown the last one.

    Raises:
        Unreadable: with `no_table`, `too_long`, `ragged_row: NUMBER`, `duplicate_column: NAME`, `csv_unreadable`,
            `nested_cell`, or a reason of `read_json`.
    """
    if len(text) > MAX_TEXT:
        raise Unreadable("too_long")
    readers = {"markdown": _markdown, "csv": _csv, "tsv": _tsv, "json": _json}
    header, *records = readers[form](text)
    if len(header) * (len(records) + 1) > MAX_CELLS:
        raise Unreadable("too_long")
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise Unreadable(f"ragged_row: {number}")
    columns = tuple(plain(str(name)).casefold() for name in header)
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise Unreadable(f"duplicate_column: {twice[:40]}")
    rows = tuple(tuple(cell(value, folded) for value in record) for record in records)
    names = tuple(plain(str(record[0])) for record in records)
    return Table(columns, rows, names)


def cell(value: Value, folded: bool = False) -> str:
    """A text that two cells share exactly when they are equal. Raises Unreadable for an object or a list.

    >>> cell("1,250.0") == cell(1250), cell("50 %") == cell("0.5"), cell("007") == cell("7")
    (True, True, False)
    """
    if value is None or isinstance(value, bool):
        return "text:" + ("" if value is None else str(value).lower())
    if isinstance(value, (int, Fraction)):
        return f"number:{value}"
    if not isinstance(value, str):
        raise Unreadable("nested_cell")
    text = plain(value)
    number = _number(text)
    if number is not None:
        return f"number:{number}"
    return f"text:{text.casefold() if folded else text}"


def plain(text: str) -> str:
    """A cell's text in form NFC with single spaces, without typesetting around the whole of it."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    for marks in _MARKS:
        inner = text[len(marks) : -len(marks)]
        if text.startswith(marks) and text.endswith(marks) and inner.strip() and marks[0] not in inner:
            text = inner.strip()
    return text


def _number(text: str) -> int | Fraction | None:
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if match is None or _IDLE_ZERO.match(match["digits"]):
        return None
    power = int(match["power"] or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    value = Fraction(match["digits"].replace(",", "")) * Fraction(10) ** power
    value = value / 100 if match["percent"] else value
    value = value if match["sign"] in ("", "+") else -value
    return value.numerator if value.denominator == 1 else value


def _rules(lines: list[str]) -> list[int]:
    """Numbers of the lines of dashes under a header."""
    return [
        number
        for number, line in enumerate(lines)
        if number and "-" in line and "|" in line and "|" in lines[number - 1]
        and all(_RULE.fullmatch(part.strip()) for part in _cells(line))
    ]  # fmt: skip


def _cells(line: str) -> list[str]:
    parts = _PIPE.split(line.strip())
    if len(parts) > 1 and not parts[0].strip():
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1].strip():
        parts = parts[:-1]
    return [part.replace("\\|", "|").strip() for part in parts]


def _markdown(text: str) -> list[list[Value]]:
    lines = text.split("\n")
    rules = _rules(lines)
    if not rules:
        raise Unreadable("no_table")
    rule = rules[-1]
    records: list[list[Value]] = [list(_cells(lines[rule - 1]))]
    if len(_cells(lines[rule])) != len(records[0]):
        raise Unreadable("ragged_row: 0")
    for line in lines[rule + 1 :]:
        if "|" not in line:
            break
        records.append(list(_cells(line)))
    return records


def _csv(text: str, delimiter: str = ",") -> list[list[Value]]:
    lines = io.StringIO(text.strip("\r\n\ufeff"), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter == ",")
    try:
        records: list[list[Value]] = [list(record) for record in reader if record]
    except csv.Error as error:
        raise Unreadable("csv_unreadable") from error
    if not records:
        raise Unreadable("no_table")
    return records


def _tsv(text: str) -> list[list[Value]]:
    return _csv(text, "\t")


def _json(text: str) -> list[list[Value]]:
    value = read_json(text)
    if not isinstance(value, list) or not value:
        raise Unreadable("no_table")
    if all(isinstance(row, list) and row for row in value) and all(isinstance(name, str) for name in _row(value[0])):
        return [_row(row) for row in value]
    if not all(isinstance(row, dict) and row for row in value):
        raise Unreadable("no_table")
    header = list(value[0]) if isinstance(value[0], dict) else []
    records: list[list[Value]] = [list(header)]
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict) or row.keys() != set(header):
            raise Unreadable(f"ragged_row: {number}")
        records.append([row[name] for name in header])
    return records


def _row(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []
