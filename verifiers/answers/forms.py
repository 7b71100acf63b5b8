"""Comparisons of answers that have parts: matrices, cases, functions, sets of reals, lists, tuples, relations.

Each takes the comparer, which compares the parts, and returns whether the two are equal with the name of the
comparison, or None where it has nothing to say. `COMPARISONS` is the order in which they are asked.

What this does not do: it reads no numbers and holds no limits but those of `structure` and the comparer's own.
"""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from typing import TYPE_CHECKING

from verifiers.answers.evaluate import approximate
from verifiers.answers.expression import TooComplex, Tree, Unreadable, names_of, parse, renamed
from verifiers.answers.question import asks_monotone_interval, order_of
from verifiers.answers.sets import (
    FLIPPED,
    RELATION,
    as_intervals,
    is_inequality,
    names_a_set,
    real_set,
    relation,
    same_set,
)
from verifiers.answers.structure import ASSIGNED, cases_of, labelled, opened, rows_of, split_list

if TYPE_CHECKING:
    from verifiers.answers.equivalence import Comparer

Decision = tuple[bool, str] | None
MAX_SIGNS = 4
"""Signs of plus-minus in one answer."""

_FUNCTION = re.compile(r"\\?[A-Za-z]+\s*\(\s*([A-Za-z])\s*\)\s*=\s*(.+)", re.DOTALL)
_CLAUSE = re.compile(r"\s*,?\s*for (?:all|every|any|each)\b(?:(?!\b(?:or|and|but|except)\b)[^,;])*", re.DOTALL)
_BARE_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w{1,3}\}?)?")
_LARGEST = re.compile(r"(?:the )?(?:max(?:imum)?|largest|greatest|highest|most)\b.*")
_SMALLEST = re.compile(r"(?:the )?(?:min(?:imum)?|smallest|least|lowest|fewest)\b.*")
_UNORDERED = frozenset(("", "\\{\\}", "{}"))
_ROUND = frozenset(("", "()", "\\langle\\rangle"))


def unassigned(text: str) -> str:
    """`x = 5` and `f(x) = 2x` without what stands before the sign; other texts as they are."""
    match = ASSIGNED.fullmatch(text) if "=" in text or "\\in" in text else None
    if match is None or RELATION.search(match[1]) or RELATION.search(match[3]) and match[2] == "=":
        return text
    return match[3].strip()


def bare(text: str) -> str:
    """`unassigned`, for a list after the sign as well."""
    name, sign, rest = text.partition("=")
    return rest.strip() if sign and "=" not in rest and ASSIGNED.fullmatch(f"{name}= 1") else unassigned(text)


def same_side(gold: str, bare_gold: str, answer: str, bare_answer: str) -> bool:
    """Whether stripping assignments keeps the meaning: where both have one, it must be to the same name."""
    if bare_gold == gold or bare_answer == answer:
        # `y = 2x + 1` against `2x + 1` is fine; a gold that is itself a relation must not lose its partner
        return not RELATION.search(bare_gold) and not RELATION.search(bare_answer)
    left = gold[: len(gold) - len(bare_gold)].replace(" ", "")
    return left == answer[: len(answer) - len(bare_answer)].replace(" ", "")


def below(tree: Tree, bound: Fraction) -> bool:
    """Whether a tree without variables has a real value below a bound."""
    value = approximate(tree)
    return value is not None and bool(value * bound.denominator < bound.numerator)


