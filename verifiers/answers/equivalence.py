"""Whether an answer says the same as the gold answer.

Cheap and exact comparisons come first: the same text, the same number. Then both are taken apart into lists, tuples,
intervals, sets, matrices, unions, equations and inequalities, and their parts are compared: an element as a number,
else as an expression (`verifiers.answers.evaluate`), else as text.

Where the gold answer is a plain number, so must the answer be: `4 - 1 - 7` is not accepted for -4, nor `8/2` for 4,
since copying the question must not pay. A list without brackets and a set have no order; a tuple and an interval have
one.

What this does not do: it converts no units, compares no approximations (0.333 is not 1/3), solves
no inequality, and understands no words but `and`, `or` and a closing `for all ...`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifiers.answers.clean import clean, same_text
from verifiers.answers.evaluate import proportional, same_value
from verifiers.answers.expression import TooComplex, Tree, Unreadable, names_of, parse, renamed
from verifiers.answers.intervals import FLIPPED, RELATION, as_intervals, is_inequality, relation
from verifiers.answers.numbers import equal_numbers, read_number, read_unit

MAX_ANSWER = 2_000
"""Characters of an answer that is not the very text of the gold answer."""
MAX_PARTS = 40
"""Elements of a list or matrix."""
MAX_NESTING = 4

_VARIABLE = r"\\?[A-Za-z]+(?:_(?:\{?\w{1,3}\}?))?\s*(?:\(\s*[a-z](?:\s*,\s*[a-z])*\s*\))?"
_ASSIGNED = re.compile(
    rf"(?:{_VARIABLE}|\(\s*{_VARIABLE}(?:\s*,\s*{_VARIABLE})+\s*\))\s*(?:=|\\in(?![a-z]))\s*(.+)", re.DOTALL)
_FUNCTION = re.compile(r"[A-Za-z]\s*\(\s*([A-Za-z])\s*\)\s*=\s*(.+)", re.DOTALL)
_CLAUSE = re.compile(r"[, ]\s*for (?:all|every|any|each)\b(?:(?!\b(?:or|and|but|except)\b).)*", re.DOTALL)
_UNIT_AFTER = re.compile(r"(.*[0-9)}])\s+([A-Za-z]{2}[^(){}\\=<>,]*)", re.DOTALL)
_MATRIX = re.compile(
    r"\\begin\{(?:[pbvBV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{(?:[pbvBV]?matrix|array)\}", re.DOTALL)
_SEPARATOR = re.compile(r",\s*(?:and|or)\s|;|,|\s(?:and|or)\s")
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_BRACKET = re.compile(r"\\[{}]|[(){}\[\]]")


@dataclass(frozen=True)
class Match:
    """Whether two answers are equal, and the snake_case name of the comparison that decided it."""

    equal: bool
    reason: str


def compare(gold: str, answer: str) -> Match:
    """Compare an answer with the gold answer, both as written. Raises nothing on any text."""
    if gold == answer:
        return Match(True, "same_text")
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return Match(False, "over_budget")
    try:
        return _compare(_without_clause(clean(gold)), _without_clause(clean(answer)), 0)
    except (TooComplex, RecursionError):
        return Match(False, "over_budget")


def _without_clause(text: str) -> str:
    """Without a closing `for all real x`, unless nothing stands before it."""
    match = _CLAUSE.search(text)
    return text[: match.start()] if match is not None and match.start() and match.end() == len(text) else text


def _compare(gold: str, answer: str, depth: int) -> Match:
    if depth > MAX_NESTING:
        raise TooComplex("nested too deep")
    if not answer:
        return Match(False, "empty_answer")
    numbers = _compare_numbers(gold, answer)
    if numbers is not None:
        return numbers
    if same_text(gold, answer):
        return Match(True, "same_text")
    bare_gold, bare_answer = _unassigned(gold), _unassigned(answer)
    if (bare_gold, bare_answer) != (gold, answer) and _same_side(gold, bare_gold, answer, bare_answer):
        return _compare(bare_gold, bare_answer, depth + 1)
    if read_number(gold) is not None and not ("," in gold and "," in answer):
        return Match(False, "not_a_number" if not any(map(str.isdigit, answer)) else "unevaluated_or_other")
    for comparison in (_compare_matrices, _compare_functions, _compare_intervals, _compare_unions,
                       _compare_plus_minus, _compare_lists, _compare_relations):
        match = comparison(gold, answer, depth)
        if match is not None:
            return match
    return _compare_expressions(gold, answer)


def _compare_numbers(gold: str, answer: str) -> Match | None:
    """A verdict where both are plain numbers; None where the question is open."""
    gold_number = read_number(gold)
    if gold_number is None:
        return None
    bracket, inner = _opened(answer)
    answer_number = read_number(inner if bracket in ("()", "{}", "\\{\\}") else answer)
    if answer_number is None:
        return None
    if not equal_numbers(gold_number, answer_number):
        return None if "," in gold and "," in answer else Match(False, "different_number")
    if gold_number.value.denominator == 1 and _is_fraction(answer) and not _is_fraction(gold):
        return Match(False, "unevaluated_fraction")
    return Match(True, "same_number")


def _is_fraction(text: str) -> bool:
    return "\\frac" in text or bool(re.search(r"[0-9]\s*/\s*[0-9]", text))


def _unassigned(text: str) -> str:
    """`x = 5` and `f(x) = 2x` without what stands before the sign; other texts as they are."""
    match = _ASSIGNED.fullmatch(text)
    if match is None or RELATION.search(match[1]):
        return text
    return match[1].strip()


def _same_side(gold: str, bare_gold: str, answer: str, bare_answer: str) -> bool:
    """Whether stripping assignments keeps the meaning: where both have one, it must be to the same name."""
    if bare_gold == gold or bare_answer == answer:
        # `y = 2x + 1` against `2x + 1` is fine; a gold that is itself a relation must not lose its partner
        return not RELATION.search(bare_gold) and not RELATION.search(bare_answer)
    left = gold[: len(gold) - len(bare_gold)].replace(" ", "")
    return left == answer[: len(answer) - len(bare_answer)].replace(" ", "")


def _compare_matrices(gold: str, answer: str, depth: int) -> Match | None:
    gold_rows, answer_rows = _rows(gold), _rows(answer)
    if gold_rows is None:
        return None
    if answer_rows is None or [len(row) for row in gold_rows] != [len(row) for row in answer_rows]:
        return Match(False, "different_shape")
    pairs = [(a, b) for x, y in zip(gold_rows, answer_rows, strict=True) for a, b in zip(x, y, strict=True)]
    return Match(_all_equal(pairs, depth), "matrix")


def _rows(text: str) -> list[list[str]] | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\", match[1]) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def _compare_functions(gold: str, answer: str, depth: int) -> Match | None:
    """`f(z) = z` against `f(x) = x`: the argument's name does not count."""
    gold_match, answer_match = _FUNCTION.fullmatch(gold), _FUNCTION.fullmatch(answer)
    if gold_match is None or answer_match is None or gold[0] != answer[0] or gold_match[1] == answer_match[1]:
        return None
    try:
        gold_tree, answer_tree = parse(gold_match[2]), parse(answer_match[2])
        if gold_match[1] in names_of(answer_tree):
            return Match(False, "function")
        return Match(same_value(gold_tree, renamed(answer_tree, answer_match[1], gold_match[1])), "function")
    except TooComplex:
        raise
    except Unreadable:
        return None


