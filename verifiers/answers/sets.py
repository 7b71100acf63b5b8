"""Sets of real numbers in one form, so that `x < 3/2, x \\ne -6` can be compared with `(-\\infty, -6) \\cup (-6, 3/2)`.

`real_set` reads intervals, unions, differences, chained inequalities, `\\ne`, set-builder notation, finite sets and the
names of the reals, with numbers as endpoints, into disjoint sorted pieces. Endpoints are compared exactly
(`verifiers.answers.evaluate`) and sorted by a forty-digit value. `as_intervals` is the textual way for endpoints with
letters.

What this does not do: it solves nothing; a side must be the bare variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from verifiers.answers.evaluate import approximate, same_value
from verifiers.answers.expression import TooComplex, Tree, Unreadable, names_of, parse
from verifiers.answers.structure import opened, split_list

RELATION = re.compile(
    r"\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|<=|>=|!=|[<>=]|\\lt(?![a-z])|\\gt(?![a-z])|\\approx(?![a-z])")
CANONICAL = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\lt": "<", "\\gt": ">", "\\approx": "~"}
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
MAX_PIECES = 24

_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w{1,3}\}?)?(?:\(\s*[a-z]\s*\))?")
_MEMBER = re.compile(r"\\?[A-Za-z]+(?:_\{?\w\}?)?(?:\(\s*[a-z]\s*\))?\s*\\in(?![a-z])\s*(.+)", re.DOTALL)
_BUILDER = re.compile(
    r"\\?\{\s*\\?[A-Za-z]+(?:\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?)?\s*[|:](.+?)\\?\}", re.DOTALL)
_FUNCTION = re.compile(r"([A-Za-z])\s*\(\s*[A-Za-z]\s*\)")
_LETTER = re.compile(
    r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|omega|phi|varphi|rho|sigma|tau)(?![a-z])")
_BETWEEN = re.compile(r"\\cup(?![a-z])|\bor\b|\\lor(?![a-z])")
_BOTH = re.compile(r"\\cap(?![a-z])|\band\b|\\land(?![a-z])")
_MINUS = re.compile(r"\\setminus(?![a-z])|\\backslash(?![a-z])|(?<=[)\]}R])\s*[-\\]\s*(?=\\?\{)")
_REALS = re.compile(
    r"\\mathbb\s*\{?\s*R\s*\}?|\\R|all real numbers|all reals?"
    r"|the real numbers|the set of real numbers|R")
_HAS_SET = re.compile(
    r"\\cup|\\cap|\\setminus|\\backslash|\\mathbb\s*\{?\s*R|\\R(?![a-z])|[<>]|\\[lg][et](?![a-z])|\\ne(?![a-z])|!="
    r"|\\in(?![a-z])|\\\{[^{}|:]*[|:]|\breal|\\emptyset")


@dataclass(frozen=True)
class Bound:
    """One end of a piece. `value` is None at infinity."""

    tree: Tree | None
    value: Any
    closed: bool


@dataclass(frozen=True)
class Piece:
    """An interval or, where both ends are the same closed number, a point."""

    low: Bound
    high: Bound


_OPEN_END = Bound(None, None, False)
REALS = [Piece(_OPEN_END, _OPEN_END)]


def relation(text: str) -> tuple[list[str], list[str]]:
    """The relation signs of a text in one spelling, and what stands between them."""
    signs = [CANONICAL.get(sign, sign) for sign in RELATION.findall(text)]
    return signs, [side.strip() for side in RELATION.split(text)]


def is_inequality(text: str) -> bool:
    """Whether the text has a sign of order."""
    return any(sign in ("<", ">", "<=", ">=") for sign in relation(text)[0])


def names_a_set(text: str) -> bool:
    """Whether some sign in the text may speak of a set of reals beyond a plain interval or list."""
    return _HAS_SET.search(text) is not None


def real_set(text: str) -> list[Piece] | None:
    """The disjoint sorted pieces of a set of reals; None where the text is no such set with numbers as endpoints."""
    letters = {letter for letter in _LETTER.findall(_FUNCTION.sub(r"\1", text)) if letter not in ("e", "R")}
    if len(letters) > 1:
        return None  # two variables, or an endpoint with a letter
    try:
        return _union(text.strip(), 0)
    except TooComplex:
        raise
    except Unreadable:
        return None


def same_set(gold: list[Piece], answer: list[Piece], ends_count: bool = True) -> bool:
    """Piece by piece the same ends; `ends_count` False lets an end be open on one side and closed on the other."""
    return len(gold) == len(answer) and all(
        _same_end(first.low, second.low, ends_count) and _same_end(first.high, second.high, ends_count)
        for first, second in zip(gold, answer, strict=True))


def as_intervals(text: str) -> list[str] | None:
    """The intervals that a union or some inequalities stand for, as text; None where a part is neither."""
    builder = _BUILDER.fullmatch(text)
    parts = [_as_interval(part.strip()) for part in _BETWEEN.split(builder[1].strip() if builder else text)]
    return None if None in parts else [part for part in parts if part is not None]


def _as_interval(text: str) -> str | None:
    signs, sides = relation(text)
    if not signs:
        return text if text[:1] in ("(", "[") and text[-1:] in (")", "]") else None
    if signs[0] in (">", ">="):
        signs, sides = [FLIPPED[sign] for sign in signs[::-1]], sides[::-1]
    if any(sign not in ("<", "<=") for sign in signs):
        return None
    if len(signs) == 2 and _NAME.fullmatch(sides[1]):
        return f"{'(' if signs[0] == '<' else '['}{sides[0]}, {sides[2]}{')' if signs[1] == '<' else ']'}"
    if len(signs) == 1 and _NAME.fullmatch(sides[0]):
        return f"(-\\infty, {sides[1]}{')' if signs[0] == '<' else ']'}"
    if len(signs) == 1 and _NAME.fullmatch(sides[1]):
        return f"{'(' if signs[0] == '<' else '['}{sides[0]}, \\infty)"
    return None


def _union(text: str, depth: int) -> list[Piece]:
    if depth > 4:
        raise Unreadable("sets nested too deep")
    pieces: list[Piece] = []
    for part in _BETWEEN.split(text):
        pieces += _intersection(part.strip(" ,;"), depth)
    return _merged(pieces)


def _intersection(text: str, depth: int) -> list[Piece]:
    minus = _MINUS.search(text)
    if minus is not None and minus.start():
        whole, hole = text[: minus.start()].strip(), text[minus.end():].strip()
        return _meet(_union(whole, depth + 1), _complement(_union(hole, depth + 1)))
    parts = [part.strip() for part in _BOTH.split(text)]
    if len(parts) == 1 and RELATION.search(text) and opened(text)[0] not in ("\\{\\}", "{}"):
        parts = split_list(text)  # `x > 2, x \ne 3`
        if len(parts) > 1 and not any(is_inequality(part) or "\\ne" in part for part in parts):
            raise Unreadable("a list of equations")
    pieces = list(REALS)
    for part in parts:
        pieces = _meet(pieces, _simple(part, depth))
    return pieces


def _simple(text: str, depth: int) -> list[Piece]:
    if not text:
        raise Unreadable("empty")
    if _REALS.fullmatch(text):
        return list(REALS)
    if text == "\\emptyset" or text.replace(" ", "") in ("\\{\\}", "{}"):
        return []
    builder = _BUILDER.fullmatch(text)
    if builder is not None:
        return _union(builder[1].strip(), depth + 1)
    member = _MEMBER.fullmatch(text)
    if member is not None:
        return _union(member[1].strip(), depth + 1)
    signs, sides = relation(text)
    if signs:
        return _from_relation(signs, sides)
    kind, inner = opened(text)
    if kind in ("\\{\\}", "{}"):
        return _merged([_point(part) for part in split_list(inner)])
    if text[0] in "([" and text[-1] in ")]":
        parts = split_list(text[1:-1])
        if len(parts) == 2:
            piece = Piece(_end(parts[0], text[0] == "["), _end(parts[1], text[-1] == "]"))
            if piece.low.value is not None and piece.high.value is not None and piece.low.value > piece.high.value:
                raise Unreadable("ends out of order")
            if piece.low.value is not None and not _holds_something(piece):
                raise Unreadable("no interval, but a point of the plane")  # else the empty set would say (4, 4)
            return [piece]
    raise Unreadable("no set")


def _from_relation(signs: list[str], sides: list[str]) -> list[Piece]:
    if signs[0] in (">", ">="):
        signs, sides = [FLIPPED[sign] for sign in signs[::-1]], sides[::-1]
    if signs in (["!="], ["="]):
        if not _NAME.fullmatch(sides[0]):
            raise Unreadable("no bare variable")
        points = [_point(part) for part in split_list(sides[1])]
        return _merged(points) if signs == ["="] else _complement(_merged(points))
    if any(sign not in ("<", "<=") for sign in signs):
        raise Unreadable("mixed relation")
    if len(signs) == 2 and _NAME.fullmatch(sides[1]):
        return [Piece(_end(sides[0], signs[0] == "<="), _end(sides[2], signs[1] == "<="))]
    if len(signs) == 1 and _NAME.fullmatch(sides[0]):
        return [Piece(_OPEN_END, _end(sides[1], signs[0] == "<="))]
    if len(signs) == 1 and _NAME.fullmatch(sides[1]):
        return [Piece(_end(sides[0], signs[0] == "<="), _OPEN_END)]
    raise Unreadable("no bare variable")


def _end(text: str, closed: bool) -> Bound:
    if text.replace(" ", "").lstrip("+-") in ("\\infty", "infinity", "oo", "inf"):
        return _OPEN_END
    tree = parse(text)
    if names_of(tree):
        raise Unreadable("a letter in an endpoint")
    value = approximate(tree)
    if value is None:
        raise Unreadable("no real endpoint")
    return Bound(tree, value, closed)


def _point(text: str) -> Piece:
    bound = _end(text, True)
    if bound.value is None:
        raise Unreadable("infinity is no element")
    return Piece(bound, bound)


def _same_end(first: Bound, second: Bound, ends_count: bool) -> bool:
    if first.tree is None or second.tree is None:
        return first.tree is second.tree
    return (first.closed == second.closed or not ends_count) and same_value(first.tree, second.tree)


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Sorted, and joined where they overlap or touch."""
    if len(pieces) > MAX_PIECES:
        raise TooComplex("too many pieces")
    kept: list[Piece] = []
    for piece in sorted(filter(_holds_something, pieces), key=_low_key):
        if kept and _touch(kept[-1].high, piece.low):
            if _high_key(piece) > _high_key(kept[-1]):
                kept[-1] = Piece(kept[-1].low, piece.high)
        else:
            kept.append(piece)
    return kept


