"""When a rounded value will do: only where the gold answer is itself one, and then to its own precision.

A decimal gold answer of at least three significant digits stands for any closed form that rounds to it and that no
decimal could say: 30.52 for 1587/52, 41.4% for sqrt(2) - 1. A terminating decimal, or a fraction that equals one, must
be the gold answer exactly, unless the question asks for a rounded value.

What this does not do: an exact gold answer (1/3, sqrt(2), 12) is met by no decimal.
"""

from __future__ import annotations

import re
from fractions import Fraction

from verifiers.answers.evaluate import approximate, exact
from verifiers.answers.expression import Tree
from verifiers.answers.numbers import Number
from verifiers.answers.question import asks_estimate, asks_rounding

MIN_SIGNIFICANT = 3
"""Significant digits from which a gold decimal, or an answer to a question for an estimate, counts as rounded."""
MAX_DENOMINATOR = 10_000
"""Of a fraction that is taken for the exact form of a rounded gold answer."""

_NUMERAL = re.compile(r"[0-9][0-9,]*(?:\.([0-9]+))?|\.([0-9]+)")
_OTHER = re.compile(r"frac|[/^]|[0-9][eE][-+]?[0-9]")
_HAS_DECIMAL = re.compile(r"[0-9]\.[0-9]|\.[0-9]")


def rounds_to(gold: str, gold_number: Number, answer: str, value: Fraction | Tree) -> bool:
    """Whether an exact answer that no decimal could say rounds to the decimal gold answer.

    Args:
        gold: The gold answer as written, for its number of decimals.
        gold_number: What it reads as.
        answer: The answer as written; decimals in it disqualify it.
        value: The answer's value, exact or as a tree without variables.
    """
    places = _places(gold)
    if places is None or not places[0] or places[1] < MIN_SIGNIFICANT or _HAS_DECIMAL.search(answer):
        return False
    if not isinstance(value, Fraction):
        rational = exact(value)
        if rational is None:
            return _near(gold_number, places[0], approximate(value))
        value = rational
    if _terminates(value) or value.denominator > MAX_DENOMINATOR:
        return False
    return abs(value - gold_number.value) <= _half_unit(gold_number, places[0])


def close_enough(gold: str, gold_number: Number, answer: str, answer_number: Number, question: str) -> bool:
    """Whether two decimals agree as far as the question asks.

    A rounded value is asked for: the answer's further decimals round to the gold answer. An estimate is asked for: the
    answer is the gold answer rounded, to at least `MIN_SIGNIFICANT` digits.
    """
    ours, theirs = _places(gold), _places(answer)
    if ours is None or theirs is None or gold_number.percent != answer_number.percent:
        return False
    gap = abs(gold_number.value - answer_number.value)
    if ours[0] and ours[1] >= 2 and theirs[0] > ours[0] and gap <= _half_unit(gold_number, ours[0]):
        return asks_rounding(question)
    if theirs[0] < ours[0] and theirs[1] >= MIN_SIGNIFICANT and gap <= _half_unit(answer_number, theirs[0]):
        return asks_estimate(question)
    return False


def _places(text: str) -> tuple[int, int] | None:
    """Decimals and significant digits of the one plain numeral in the text; None where there is not just one."""
    if _OTHER.search(text):
        return None
    numerals = list(_NUMERAL.finditer(text))
    if len(numerals) != 1:
        return None
    decimals = numerals[0][1] or numerals[0][2] or ""
    return len(decimals), len(re.sub(r"[^0-9]", "", numerals[0][0]).lstrip("0"))


def _half_unit(number: Number, decimals: int) -> Fraction:
    return Fraction(1, 2 * 10**decimals) / (100 if number.percent else 1)


def _near(gold: Number, decimals: int, value: object) -> bool:
    if value is None:
        return False
    unit = _half_unit(gold, decimals)
    low, high = gold.value - unit, gold.value + unit
    return bool(low.numerator <= value * low.denominator and value * high.denominator <= high.numerator)  # type: ignore[operator]


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
