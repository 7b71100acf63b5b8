"""What an answer must meet besides a family's own score, where that score runs code or takes wrong answers for right.

Found by handing every family of reasoning-gym 0.1.25 mangled gold answers (see `tests/unit/test_verifiers_puzzles.py`).
`GUARDS` come before the score: some families pass an answer to `eval` or to sympy's `parse_expr`, which run code, so it
must first be a plain list or a plain expression with small powers, by our own reader. `STRICTER` compare with the gold
answer where a score ignores what it cannot read ("A, B or 7"), allows more than the question does, or looks for the
gold answer anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from verifiers.answers.clean import clean
from verifiers.answers.evaluate import exact
from verifiers.answers.expression import TooComplex, Tree, Unreadable, parse
from verifiers.answers.numbers import read_number

MAX_POWER = 100
"""Exponent in an expression that goes to sympy."""

_PLAIN_LIST = re.compile(r"[A-Za-z0-9\s\[\],'\"_-]*")
_ARITHMETIC = re.compile(r"[0-9+\-*/() .]*")
_CALCULUS = re.compile(
    r"(?:[0-9+\-*/()^ .]|\b(?:[a-zA-Z]|sin|cos|tan|exp|log|ln|sqrt|asin|acos|atan|sinh|cosh|tanh|pi)(?![A-Za-z]))*"
)
_GRID = re.compile(r"[01\s,\[\]]*")
_NUMBERS = re.compile(r"[-0-9\s,\[\]]*")
_INTERVAL = re.compile(r"-?[0-9]+(?:\s+days?(?:,?\s+[0-9:.]+)?)?|-?[0-9:.]+")
_MOVES = re.compile(r"[UDLR\s]*")
_CAR_MOVES = re.compile(r"\s*(?:[A-Z][+-][0-9]{1,2}[\s,]*)+")
_BUTTONS = re.compile(r"\s*[A-Ca-c](?:(?:\s|,|->|=>|\u2192|\\(?:right|long)?(?:to|arrow))+[A-Ca-c])*\s*\.?\s*")
_FRACTION = re.compile(r"\$?\s*(?:\\[dt]?frac\s*\{\s*-?\d+\s*\}\s*\{\s*\d+\s*\}|-?\d+\s*/\s*\d+)\s*\$?")
_LOGIC = re.compile(r"[A-Z\s()\u2227\u2228\u00ac\u2192\u2194]*")
_WORDS = re.compile(r"\w+")
_LISTED_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
_BETWEEN_NUMBERS = re.compile(r"[\s\[\],'\"]*")


def _plain_list(text: str) -> bool:
    """Lists of words and numbers only: nothing that `eval` could call or multiply."""
    return len(text) <= 5_000 and _PLAIN_LIST.fullmatch(text) is not None


def _plain_arithmetic(text: str) -> bool:
    return _ARITHMETIC.fullmatch(text) is not None and _small_powers(text)


def _plain_calculus(text: str) -> bool:
    return len(text) <= 1_000 and _CALCULUS.fullmatch(text) is not None and _small_powers(text)


def _small_powers(text: str) -> bool:
    """Readable by our own parser, with literal exponents of at most MAX_POWER and no power of a power."""
    try:
        tree = parse(text)
        exact(tree)
    except Unreadable:
        return False
    return _power_depth(tree) <= 1


def _power_depth(tree: Tree) -> int:
    """How deep powers are nested; 99 where an exponent is too large or is no number."""
    if tree[0] in ("number", "name"):
        return 0
    depth = max(_power_depth(child) for child in tree[1:] if isinstance(child, tuple))
    if tree[0] == "factorial":
        return 99
    if tree[0] == "power":
        try:
            exponent = exact(tree[2])
        except (TooComplex, Unreadable):
            return 99
        if tree[1] != ("name", "e") and (exponent is None or abs(exponent) > MAX_POWER):
            return 99
        depth += 1
    return depth


def _solves_24(text: str, entry: dict[str, Any]) -> bool:
    """The four given numbers, each once, with value 24."""
    try:
        value = exact(parse(text))
    except Unreadable:
        return False
    used = sorted(map(int, re.findall(r"[0-9]+", text)))
    return value == Fraction(24) and used == sorted(entry["metadata"].get("numbers", []))


def _same_words(text: str, entry: dict[str, Any]) -> bool:
    return text.strip().casefold() == str(entry["answer"]).strip().casefold()


def _same_number(text: str, entry: dict[str, Any]) -> bool:
    """One number, and the gold one; a unit may follow it."""
    number, gold = read_number(clean(text)), read_number(str(entry["answer"]))
    return number is not None and gold is not None and number.value == gold.value


def _near_gold(text: str, entry: dict[str, Any]) -> bool:
    """Within the family's own tolerance of the gold probability."""
    try:
        return abs(Fraction(text.replace(",", "")) - Fraction(entry["answer"])) <= Fraction(1, 10_000)
    except (ValueError, ZeroDivisionError):
        return False


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


