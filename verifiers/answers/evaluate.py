"""The value of an expression tree: exactly as a Fraction where it is rational, else to any asked precision.

`exact` never rounds; it gives up (None) on roots, functions and constants. `same_value` decides whether two trees
denote the same function: their difference is computed at growing precisions, at several fixed points where there are
variables. The difference of equal values shrinks with the precision, that of unequal ones does not, so no tolerance is
involved and 2^-99 differs from 2^-98. The precision starts above the digits of all exact parts, and a term that is too
small to show beside its neighbour makes the comparison fail (`TooComplex`), so that nothing can hide below it. (Two
irrational closed forms that agree to some forty digits without being equal would pass; none is known to occur in
answers.) mpmath, sympy's own numerical core, does the arithmetic; it is imported when the first irrational expression
is met.

Everything is bounded before it is computed: exponents, factorials, sizes of arguments. `TooComplex` beyond.

What this does not do: it proves no identity symbolically, and it knows no assumptions about variables; sqrt(x^2) is
|x| and not x, since points of both signs are tried.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from verifiers.answers.expression import TooComplex, Tree, Unreadable, names_of

MAX_BITS = 20_000
"""Size of an exact integer, as numerator, denominator, or power."""
MAX_FACTORIAL = 1_000
MAX_ARGUMENT = 1_000_000
"""Largest magnitude that goes into an exponential, a power's exponent or a trigonometric function."""
DIGITS = 40
"""Decimal digits of the first evaluation of a tree with short numbers."""
STEPS = (0, 35, 90)
"""Decimal digits that the successive evaluations add."""
MAX_WEIGHT = 1_500
"""Digits of all long numbers in two trees together."""
HIDDEN = 25
"""Decimal digits below the precision from which a term counts as hidden; rounding errors are never that small."""
NUM_POINTS = 5
MIN_POINTS = 2
"""Fewest points at which both sides must be defined for them to count as equal."""


def exact(tree: Tree) -> Fraction | None:
    """The rational value of a tree without variables; None where it has none or may be irrational. Never rounds."""
    folded = fold(tree)
    return folded[1] if folded[0] == "number" else None


def fold(tree: Tree) -> Tree:
    """The tree with every exactly rational part computed. Raises TooComplex, or Unreadable for a division by zero."""
    kind = tree[0]
    if kind == "number":
        _bounded(tree[1])
        return tree
    if kind in ("name", "dots"):
        return tree
    parts = tuple(fold(part) if isinstance(part, tuple) else part for part in tree[1:])
    if any(isinstance(part, tuple) and part[0] != "number" for part in parts):
        return (kind, *parts)
    value = _combined(kind, parts)
    return (kind, *parts) if value is None else ("number", value)


def _combined(kind: str, parts: tuple[Any, ...]) -> Fraction | None:
    if kind == "call":
        return _exact_call(parts[0], parts[1][1])
    if kind == "log":
        return None
    first, second = parts[0][1], parts[-1][1]
    if kind == "add":
        return _bounded(first + second)
    if kind == "multiply":
        return _bounded(first * second)
    if kind == "divide":
        if second == 0:
            raise Unreadable("division by zero")
        return _bounded(first / second)
    if kind == "negate":
        return Fraction(-first)
    if kind == "absolute":
        return abs(Fraction(first))
    if kind in ("floor", "ceiling"):
        return Fraction(math.floor(first) if kind == "floor" else math.ceil(first))
    if kind == "power":
        return _exact_power(first, second)
    return _exact_count(kind, first, second)


def same_value(gold: Tree, answer: Tree) -> bool:
    """Whether two trees denote the same number, or the same function of their variables."""
    gold, answer = fold(gold), fold(answer)
    if gold == answer:
        return True
    if gold[0] == answer[0] == "number":
        return False
    names = sorted(names_of(gold) | names_of(answer))
    digits = _digits(gold, answer)
    if not names:
        return _same_at(gold, answer, {}, digits) is True
    agreed = 0
    for index in range(NUM_POINTS):
        point = {name: _coordinate(name, index) for name in names}
        same = _same_at(gold, answer, point, digits)
        if same is False:
            return False
        agreed += same is True
    return agreed >= MIN_POINTS


def approximate(tree: Tree, digits: int = DIGITS) -> Any:
    """The real value of a tree without variables as an mpmath number; None where it has none.

    Raises TooComplex beyond the bounds.
    """
    context = _context(digits)
    try:
        value = _value(tree, {}, context)
        if isinstance(value, context.mpc):
            value = value.real if abs(value.imag) <= abs(value.real) * context.mpf(10) ** -30 else None
        return value if value is not None and context.isfinite(value) else None
    except TooComplex:
        raise
    except Exception:  # mpmath raises many kinds, all of them because of what the expression says
        return None