def _matrices(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    ours, theirs = rows_of(gold), rows_of(answer)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        return _vector(comparer, ours or theirs or [], answer if theirs is None else gold, theirs is None, depth)
    if [len(row) for row in ours] != [len(row) for row in theirs]:
        return False, "different_shape"
    return comparer.all_equal(list(itertools.chain(*ours)), list(itertools.chain(*theirs)), depth), "matrix"


def _vector(comparer: Comparer, rows: list[list[str]], text: str, rows_are_gold: bool, depth: int) -> Decision:
    """A matrix of one column or row against a tuple."""
    bracket, inner = opened(text)
    cells = list(itertools.chain(*rows))
    if bracket not in _ROUND or (len(rows) > 1 and any(len(row) > 1 for row in rows)):
        return False, "different_shape"
    parts = split_list(inner)
    if len(parts) != len(cells):
        return False, "different_length"
    return comparer.all_equal(*((cells, parts) if rows_are_gold else (parts, cells)), depth), "vector"


def _cases(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    ours, theirs = cases_of(gold), cases_of(answer)
    if ours is None:
        return None
    if theirs is None or len(ours) != len(theirs):
        return False, "different_cases"
    rest = list(theirs)
    for value, condition in ours:
        found = next((row for row in rest if comparer.compare(condition, row[1], depth + 1).equal
                      and comparer.compare(value, row[0], depth + 1).equal), None)
        if found is None:
            return False, "cases"
        rest.remove(found)
    return True, "cases"


def _functions(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    """`f(z) = z` against `f(x) = x`: the argument's name does not count."""
    ours, theirs = _FUNCTION.fullmatch(gold), _FUNCTION.fullmatch(answer)
    if ours is None or theirs is None or gold.partition("(")[0] != answer.partition("(")[0] or ours[1] == theirs[1]:
        return None
    try:
        gold_tree, answer_tree = parse(ours[2]), parse(theirs[2])
        if ours[1] in names_of(answer_tree):
            return False, "function"
        return comparer.same_value(gold_tree, renamed(answer_tree, theirs[1], ours[1])), "function"
    except TooComplex:
        raise
    except Unreadable:
        return None


def _sets(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    """Inequalities, intervals, unions and differences, as the sets of reals that they are."""
    if not (names_a_set(gold) or names_a_set(answer)):
        return None
    comparer.spend(len(gold) + len(answer))
    ours = real_set(gold)
    theirs = real_set(answer) if ours is not None else None
    if ours is not None and theirs is not None:
        return same_set(ours, theirs, not asks_monotone_interval(comparer.question)), "set"
    if is_inequality(gold) == is_inequality(answer):
        return None
    gold_parts, answer_parts = as_intervals(gold), as_intervals(answer)
    if gold_parts is None or answer_parts is None:
        return None
    return comparer.same_collection(gold_parts, answer_parts, depth), "interval"


def _unions(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    if "\\cup" not in gold:
        return None
    ours, theirs = ([part.strip() for part in text.split("\\cup")] for text in (gold, answer))
    return comparer.same_collection(ours, theirs, depth), "union"


def _plus_minus(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    if "\\pm" not in gold and "\\pm" not in answer:
        return None
    ours, theirs = _with_both_signs(gold), _with_both_signs(answer)
    return comparer.same_collection(ours, theirs, depth), "plus_minus"


def _with_both_signs(text: str) -> list[str]:
    """The elements with each plus-minus as both signs; `\\mp` is the other sign of `\\pm`."""
    bracket, inner = opened(text)
    parts = split_list(inner) if bracket in _UNORDERED else [text]
    if text.count("\\pm") > MAX_SIGNS:
        raise TooComplex("too many plus-minus signs")
    found: list[str] = []
    for part in parts or [text]:
        if "\\mp" in part:
            found += [part.replace("\\pm", sign).replace("\\mp", other) for sign, other in ("+-", "-+")]
        elif "\\pm" in part:
            pieces = part.split("\\pm")
            found += ["".join(itertools.chain(*zip(pieces, (*signs, ""), strict=True)))
                      for signs in itertools.product("+-", repeat=len(pieces) - 1)]
        else:
            found.append(part)
    return found


def _lists(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    gold_bracket, gold_inner = opened(gold)
    answer_bracket, answer_inner = opened(answer)
    gold_parts, answer_parts = _elements(gold_inner), _elements(answer_inner)
    if len(gold_parts) < 2 and gold_bracket != "\\{\\}":
        return None if len(answer_parts) < 2 else (False, "list_for_one_answer")
    if len(gold_parts) != len(answer_parts):
        return False, "different_length"
    by_label = _labels(comparer, gold_parts, answer_parts, depth)
    if by_label is not None:
        return by_label
    if gold_bracket in _UNORDERED and answer_bracket in _UNORDERED:
        return comparer.same_collection(gold_parts, answer_parts, depth), "collection"
    # a bare list against a tuple keeps its order; other brackets of different kinds mean different things
    if gold_bracket != answer_bracket and not (gold_bracket in _ROUND and answer_bracket in _ROUND):
        row = len(gold_parts) > 2 and {gold_bracket, answer_bracket} <= _ROUND | {"[]"}
        ends = len(gold_parts) == 2 and asks_monotone_interval(comparer.question)
        if not (row or ends and {gold_bracket, answer_bracket} <= {"()", "[]"}):
            return False, "different_brackets"
    return comparer.all_equal(gold_parts, answer_parts, depth), "tuple"


def _labels(comparer: Comparer, gold: list[str], answer: list[str], depth: int) -> Decision:
    """`p = 3, q = 4`: by name where both have names, else in the order in which the question lists them."""
    ours, theirs = [labelled(part) for part in gold], [labelled(part) for part in answer]
    named = {label[0]: label[1].strip() for label in theirs if label is not None}
    gold_named = {label[0]: label[1].strip() for label in ours if label is not None}
    if len(named) == len(answer) and len(gold_named) == len(gold):
        if named.keys() != gold_named.keys():
            return None
        return comparer.all_equal(list(gold_named.values()), [named[label] for label in gold_named], depth), "labels"
    if len(named) == len(answer) and not gold_named:
        if any(_LARGEST.fullmatch(label) or _SMALLEST.fullmatch(label) for label in named):
            in_place = len(named) == 2 and _extremes_in_place(named)
            return in_place and comparer.same_collection(gold, list(named.values()), depth), "labels"
        if not all(_BARE_NAME.fullmatch(label) for label in named):
            return None
        order = order_of(list(named), comparer.question)
        return comparer.all_equal(gold, [named[label] for label in order], depth), "labels"
    if len(gold_named) == len(gold) and not named and all(_BARE_NAME.fullmatch(label) for label in gold_named):
        return comparer.all_equal(list(gold_named.values()), answer, depth), "labels"
    return None


def _extremes_in_place(named: dict[str, str]) -> bool:
    """Whether two labels say largest and smallest, and the values agree with them."""
    largest = [value for label, value in named.items() if _LARGEST.fullmatch(label)]
    smallest = [value for label, value in named.items() if _SMALLEST.fullmatch(label)]
    if len(largest) != 1 or len(smallest) != 1:
        return False
    try:
        return below(("add", parse(smallest[0]), ("negate", parse(largest[0]))), Fraction(1, 10**9))
    except TooComplex:
        raise
    except Unreadable:
        return False


def _elements(inner: str) -> list[str]:
    """The parts of a list; `(a, b) = (1, 2)` as `a = 1` and `b = 2`."""
    parts = split_list(inner)
    match = ASSIGNED.fullmatch(inner) if len(parts) == 1 and inner.startswith("(") else None
    if match is not None and match[2] == "=":
        (_, names), (bracket, values) = opened(match[1].strip()), opened(match[3].strip())
        names_list, values_list = split_list(names), split_list(values)
        if bracket == "()" and len(names_list) == len(values_list):
            return [f"{name} = {value}" for name, value in zip(names_list, values_list, strict=True)]
    return [_without_clause(part) for part in parts]


def _ordering(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    """`b < a < c` against the list `b, a, c`."""
    signs, sides = relation(gold) if "," in answer else ([], [])
    if len(signs) < 2 or set(signs) != {"<"} and set(signs) != {">"}:
        return None
    if RELATION.search(answer) or not all(_BARE_NAME.fullmatch(side) for side in sides) or len(set(sides)) < len(sides):
        return None
    return split_list(opened(answer)[1]) == sides, "order"


def _without_clause(part: str) -> str:
    match = _CLAUSE.search(part)
    return part[: match.start()] if match is not None and match.start() and match.end() == len(part) else part


def _relations(comparer: Comparer, gold: str, answer: str, depth: int) -> Decision:
    gold_signs, gold_sides = relation(gold)
    answer_signs, answer_sides = relation(answer)
    if not gold_signs and not answer_signs:
        return None
    if len(gold_signs) != len(answer_signs):
        return False, "different_relation"
    if gold_signs == answer_signs == ["="]:
        return _proportional(comparer, gold_sides, answer_sides, positive=False), "equation"
    flipped = [FLIPPED[sign] for sign in reversed(answer_signs)]
    for signs, sides in ((answer_signs, answer_sides), (flipped, answer_sides[::-1])):
        if signs == gold_signs:
            if comparer.all_equal(gold_sides, sides, depth):
                return True, "inequality"
            if len(signs) == 1 and _proportional(comparer, gold_sides, sides, positive=signs != ["!="]):
                return True, "inequality"
    return False, "inequality"


def _proportional(comparer: Comparer, gold: list[str], answer: list[str], positive: bool) -> bool:
    """Whether the differences of both sides are one function up to a factor."""
    if not all(gold) or not all(answer):
        return False
    try:
        trees = [("add", parse(left), ("negate", parse(right))) for left, right in (gold, answer)]
        return comparer.proportional(trees[0], trees[1], positive)
    except TooComplex:
        raise
    except Unreadable:
        return False


COMPARISONS = (_matrices, _cases, _functions, _sets, _unions, _plus_minus, _ordering, _lists, _relations)
