"""Values and tables under rewrites that keep them and changes that do not: any spelling of one value is equal to it."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verifiers.api import Outcome, Task
from verifiers.json_schema import MAX_PARTIAL, JsonSchemaVerifier
from verifiers.structured.blocks import fenced_blocks
from verifiers.structured.json_values import (
    Unreadable,
    agreement,
    canonical,
    first_difference,
    num_leaves,
    read_json,
    read_order,
)
from verifiers.structured.tables import cell, plain, read_table
from verifiers.table import TableVerifier

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
NUMBERS = st.integers(-(10**12), 10**12) | st.builds(Fraction, st.integers(-(10**9), 10**9), st.sampled_from((10, 100)))
TEXTS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=4), max_leaves=12
)


def written(value: Any, rng: random.Random) -> str:
    """One of the spellings of a value: any order of members, any way to write a number, escapes, spaces."""
    space = rng.choice(("", " ", "\n\t"))
    if isinstance(value, dict):
        names = rng.sample(list(value), len(value))
        members = (f"{written(name, rng)}{space}:{space}{written(value[name], rng)}" for name in names)
        return "{" + space + f"{space},".join(members) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(written(element, rng) for element in value) + space + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if isinstance(value, (int, Fraction)) and not isinstance(value, bool):
        return decimal(Fraction(value), rng)
    return json.dumps(value)


def decimal(value: Fraction, rng: random.Random) -> str:
    scaled = value * 100
    assert scaled.denominator == 1
    sign, digits = "-" if value < 0 else "", str(abs(scaled.numerator)).rjust(3, "0")
    plain_text = f"{sign}{digits[:-2]}.{digits[-2:]}"
    shorter = plain_text.rstrip("0").rstrip(".")
    return rng.choice((plain_text, shorter, f"{plain_text}000", f"{sign}{int(digits)}e-2", f"{shorter}E+0"))


@QUICK
@given(VALUES, st.randoms(use_true_random=False))
def test_every_spelling_of_a_value_is_equal_to_it(value: Any, rng: random.Random) -> None:
    try:
        one, other = read_json(written(value, rng)), read_json(written(value, rng))
    except Unreadable as error:
        assert error.reason == "duplicate_key"  # two names that are one in form NFC
        return
    assert canonical(one) == canonical(other) and agreement(one, other) == 1.0


@QUICK
@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_values_are_equal_exactly_when_their_kinds_and_values_are(one: Any, other: Any, rng: random.Random) -> None:
    try:
        texts = [written(one, rng), written(other, rng)]
        read = [read_json(text) for text in texts]
    except Unreadable:
        return
    equal = typed(read[0]) == typed(read[1])
    assert (canonical(read[0]) == canonical(read[1])) == equal
    assert (agreement(read[0], read[1]) == 1.0) == equal
    assert 0.0 <= agreement(read[0], read[1]) <= 1.0
    verdict = JsonSchemaVerifier().judge(Task("t", "", texts[0]), f"```json\n{texts[1]}\n```")
    if "```" not in texts[1] and "~~~" not in texts[1]:
        assert (verdict.outcome is Outcome.CORRECT) == equal, verdict
        assert verdict.score == 1.0 if equal else verdict.score <= MAX_PARTIAL
    if not equal:
        assert first_difference(read[0], read[1]) == "" or isinstance(read[0], (dict, list))


def typed(value: Any) -> Any:
    """A value that Python's own `==` compares as JSON should be."""
    if isinstance(value, dict):
        return ("object", {name: typed(member) for name, member in value.items()})
    if isinstance(value, list):
        return ("array", [typed(element) for element in value])
    return ("number" if isinstance(value, (int, Fraction)) and not isinstance(value, bool) else type(value), value)


@QUICK
@given(st.lists(VALUES, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_a_free_array_is_a_multiset_and_a_fixed_one_a_sequence(elements: list[Any], rng: random.Random) -> None:
    shuffled = rng.sample(elements, len(elements))
    for free, path in ((None, "free"), ((), "fixed"), (read_order({"": "free"}), "root")):
        same = canonical(elements, free) == canonical(shuffled, free)
        assert same or path == "fixed"
        assert same == (canonical(elements) == canonical(shuffled)) or path != "fixed"
    doubled = [*elements[:-1], elements[0]]
    if canonical(elements[-1], None) != canonical(elements[0], None):
        assert canonical(doubled, None) != canonical(elements, None)
        assert agreement(elements, doubled, None) < 1.0


@QUICK
@given(VALUES)
def test_a_share_counts_leaves(value: Any) -> None:
    assert agreement([value], [value, 0]) == pytest.approx(num_leaves(value) / (num_leaves(value) + 1))
    assert agreement({"a": value, "b": "x"}, {"a": value}) == pytest.approx(num_leaves(value) / (num_leaves(value) + 1))


@QUICK
@given(st.text() | st.text(alphabet='[]{}",:0123456789eE.+-\\ tfn"'))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        value = read_json(text)
    except Unreadable as error:
        assert error.reason
    else:
        assert json.loads(text.strip("\ufeff \t\r\n")) is not None or value is None


@QUICK
@given(st.lists(st.text(alphabet="`~a\n ", max_size=30), max_size=4))
def test_fenced_blocks_hold_lines_of_the_text(parts: list[str]) -> None:
    text = "\n".join(parts)
    for block in fenced_blocks(text):
        assert block.text in text and (block.closed or text.endswith(block.text))


WORDS = st.text(alphabet="abcXYZ \u00e9,", min_size=1, max_size=6).filter(lambda text: plain(text) not in ("", "e"))
CELLS = WORDS | st.integers(-(10**7), 10**7) | st.builds(Fraction, st.integers(-(10**6), 10**6), st.just(100))


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    width = draw(st.integers(1, 4))
    header = [f"c{number}" for number in range(width)]
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=5))
    return [header, *rows]