def proportional(gold: Tree, answer: Tree, positive: bool = False) -> bool:
    """Whether two trees with variables are the same function up to a constant factor other than 0, or above 0.

    The cross products gold(p) * answer(q) and gold(q) * answer(p) must agree for fixed points p and q.
    """
    gold, answer = fold(gold), fold(answer)
    names = sorted(names_of(gold) | names_of(answer))
    if not names or names_of(gold) != names_of(answer):
        return False
    digits = _digits(gold, answer)
    points = [{name: _coordinate(name, index) for name in names} for index in range(NUM_POINTS)]
    agreed = 0
    for point in points[1:]:
        same = _same_products(gold, answer, (points[0], point), digits)
        if same is False:
            return False
        agreed += same is True
    return agreed >= MIN_POINTS and (not positive or _same_sign(gold, answer, points[0]))


def size(tree: Tree) -> int:
    """The number of nodes."""
    return 1 + sum(size(part) for part in tree[1:] if isinstance(part, tuple))


def _same_sign(gold: Tree, answer: Tree, point: Mapping[str, Fraction]) -> bool:
    context = _context(DIGITS)
    quotient = _value(gold, point, context) / _value(answer, point, context)
    return bool(context.re(quotient) > 0)


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooComplex("number too large")
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _exact_rational_power(base, exponent)
    if base == 0 and exponent <= 0:
        raise Unreadable("zero to a power that is not positive")
    if abs(base) != 1 and abs(exponent) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
        if abs(exponent) > MAX_ARGUMENT:
            raise TooComplex("power too large")
        return None
    if abs(base) == 1:
        return base if exponent % 2 else Fraction(1)
    return base ** int(exponent)


def _exact_rational_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """An exact square root's power, such as 4^(3/2); None for all else."""
    if exponent.denominator != 2 or base <= 0:
        return None
    root = _square_root(base)
    return None if root is None else _exact_power(root, Fraction(exponent.numerator))


def _exact_call(function: str, value: Fraction) -> Fraction | None:
    if function == "abs":
        return abs(value)
    return _square_root(value) if function == "sqrt" and value >= 0 else None


def _square_root(value: Fraction) -> Fraction | None:
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(top, bottom) if top * top == value.numerator and bottom * bottom == value.denominator else None


def _exact_count(kind: str, first: Fraction, second: Fraction) -> Fraction | None:
    if first.denominator != 1 or second.denominator != 1 or first < 0 or second < 0:
        return None
    if max(first, second) > MAX_FACTORIAL:
        raise TooComplex("factorial too large")
    if kind == "factorial":
        return _bounded(Fraction(math.factorial(int(first))))
    return _bounded(Fraction(math.comb(int(first), int(second))))


def _coordinate(name: str, index: int) -> Fraction:
    """A fixed rational in (0.2, 2.2), of either sign, for a variable at the index-th point. The first is positive."""
    digest = int.from_bytes(hashlib.blake2b(f"{name}:{index}".encode(), digest_size=4).digest(), "big")
    value = Fraction(1, 5) + Fraction(2 * (digest % 9973), 9973)
    return -value if index and digest // 9973 % 2 else value


