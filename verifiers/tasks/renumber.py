"""A word problem with other numbers: its question rewritten, its answer recomputed by its own worked steps.

    renumber("Ann buys 6 pens at $4 each. How much does she pay?", [Step("6*4", Fraction(24))], "24", rng)

The steps say what every number is for: each number in a step is one of the question's, the result of an earlier step,
or a constant that a word of the question stands for (`number_words.reasons`: twice, dozen, week). A number that could
be two of these must come out the same under each, else the draw is thrown away; one that is none of them was worked
out in somebody's head, and the problem has no twin. New numbers are of like size, all differ from the old ones, and
keep the order among each other and among the steps' results, so that whoever had more still has more and a part stays
smaller than its whole; no week gets eight days; whole results stay whole.

What this does not do: change spelled numbers (unless asked for), small ones, percentages, fractions, ordinals, times
and dates, which carry more of the text than their value; touch problems that round, compare or ask for a chance. It
does not understand the text, so a twin can be odd where a person would not write so; how often is told in the docs.
"""

from __future__ import annotations

import ast
import functools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from verifiers.tasks.number_words import Mention, NoTwin, mentions, reasons, spelled_values, written

SMALLEST = 3
"""Smaller numbers stay: one and two are mostly grammar (a pair, both, the other one)."""
SIZE = (Fraction(3, 5), Fraction(8, 5))
"""New numbers lie between these multiples of the old ones."""
RESULT_SIZE = 4
"""Results of steps are at most so many times larger or smaller than before."""
DRAWS = 400
"""Draws of new numbers before a problem counts as having no twin."""
_TRIES = 40
"""Draws of one number until it fits where it is written."""
_GRAINS = (1000, 100, 10, 5, 1)
MANY = 12
"""With so many round numbers to choose from, others are not tried."""
_MIN_GRAINS = 4
"""A round number stays round: a multiple of the largest grain of which it holds at least so many."""


@dataclass(frozen=True)
class Step:
    """One calculation: an expression of numbers with + - * / and brackets, and what its author says it makes."""

    expression: str
    result: Fraction


@dataclass(frozen=True)
class Twin:
    """The rewritten question, its answer, and the numbers that were changed (old -> new, as the question writes them).
    """

    question: str
    answer: str
    changed: Mapping[str, str]


@dataclass(frozen=True)
class _Traced:
    """A step of which every number is traced: `value(numbers, results)` works it out anew."""

    value: Callable[[Mapping[Fraction, Fraction], Sequence[Fraction]], Fraction]
    result: Fraction


def number_of(text: str) -> Fraction:
    """The number that a step writes, without currency and separators. Raises NoTwin for anything else.

    >>> number_of("$1,200.50")
    Fraction(2401, 2)
    """
    plain = text.replace(",", "").replace("$", "").strip()
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", plain):
        raise NoTwin("a step's result is no plain number")
    return Fraction(plain.rstrip("."))


def renumber(question: str, steps: Sequence[Step], answer: str, rng: random.Random, spelled: bool = False) -> Twin:
    """The problem with other numbers.

    Args:
        question: Its text.
        steps: How it is solved, the last step's result being the answer.
        answer: The gold answer.
        rng: Draws the new numbers.
        spelled: Whether numbers written as words change too; else they are constants.

    Raises:
        NoTwin: With the reason why it has none.
    """
    found = mentions(question, spelled)
    fixed = reasons(question, spelled) | {one.value for one in found if one.fixed}
    free = sorted({one.value for one in found} - fixed)
    free = [value for value in free if value >= SMALLEST or value.denominator > 1]
    numbers = {one.value for one in found}
    traced = _trace(steps, numbers, fixed)
    if not steps or steps[-1].result != number_of(answer):
        raise NoTwin("the last step is not the answer")
    same = {value: value for value in numbers}
    try:
        own = [value for value, _ in _run(traced, same)]
    except (_Ambiguous, ZeroDivisionError):  # a rounded result that is also a number of the question
        own = []
    if own != [one.result for one in traced]:
        raise NoTwin("the steps do not give their own results")
    if not free:
        raise NoTwin("no number that may change")
    _no_restated_sum(question, free)
    places = {value: [one for one in found if one.value == value] for value in free}
    round_ones = {value: _choice(places[value]) for value in free}
    finer_ones = {value: one if len(one.units) > MANY else _choice(one.places, 1) for value, one in round_ones.items()}
    still = (spelled_values(question) | numbers) - set(free)
    for attempt in range(DRAWS):
        choices = round_ones if attempt < DRAWS // 2 else finer_ones  # a division may come out whole only then
        drawn = {value: choices[value].draw(rng) for value in free}
        new = {**same, **drawn}
        results = _accepted(traced, new, still)
        if results is not None:
            changed = {one.text: written(one, new[one.value]) for one in found if one.value in drawn}
            text = _rewritten(question, found, new)
            return Twin(text, _plain(results[-1]), changed)
    raise NoTwin("no other numbers fit")