def spelled(value: Any, rng: random.Random) -> str:
    if isinstance(value, str):
        return rng.choice((value, f" {value} ", f"**{value.strip()}**"))
    exact = Fraction(value)
    texts = [decimal(exact, rng), decimal(exact * 100, rng) + "%"]
    if exact.denominator == 1:
        texts.append(f"{exact.numerator:,}")
    return rng.choice(texts)


def as_text(table: list[list[Any]], form: str, rng: random.Random) -> str:
    if form == "json":
        header, *rows = table
        return json.dumps([dict(zip(header, (spelled(value, rng) for value in row), strict=True)) for row in rows])
    cells = [[spelled(value, rng) if number else value for value in row] for number, row in enumerate(table)]
    if form == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
    delimiter = "\t" if form == "tsv" else ","
    return "\n".join(delimiter.join('"' + value.replace('"', '""') + '"' for value in row) for row in cells)


@QUICK
@given(tables(), st.sampled_from(("markdown", "csv", "tsv", "json")), st.randoms(use_true_random=False))
def test_a_table_is_itself_in_any_form_spelling_and_order_of_columns(
    table: list[list[Any]], form: str, rng: random.Random
) -> None:
    gold = as_text(table, "json", rng)
    order = rng.sample(range(len(table[0])), len(table[0]))
    moved = [[row[place] for place in order] for row in table]
    completion = f"```{form}\n{as_text(moved, form, rng)}\n```"
    verdict = TableVerifier().judge(Task("t", "", gold), completion)
    assert verdict.outcome is Outcome.CORRECT, (gold, completion, verdict)
    fixed = TableVerifier().judge(Task("t", "", gold, metadata={"columns": "fixed"}), completion)
    assert (fixed.outcome is Outcome.CORRECT) == (order == sorted(order))


@QUICK
@given(tables(), st.data(), st.randoms(use_true_random=False))
def test_a_changed_table_is_incorrect_and_earns_less(
    table: list[list[Any]], data: st.DataObject, rng: random.Random
) -> None:
    row, column = data.draw(st.integers(1, len(table) - 1)), data.draw(st.integers(0, len(table[0]) - 1))
    other = data.draw(CELLS)
    assume(cell(other) != cell(table[row][column]))
    changed = [list(each) for each in table]
    changed[row][column] = other
    gold = as_text(table, "json", rng)
    for rows in ("fixed", "free"):
        verdict = TableVerifier().judge(Task("t", "", gold, metadata={"rows": rows}), as_text(changed, "markdown", rng))
        assert verdict.outcome is Outcome.INCORRECT and verdict.score <= 0.9, (gold, changed, verdict)
    size = (len(table) - 1) * len(table[0])
    fixed = TableVerifier().judge(Task("t", "", gold), as_text(changed, "markdown", rng))
    assert fixed.score == pytest.approx(min(0.9, (size - 1) / size))


@QUICK
@given(tables(), st.randoms(use_true_random=False))
def test_free_rows_are_a_multiset(table: list[list[Any]], rng: random.Random) -> None:
    header, *rows = table
    gold = as_text(table, "json", rng)
    moved = as_text([header, *rng.sample(rows, len(rows))], "csv", rng)
    judged = {order: TableVerifier().judge(Task("t", "", gold, metadata={"rows": order}), f"```csv\n{moved}\n```")
              for order in ("free", "fixed")}  # fmt: skip
    assert judged["free"].outcome is Outcome.CORRECT
    assert judged["fixed"].outcome is Outcome.CORRECT or judged["fixed"].reason == "row_order"
    twice = f"```csv\n{as_text([header, *rows, rows[0]], 'csv', rng)}\n```"
    more = TableVerifier().judge(Task("t", "", gold, metadata={"rows": "free"}), twice)
    assert more.outcome is Outcome.INCORRECT and more.reason.startswith("extra_rows: ")


@QUICK
@given(st.text(alphabet='|-:,\t\n"[]{}ab1 \\%.', max_size=60), st.sampled_from(("markdown", "csv", "tsv", "json")))
def test_any_text_is_a_table_or_refused_with_a_reason(text: str, form: str) -> None:
    try:
        table = read_table(text, form)
    except Unreadable as error:
        assert error.reason
    else:
        assert all(len(row) == len(table.columns) for row in table.rows) and len(table.names) == len(table.rows)