def _digits(gold: Tree, answer: Tree) -> int:
    """The first precision: above the digits of every exact part, in steps so that contexts are few."""
    weight = _weight(gold) + _weight(answer)
    if weight > MAX_WEIGHT:
        raise TooComplex("too many digits")
    return DIGITS + -(-2 * weight // 100) * 100


def _weight(tree: Tree) -> int:
    """Digits beyond a dozen of each number in a tree, summed."""
    if tree[0] == "number":
        bits = max(tree[1].numerator.bit_length(), tree[1].denominator.bit_length())
        return int(max(0, bits * 30103 // 100_000 - 12))
    return 0 if tree[0] == "name" else sum(_weight(part) for part in tree[1:] if isinstance(part, tuple))


def _same_at(gold: Tree, answer: Tree, point: Mapping[str, Fraction], digits: int) -> bool | None:
    """Whether both have the same value at a point; None where either is undefined there."""
    def difference(context: Any) -> tuple[Any, Any]:
        first, second = _value(gold, point, context), _value(answer, point, context)
        return first - second, abs(first) + abs(second)
    return _vanishes(difference, digits)


def _same_products(
    gold: Tree, answer: Tree, points: tuple[Mapping[str, Fraction], Mapping[str, Fraction]], digits: int
) -> bool | None:
    def difference(context: Any) -> tuple[Any, Any]:
        gold_p, gold_q = (_value(gold, point, context) for point in points)
        answer_p, answer_q = (_value(answer, point, context) for point in points)
        if answer_p == 0 or gold_p == 0:
            raise Unreadable("a zero at the point")
        return gold_p * answer_q - gold_q * answer_p, abs(gold_p * answer_q) + abs(gold_q * answer_p)
    return _vanishes(difference, digits)


def _vanishes(difference: Any, digits: int) -> bool | None:
    """Whether a computed difference tends to 0 as precision grows; None where it is undefined."""
    last = None
    for before, step in zip((0, *STEPS), STEPS, strict=False):
        context = _context(digits + step)
        try:
            gap, size = difference(context)
            if not (context.isfinite(gap) and context.isfinite(size)):
                return None
            ratio = abs(gap) / size if size else abs(gap)
        except TooComplex:
            raise
        except Exception:  # mpmath raises many kinds, all of them because of what the expressions say at this point
            return None
        if last is None and ratio > context.mpf(10) ** -6:
            return False  # far apart: no need to look closer
        noise = context.mpf(10) ** -(digits + step - 8)
        if last is not None and ratio <= max(noise, last * context.mpf(10) ** -(step - before - 5)):
            return True
        last = ratio
    return False


@functools.lru_cache(maxsize=64)
def _context(digits: int) -> Any:
    """An arithmetic of our own with this many digits; mpmath's global one is left alone."""
    from mpmath import MPContext

    context = MPContext()
    context.dps = digits
    return context


def _value(tree: Tree, point: Mapping[str, Fraction], context: Any) -> Any:
    kind = tree[0]
    if kind == "number":
        return context.mpf(tree[1].numerator) / tree[1].denominator
    if kind == "name":
        return _name_value(tree[1], point, context)
    if kind == "call":
        return _call(tree[1], _value(tree[2], point, context), context)
    if kind == "dots":
        raise Unreadable("an ellipsis has no value")
    values = [_value(child, point, context) for child in tree[1:]]
    first, second = values[0], values[-1]
    if kind == "add":
        return _sum(first, second, context)
    if kind == "multiply":
        return first * second
    if kind == "divide":
        return first / second
    if kind == "negate":
        return -first
    if kind == "absolute":
        return abs(first)
    if kind in ("floor", "ceiling"):
        return context.floor(first) if kind == "floor" else context.ceil(first)
    if kind == "power":
        return _power(first, second, context)
    if kind == "log":
        return context.log(_nonzero(second)) / context.log(_nonzero(first))
    return _count(kind, first, second, context)


def _sum(first: Any, second: Any, context: Any) -> Any:
    if first and second and abs(context.mag(first) - context.mag(second)) > context.prec + HIDDEN * 10 // 3:
        raise TooComplex("a term that is too small to show")
    return first + second


def _name_value(name: str, point: Mapping[str, Fraction], context: Any) -> Any:
    if name == "pi":
        return +context.pi
    if name == "e":
        return +context.e
    if name == "i":
        return context.mpc(0, 1)
    return context.mpf(point[name].numerator) / point[name].denominator


def _power(base: Any, exponent: Any, context: Any) -> Any:
    if abs(exponent) > MAX_ARGUMENT or abs(context.mag(base) if base != 0 else 0) > MAX_BITS:
        raise TooComplex("power too large")
    if base == 0 and context.re(exponent) <= 0:
        raise Unreadable("zero to a power that is not positive")
    return context.power(base, exponent)


def _count(kind: str, first: Any, second: Any, context: Any) -> Any:
    if max(abs(first), abs(second)) > MAX_FACTORIAL:
        raise TooComplex("factorial too large")
    return context.factorial(first) if kind == "factorial" else context.binomial(first, second)


def _call(function: str, value: Any, context: Any) -> Any:
    if function == "abs":
        return abs(value)
    if function == "sqrt":
        return context.sqrt(value)
    if function == "ln":
        return context.log(_nonzero(value))
    if function == "log":
        return context.log(_nonzero(value)) * context.catalan  # of no known base: equal to neither ln nor log_10
    if abs(value) > (MAX_ARGUMENT if function != "tanh" else HIDDEN):
        raise TooComplex("argument too large")
    if value and context.mag(value) < -3 * HIDDEN:
        raise TooComplex("argument too small to show")  # cos(10^-99) is all but 1
    return getattr(context, function)(value)


def _nonzero(value: Any) -> Any:
    if value == 0:
        raise Unreadable("logarithm of zero")
    return value