def _touch(high: Bound, low: Bound) -> bool:
    if high.value is None or low.value is None:
        return True
    return bool(low.value < high.value) or (bool(low.value == high.value) and (low.closed or high.closed))


def _meet(first: list[Piece], second: list[Piece]) -> list[Piece]:
    pieces = [Piece(max(a.low, b.low, key=_low_of), min(a.high, b.high, key=_high_of)) for a in first for b in second]
    return _merged(pieces)


def _complement(pieces: list[Piece]) -> list[Piece]:
    gaps: list[Piece] = []
    low = _OPEN_END
    for piece in pieces:
        if piece.low.tree is not None:
            gaps.append(Piece(low, Bound(piece.low.tree, piece.low.value, not piece.low.closed)))
        if piece.high.tree is None:
            return gaps
        low = Bound(piece.high.tree, piece.high.value, not piece.high.closed)
    return [*gaps, Piece(low, _OPEN_END)]


def _holds_something(piece: Piece) -> bool:
    low, high = piece.low, piece.high
    if low.value is None or high.value is None:
        return True
    return bool(low.value < high.value) or (bool(low.value == high.value) and low.closed and high.closed)


def _low_of(bound: Bound) -> tuple[bool, Any, bool]:
    return (bound.value is not None, bound.value if bound.value is not None else 0, not bound.closed)


def _high_of(bound: Bound) -> tuple[bool, Any, bool]:
    return (bound.value is None, bound.value if bound.value is not None else 0, bound.closed)


def _low_key(piece: Piece) -> tuple[bool, Any, bool]:
    return _low_of(piece.low)


def _high_key(piece: Piece) -> tuple[bool, Any, bool]:
    return _high_of(piece.high)