def _compare_intervals(gold: str, answer: str, depth: int) -> Match | None:
    """An inequality against an interval or a union, in either order."""
    if is_inequality(gold) == is_inequality(answer):
        return None
    gold_parts, answer_parts = as_intervals(gold), as_intervals(answer)
    if gold_parts is None or answer_parts is None:
        return None
    return Match(_same_collection(gold_parts, answer_parts, depth), "interval")


def _compare_unions(gold: str, answer: str, depth: int) -> Match | None:
    if "\\cup" not in gold:
        return None
    gold_parts, answer_parts = ([part.strip() for part in text.split("\\cup")] for text in (gold, answer))
    return Match(_same_collection(gold_parts, answer_parts, depth), "union")


def _compare_plus_minus(gold: str, answer: str, depth: int) -> Match | None:
    if gold.count("\\pm") > 1 or answer.count("\\pm") > 1 or "\\pm" not in gold + answer:
        return None
    sides = [_expanded(text) for text in (gold, answer)]
    return Match(_same_collection(sides[0], sides[1], depth), "plus_minus")


def _expanded(text: str) -> list[str]:
    if "\\pm" in text:
        return [text.replace("\\pm", "+"), text.replace("\\pm", "-")]
    return split_list(_opened(text)[1]) or [text]


def _compare_lists(gold: str, answer: str, depth: int) -> Match | None:
    gold_bracket, gold_inner = _opened(gold)
    answer_bracket, answer_inner = _opened(answer)
    gold_parts, answer_parts = split_list(gold_inner), split_list(answer_inner)
    if len(gold_parts) < 2 and gold_bracket != "\\{\\}":
        if len(answer_parts) < 2:
            return None
        return Match(False, "list_for_one_answer")
    if len(gold_parts) != len(answer_parts):
        return Match(False, "different_length")
    unordered = {"", "\\{\\}", "{}"}
    if gold_bracket in unordered and answer_bracket in unordered:
        return Match(_same_collection(gold_parts, answer_parts, depth), "collection")
    # a bare list against a tuple keeps its order; other brackets of different kinds mean different things
    if gold_bracket != answer_bracket and {gold_bracket, answer_bracket} != {"", "()"}:
        return Match(False, "different_brackets")
    return Match(_all_equal(list(zip(gold_parts, answer_parts, strict=True)), depth), "tuple")