def holds(question: str, steps: Sequence[Step], answer: str, spelled: bool = False) -> bool:
    """Whether the question's own numbers, put through the same machinery, give back its text and its answer.

    Raises:
        NoTwin: The problem has no twin in any case.
    """
    found = mentions(question, spelled)
    numbers = {one.value: one.value for one in found}
    traced = _trace(steps, set(numbers), reasons(question, spelled) | {one.value for one in found if one.fixed})
    results = [value for value, _ in _run(traced, numbers)]
    return _rewritten(question, found, numbers) == question and results[-1] == number_of(answer)


def _rewritten(question: str, found: Sequence[Mention], new: Mapping[Fraction, Fraction]) -> str:
    for one in sorted(found, key=lambda one: -one.start):
        text = one.text if new[one.value] == one.value else written(one, new[one.value])
        question = question[: one.start] + text + question[one.start + len(one.text) :]
    return question


@dataclass(frozen=True)
class _Choice:
    """What one of the numbers may be drawn from: these multiples of a unit that fit wherever it is written."""

    units: range
    unit: Fraction
    value: Fraction
    places: Sequence[Mention]

    def draw(self, rng: random.Random) -> Fraction:
        for _ in range(_TRIES):
            new = rng.choice(self.units) * self.unit
            if new != self.value and all(place.fits(new) for place in self.places):
                return new
        raise NoTwin("no other number of like size")


def _choice(places: Sequence[Mention], grain: int | None = None) -> _Choice:
    """For a number in all places where it is written."""
    value = places[0].value
    decimals = max(one.places for one in places)
    whole = value.denominator == 1 and value >= SMALLEST  # $5.00 stays a whole sum
    unit = Fraction(1) if whole else Fraction(1, 10**decimals)
    units = int(value / unit)
    grain = grain or next(one for one in _GRAINS if units % one == 0 and (units >= _MIN_GRAINS * one or one == 1))
    low = max(math.ceil(units * SIZE[0] / grain), math.ceil(min(value, Fraction(SMALLEST)) / unit / grain), 1)
    return _Choice(range(low, math.floor(units * SIZE[1] / grain) + 1), grain * unit, value, places)


