"""Gold answers made by rule, and mutations of them that are proved to be worth something else.

An answer is made as a tree and written down in one of many spellings; its value is computed from the tree by this
module's own evaluator, never by the verifier's. A mutation changes the tree, and is kept only if the values differ by
more than 1e-330 of their size at some fixed point (rationals: if the Fractions differ), at 360 digits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import mpmath

Node = tuple
_DIGITS = 360
"""Of the proof; the smallest change that `tiny` makes is 10^-300."""
_POINTS = ((Fraction(7, 5), Fraction(11, 4)), (Fraction(-13, 6), Fraction(3, 7)), (Fraction(29, 9), Fraction(-8, 5)))


@dataclass(frozen=True)
class Mutated:
    """A gold answer and an answer that is worth something else, and how it was made."""

    gold: str
    answer: str
    how: str


def value(node: Node, x: Fraction, y: Fraction):  # type: ignore[no-untyped-def]
    """The number that a tree denotes, as a Fraction where no root or function is in it."""
    kind = node[0]
    if kind == "n":
        return node[1]
    if kind == "v":
        return x if node[1] == "x" else y
    if kind == "pi":
        return mpmath.pi()
    parts = [value(part, x, y) for part in node[1:] if isinstance(part, tuple)]
    if not all(isinstance(part, Fraction) for part in parts):
        parts = [_number(part) for part in parts]
    if kind == "+":
        return parts[0] + parts[1]
    if kind == "*":
        return parts[0] * parts[1]
    if kind == "/":
        return parts[0] / parts[1]
    if kind == "^":
        return parts[0] ** node[2]
    argument = _number(parts[0])
    return {"sqrt": mpmath.sqrt, "ln": mpmath.log, "sin": mpmath.sin, "cos": mpmath.cos}[kind](argument)


def differ(first: Node, second: Node) -> bool:
    """Whether two trees have different values at one of the fixed points."""
    with mpmath.workdps(_DIGITS):
        for point in _POINTS:
            try:
                a, b = value(first, *point), value(second, *point)
            except ZeroDivisionError:
                continue
            if isinstance(a, Fraction) and isinstance(b, Fraction):
                if a != b:
                    return True
                continue
            a, b = _number(a), _number(b)
            if mpmath.isfinite(a) and mpmath.isfinite(b) and abs(a - b) > mpmath.mpf(10) ** -330 * (abs(a) + abs(b)):
                return True
    return False


def _number(value_):  # type: ignore[no-untyped-def]
    return mpmath.mpf(value_.numerator) / value_.denominator if isinstance(value_, Fraction) else value_


def number(rng: random.Random) -> Fraction:
    """An integer, a terminating decimal or a fraction."""
    size = rng.choice((9, 30, 500, 10_000, 10**7))
    if rng.random() < 0.5:
        return Fraction(rng.randint(-size, size))
    return Fraction(rng.randint(-size, size), rng.choice((2, 3, 4, 5, 7, 8, 10, 12, 13, 100, 1000, 24, 99)))


def expression(rng: random.Random, depth: int = 3, variables: bool = False) -> Node:
    """A short tree with roots, logarithms, powers and the like."""
    if depth == 0 or rng.random() < 0.2:
        roll = rng.random()
        if variables and roll < 0.5:
            return ("v", rng.choice("xy"))
        if roll < 0.6:
            return ("pi",)
        return ("n", Fraction(rng.randint(1, 12)))
    kind = rng.choice("++**/^^sflt")
    if kind in "+*/":
        return (kind, expression(rng, depth - 1, variables), expression(rng, depth - 1, variables))
    if kind == "^":
        return ("^", expression(rng, depth - 1, variables), rng.choice((2, 3, 4, 5)))
    if kind == "s":
        return ("sqrt", ("n", Fraction(rng.choice((2, 3, 5, 6, 7, 10, 11, 15)))))
    if kind == "l":
        return ("ln", ("n", Fraction(rng.randint(2, 20))))
    return (rng.choice(("sin", "cos")), ("n", Fraction(rng.randint(1, 9))))


def numeral(value_: Fraction, rng: random.Random) -> str:
    """One spelling of a rational number."""
    sign, size = ("-" if value_ < 0 else ""), abs(value_)
    styles: list[Callable[[], str]] = []
    if size.denominator == 1:
        styles += [lambda: f"{sign}{size}", lambda: f"{sign}{size.numerator:,}", lambda: f"{sign}{size}.0",
                   lambda: f"{sign}{size.numerator:,}".replace(",", "{,}")]
    else:
        styles += [lambda: f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}",
                   lambda: f"{sign}{size.numerator}/{size.denominator}",
                   lambda: f"\\dfrac{{{sign}{2 * size.numerator}}}{{{2 * size.denominator}}}"]
        whole, rest = divmod(size.numerator, size.denominator)
        if whole:
            styles.append(lambda: f"{sign}{whole}\\frac{{{rest}}}{{{size.denominator}}}")
    decimal = _decimal(size)
    if decimal is not None:
        styles += [lambda: sign + decimal, lambda: f"{sign}{_decimal(size * 100)}\\%",
                   lambda: f"{sign}{_decimal(size / 1000)} \\times 10^{{3}}"]
    return rng.choice(styles)()


def _decimal(value_: Fraction) -> str | None:
    for places in range(9):
        scaled = value_ * 10**places
        if scaled.denominator == 1:
            text = str(scaled.numerator).rjust(places + 1, "0")
            return f"{text[:-places]}.{text[-places:]}" if places else text
    return None


def written(node: Node, rng: random.Random) -> str:
    """A tree in LaTeX."""
    kind = node[0]
    if kind == "n":
        return f"{node[1]}" if node[1] >= 0 and node[1].denominator == 1 else f"\\left({node[1]}\\right)"
    if kind == "v":
        return str(node[1])
    if kind == "pi":
        return "\\pi "
    if kind == "+":
        first, second = (node[1], node[2]) if rng.random() < 0.5 else (node[2], node[1])
        return f"\\left({written(first, rng)} + {written(second, rng)}\\right)"
    if kind == "*":
        return f"{written(node[1], rng)} \\cdot {written(node[2], rng)}"
    if kind == "/":
        return f"\\frac{{{written(node[1], rng)}}}{{{written(node[2], rng)}}}"
    if kind == "^":
        return f"\\left({written(node[1], rng)}\\right)^{{{node[2]}}}"
    return f"\\sqrt{{{written(node[1], rng)}}}" if kind == "sqrt" else f"\\{kind}({written(node[1], rng)})"


def changed(node: Node, rng: random.Random) -> Node:
    """The tree with one leaf, exponent, function or sign changed, or a tiny term added."""
    roll = rng.random()
    if roll < 0.1:
        return ("+", node, ("/", ("n", Fraction(1)), ("n", Fraction(10 ** rng.randint(5, 300)))))
    if roll < 0.2:
        return ("*", node, ("n", Fraction(-1)))
    if roll < 0.25:
        return ("+", node, ("n", Fraction(rng.choice((-1, 1)))))
    return _deep(node, rng)


def _deep(node: Node, rng: random.Random) -> Node:
    kind = node[0]
    if kind == "n":
        return ("n", node[1] + rng.choice((-1, 1, 2, 10)))
    if kind == "v":
        return ("v", "y" if node[1] == "x" else "x")
    if kind == "pi":
        return rng.choice((("n", Fraction(22, 7)), ("n", Fraction(314, 100)), ("n", Fraction(3))))
    if kind == "^" and rng.random() < 0.5:
        return ("^", node[1], node[2] + 1)
    if kind in ("sin", "cos") and rng.random() < 0.5:
        return ("cos" if kind == "sin" else "sin", node[1])
    if kind in ("+", "*") and rng.random() < 0.3:
        return ("*" if kind == "+" else "+", node[1], node[2])
    if kind == "/" and rng.random() < 0.3:
        return ("/", node[2], node[1])
    places = [place for place, part in enumerate(node) if isinstance(part, tuple)]
    place = rng.choice(places)
    return (*node[:place], _deep(node[place], rng), *node[place + 1:])


def changed_number(value_: Fraction, rng: random.Random) -> Fraction:
    """Another number that is easily mistaken for it."""
    digits = rng.choice((1, 10, 100, 1000))
    candidates = [
        -value_, value_ + rng.choice((-1, 1)), value_ * 10, value_ / 10, value_ * 100, value_ / 100,
        1 / value_ if value_ else Fraction(1), value_ + Fraction(rng.choice((-1, 1)), digits * value_.denominator),
        value_ + Fraction(1, 10 ** rng.randint(2, 30)), Fraction(int(value_)), Fraction(round(value_ * 10), 10),
        Fraction(round(value_ * 100), 100), value_ * 2, value_ / 2,
        Fraction(int(str(abs(value_.numerator))[::-1]), value_.denominator), value_ * (1 + Fraction(1, 10**6)),
    ]
    return Fraction(rng.choice(candidates))


def mutation(rng: random.Random) -> Mutated:
    """One gold answer and one proved mutation of it."""
    for _ in range(100):
        made = rng.choice(_MAKERS)(rng)
        if made is not None:
            return made
    raise AssertionError("no mutation in a hundred tries")


def _number_pair(rng: random.Random) -> Mutated | None:
    gold = number(rng)
    other = changed_number(gold, rng)
    return Mutated(numeral(gold, rng), numeral(other, rng), "number") if gold != other else None


def _expression_pair(rng: random.Random) -> Mutated | None:
    gold = expression(rng)
    other = changed(gold, rng)
    return Mutated(written(gold, rng), written(other, rng), "expression") if differ(gold, other) else None


def _function_pair(rng: random.Random) -> Mutated | None:
    gold = expression(rng, variables=True)
    other = changed(gold, rng)
    prefix = rng.choice(("", "f(x) = ", "z = "))
    made = Mutated(prefix + written(gold, rng), rng.choice((prefix, "")) + written(other, rng), "function")
    return made if differ(gold, other) else None


def _collection_pair(rng: random.Random) -> Mutated | None:
    values = [number(rng) for _ in range(rng.randint(2, 4))]
    place = rng.randrange(len(values))
    other = changed_number(values[place], rng)
    if other in values:
        return None
    opening, closing = rng.choice((("(", ")"), ("\\{", "\\}"), ("", ""), ("\\begin{pmatrix}", "\\end{pmatrix}")))
    mark = " \\\\ " if "begin" in opening else ", "
    mutated = [*values[:place], other, *values[place + 1:]]
    if rng.random() < 0.2:
        mutated = [*values, other] if rng.random() < 0.5 or "begin" in opening else values[:-1]
    spell = [mark.join(numeral(value_, rng).replace("{,}", "").replace(",", "") for value_ in row)
             for row in (values, mutated)]
    return Mutated(opening + spell[0] + closing, opening + spell[1] + closing, "collection")


def _interval_pair(rng: random.Random) -> Mutated | None:
    low, high = sorted((number(rng), number(rng)))
    if low == high:
        return None
    ends = rng.choice(("()", "[]", "(]", "[)"))
    other_ends = rng.choice([kind for kind in ("()", "[]", "(]", "[)") if kind != ends])
    moved = rng.random() < 0.5
    new_high = high + rng.choice((Fraction(1), Fraction(1, 100), abs(high) + 1)) if moved else high
    used = ends if moved else other_ends
    texts = [_interval(low, upper, kind, rng) for upper, kind in ((high, ends), (new_high, used))]
    return Mutated(texts[0], texts[1], "interval")


def _interval(low: Fraction, high: Fraction, ends: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{ends[0]}{_fraction(low)}, {_fraction(high)}{ends[1]}"
    signs = ["<" if end in "()" else "\\le" for end in ends]
    return f"{_fraction(low)} {signs[0]} t {signs[1]} {_fraction(high)}"


def _fraction(value_: Fraction) -> str:
    return str(value_.numerator) if value_.denominator == 1 else f"\\frac{{{value_.numerator}}}{{{value_.denominator}}}"


def _equation_pair(rng: random.Random) -> Mutated | None:
    a, b, c = (rng.choice([n for n in range(-9, 10) if n]) for _ in range(3))
    other = [a, b, c]
    other[rng.randrange(3)] += rng.choice((-2, -1, 1, 2))
    factor = rng.choice((1, 1, 2, -3))
    if 0 in other or (a * other[1] == b * other[0] and a * other[2] == c * other[0]):
        return None
    left = f"{factor * other[0]}x {factor * other[1]:+}y"
    return Mutated(f"{a}x {b:+}y {c:+} = 0", f"{left} = {-factor * other[2]}", "equation")


def _unit_pair(rng: random.Random) -> Mutated | None:
    families = (("mm", "cm", "m", "km"), ("mg", "g", "kg"), ("seconds", "minutes", "hours", "days"), ("ml", "liters"),
                ("cents", "dollars"), ("inches", "feet", "yards", "miles"), ("cm^2", "m^2", "km^2"), ("km/h", "m/s"))
    first, second = rng.sample(rng.choice(families), 2)
    amount = rng.randint(1, 900)
    return Mutated(f"{amount} \\text{{ {first} }}", f"{amount} \\text{{ {second} }}", "unit")


def _text_pair(rng: random.Random) -> Mutated | None:
    families = (("Monday", "Tuesday", "Friday"), ("even", "odd"), ("circle", "ellipse", "line"), ("A", "B", "C", "D"))
    first, second = rng.sample(rng.choice(families), 2)
    return Mutated(f"\\text{{{first}}}", rng.choice((second, f"\\text{{{second}}}", f"({second})")), "text")


def respelled(rng: random.Random) -> tuple[str, str]:
    """Two spellings of one number or expression."""
    if rng.random() < 0.5:
        amount = number(rng)
        return numeral(amount, rng), numeral(amount, rng)
    tree = expression(rng, variables=rng.random() < 0.5)
    return written(tree, rng), written(tree, rng)


_MAKERS = (_number_pair, _number_pair, _expression_pair, _function_pair, _collection_pair, _interval_pair,
           _equation_pair, _unit_pair, _text_pair)