def _opened(text: str) -> tuple[str, str]:
    """The pair of brackets that encloses the whole text, and its inside; `` and the text where there is none."""
    stack: list[tuple[str, int]] = []
    for match in _BRACKET.finditer(text):
        token = match.group()
        if token in _PAIRS:
            stack.append((token, match.end()))
            continue
        if not stack:
            return "", text
        opening, start = stack.pop()
        if not stack and start == len(opening) and text.startswith(opening) and match.end() == len(text):
            return opening + token, text[start: match.start()].strip()
        if not stack and text.startswith(opening) and start == len(opening):
            return "", text
    return "", text


def split_list(text: str) -> list[str]:
    """Parts at commas, semicolons, `and` and `or` outside all brackets."""
    depth, parts, last = 0, [], 0
    found = [*_BRACKET.finditer(text), *_SEPARATOR.finditer(text)]
    marks = sorted(found, key=lambda match: (match.start(), -match.end()))
    for match in marks:
        token = match.group()
        if token in _PAIRS:
            depth += 1
        elif token in (")", "]", "}", "\\}"):
            depth -= 1
        elif depth == 0 and match.start() >= last:
            parts.append(text[last: match.start()].strip())
            last = match.end()
    parts.append(text[last:].strip())
    if len(parts) > MAX_PARTS:
        raise TooComplex("too many parts")
    return [part for part in parts if part]


def _same_collection(gold: list[str], answer: list[str], depth: int) -> bool:
    """Equal as collections without order, repeats counted."""
    if len(gold) != len(answer):
        return False
    rest = list(answer)
    for part in gold:
        found = next((other for other in rest if _compare(part, other, depth + 1).equal), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def _all_equal(pairs: list[tuple[str, str]], depth: int) -> bool:
    if len(pairs) > MAX_PARTS:
        raise TooComplex("too many parts")
    return all(_compare(gold, answer, depth + 1).equal for gold, answer in pairs)


def _compare_relations(gold: str, answer: str, depth: int) -> Match | None:
    gold_signs, gold_sides = relation(gold)
    answer_signs, answer_sides = relation(answer)
    if not gold_signs and not answer_signs:
        return None
    if len(gold_signs) != len(answer_signs):
        return Match(False, "different_relation")
    if gold_signs == answer_signs == ["="]:
        trees = [_difference(sides) for sides in (gold_sides, answer_sides)]
        if trees[0] is None or trees[1] is None:
            return Match(False, "unreadable")
        return Match(proportional(trees[0], trees[1]), "equation")
    flipped = [FLIPPED[sign] for sign in reversed(answer_signs)]
    for signs, sides in ((answer_signs, answer_sides), (flipped, answer_sides[::-1])):
        if signs == gold_signs and _all_equal(list(zip(gold_sides, sides, strict=True)), depth):
            return Match(True, "inequality")
    return Match(False, "inequality")


def _difference(sides: list[str]) -> Tree | None:
    try:
        return ("add", parse(sides[0]), ("negate", parse(sides[1])))
    except TooComplex:
        raise
    except Unreadable:
        return None


def _compare_expressions(gold: str, answer: str) -> Match:
    (gold, gold_unit), (answer, answer_unit) = _without_unit(gold), _without_unit(answer)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return Match(False, "different_unit")
    try:
        gold_tree, answer_tree = parse(gold), parse(answer)
        return Match(same_value(gold_tree, answer_tree), "expression")
    except TooComplex:
        raise
    except Unreadable:
        return Match(False, "different_text")


def _without_unit(text: str) -> tuple[str, str]:
    """An expression and the unit in words that follows it, `` where there is none."""
    match = _UNIT_AFTER.fullmatch(text)
    unit = read_unit(match[2], glued=False) if match is not None else None
    return (match[1], unit) if match is not None and unit is not None else (text, "")