def _same_claims(text: str, entry: dict[str, Any]) -> bool:
    """The gold sentence's words in some order, and no others: its score reads whatever claims it finds."""
    return sorted(_WORDS.findall(text.casefold())) == sorted(_WORDS.findall(str(entry["answer"]).casefold()))


def _same_list(text: str, entry: dict[str, Any]) -> bool:
    """The gold numbers in their order, as numbers; the score allows each to be off by 1."""
    if _BETWEEN_NUMBERS.fullmatch(_LISTED_NUMBER.sub("", text)) is None:
        return False
    return _decimals(text) == _decimals(str(entry["answer"]))


def _decimals(text: str) -> list[Decimal]:
    return [Decimal(number) for number in _LISTED_NUMBER.findall(text)]


def _to_the_last_digit(text: str, entry: dict[str, Any]) -> bool:
    """Within one unit of the gold number's last digit; the score allows a fixed distance, however small the number."""
    try:
        number, gold = Decimal(text), Decimal(str(entry["answer"]))
        return abs(number - gold) <= Decimal(1).scaleb(int(gold.as_tuple().exponent))
    except (InvalidOperation, ValueError, OverflowError):
        return False


def _one_interval(text: str, entry: dict[str, Any]) -> bool:
    """A number of days, or a time of the gold one's sign, and nothing else."""
    text, gold = text.strip(), str(entry["answer"]).strip()
    return _INTERVAL.fullmatch(text) is not None and text.startswith("-") == gold.startswith("-")


def _form(pattern: re.Pattern[str]) -> Callable[[str, dict[str, Any]], bool]:
    """A condition on the answer's form alone."""
    return lambda text, entry: pattern.fullmatch(text) is not None


GUARDS: dict[str, Callable[[str], bool]] = {
    "string_insertion": _plain_list,
    "spiral_matrix": _plain_list,
    "binary_matrix": _plain_list,
    "n_queens": _plain_list,
    "countdown": _plain_arithmetic,
    "puzzle24": _plain_arithmetic,
    "simple_integration": _plain_calculus,
    "intermediate_integration": _plain_calculus,
    "polynomial_multiplication": _plain_calculus,
    "propositional_logic": _matches(_LOGIC),  # its reader stops at what it does not know
    "rush_hour": _matches(_CAR_MOVES),  # a move of a billion steps is made step by step
}
"""What an answer must look like before a family's `score_answer` may evaluate it."""

STRICTER: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "puzzle24": _solves_24,  # the family's score takes any four numbers in range that make 24
    "game_of_life_halting": _same_words,  # it takes any text that is not empty for True, and for False as well
    "gsm_symbolic": _same_number,  # it looks for the gold digits anywhere: "-7" and "7 or 5" pass for 7
    "spell_backward": _same_words,  # it takes the gold word with anything after it
    "decimal_arithmetic": _to_the_last_digit,
    "fraction_simplification": _form(_FRACTION),  # it takes the first fraction that it finds
    "kakurasu": _form(_GRID),  # it reads the digits 0 and 1 and ignores everything else
    "knights_knaves": _same_claims,
    "letter_jumble": _same_words,  # it compares words up to the end of the shorter sentence
    "number_format": _same_number,  # it allows a hundredth, whatever the distance between the candidates
    "number_sorting": _same_list,
    "quantum_lock": _form(_BUTTONS),  # it reads the letters A to C and ignores everything else
    "survo": _form(_NUMBERS),
    "sokoban": _form(_MOVES),  # it ignores what is no move
    "time_intervals": _one_interval,  # it ignores the sign, and what follows a number of days
    "coin_flip": _near_gold,  # it gives full marks for a lone first digit of the gold answer
}
"""Conditions of our own for families whose score gives full marks to wrong answers."""