def _trace(steps: Sequence[Step], numbers: set[Fraction], fixed: set[Fraction]) -> list[_Traced]:
    """Every number of every step with all that it could be. Raises NoTwin where one is nothing, or is never used."""
    results: list[Fraction] = []
    used_numbers: set[Fraction] = set()
    used_results: set[int] = set()
    traced: list[_Traced] = []
    for step in steps:
        try:
            tree = ast.parse(step.expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise NoTwin("a step is no plain arithmetic") from error
        literals: list[Fraction] = []
        compiled = _compile(tree, step.expression.strip(), results, numbers, fixed, literals)
        used_numbers |= set(literals) & numbers
        used_results |= {place for place, result in enumerate(results) if result in literals}
        traced.append(_Traced(compiled, step.result))
        results.append(step.result)
    if numbers - fixed - used_numbers:
        raise NoTwin("a number of the question is not used")
    if set(range(len(results) - 1)) - used_results:
        raise NoTwin("a step's result is not used")
    return traced


_Value = Callable[[Mapping[Fraction, Fraction], Sequence[Fraction]], Fraction]


class _Ambiguous(Exception):
    """A number that could be two things is not the same under both."""


def _compile(tree: ast.expr, text: str, results: Sequence[Fraction], numbers: set[Fraction], fixed: set[Fraction],
             literals: list[Fraction]) -> _Value:  # fmt: skip
    inner = functools.partial(_compile, text=text, results=results, numbers=numbers, fixed=fixed, literals=literals)
    if isinstance(tree, ast.BinOp):
        first, second = inner(tree.left), inner(tree.right)
        if isinstance(tree.op, ast.Add):
            return lambda new, done: first(new, done) + second(new, done)
        if isinstance(tree.op, ast.Sub):
            return lambda new, done: first(new, done) - second(new, done)
        if isinstance(tree.op, ast.Mult):
            return lambda new, done: first(new, done) * second(new, done)
        if isinstance(tree.op, ast.Div):
            return lambda new, done: first(new, done) / second(new, done)
    if isinstance(tree, ast.Constant):
        literal = number_of(ast.get_source_segment(text, tree) or "")
        literals.append(literal)
        places = [place for place, result in enumerate(results) if result == literal]
        is_number, is_fixed = literal in numbers, literal in fixed or literal == 1
        if not (places or is_number or is_fixed):
            raise NoTwin("a number of a step is neither in the question nor a result")

        def value(new: Mapping[Fraction, Fraction], done: Sequence[Fraction]) -> Fraction:
            could_be = {done[place] for place in places}
            if is_number:
                could_be.add(new[literal])
            if is_fixed:
                could_be.add(literal)
            if len(could_be) > 1:
                raise _Ambiguous
            return could_be.pop()

        return value
    raise NoTwin("a step is no plain arithmetic")


def _run(traced: Sequence[_Traced], new: Mapping[Fraction, Fraction]) -> list[tuple[Fraction, Fraction]]:
    """Each step's result with these numbers, and its original one."""
    done: list[Fraction] = []
    for step in traced:
        done.append(step.value(new, done))
    return [(value, step.result) for value, step in zip(done, traced, strict=True)]


def _accepted(traced: Sequence[_Traced], new: Mapping[Fraction, Fraction], still: set[Fraction]) \
        -> list[Fraction] | None:  # fmt: skip
    """The results with these numbers, or None where they are no problem like the original."""
    try:
        pairs = _run(traced, new)
    except (_Ambiguous, ZeroDivisionError):
        return None
    for value, original in pairs:
        if value <= 0 or not Fraction(1, RESULT_SIZE) <= value / original <= RESULT_SIZE:
            return None
        if (value * (1 if original.denominator == 1 else 100)).denominator != 1:
            return None  # whole stays whole; else to the hundredth
    if pairs[-1][0] == pairs[-1][1]:
        return None  # a remembered answer would still be right
    every = sorted({(old, now) for old, now in [*new.items(), *((old, now) for now, old in pairs)]}
                   | {(one, one) for one in still})  # fmt: skip
    for (old, now), (next_old, next_now) in zip(every, every[1:], strict=False):
        if old < next_old and now >= next_now:
            return None
    return [value for value, _ in pairs]


def _no_restated_sum(question: str, free: Sequence[Fraction]) -> None:
    """10 of which 6 ... the other 4: three numbers that cannot change apart."""
    if re.search(r"\b(others?|rest|remaining|remainder|left)\b", question, re.IGNORECASE):
        known = set(free)
        if any(a + b in known for place, a in enumerate(free) for b in free[place:]):
            raise NoTwin("a number of the question is the sum of two others")


def _plain(value: Fraction) -> str:
    """A whole number, or a decimal without zeros at its end."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.2f}".rstrip("0")
