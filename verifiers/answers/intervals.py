"""Inequalities in one variable as intervals, so that `3 < x \\le 4` can be compared with `(3, 4]`.

Set-builder notation (`\\{x | -1 < x < 1\\}`) is opened, and `or` between inequalities becomes a union.

What this does not do: it solves nothing; a side must be the bare variable, and two inequalities that belong together
must be written as a chain.
"""

from __future__ import annotations

import re

RELATION = re.compile(r"\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|<=|>=|[<>=]|\\lt(?![a-z])|\\gt(?![a-z])")
CANONICAL = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\lt": "<", "\\gt": ">"}
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}

_NAME = re.compile(r"\\?[A-Za-z]+")
_BUILDER = re.compile(
    r"\\\{\s*\\?[A-Za-z]+(?:\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?)?\s*(?:\\mid(?![a-z])|\||:)(.+)\\\}", re.DOTALL)
_BETWEEN = re.compile(r"\\cup(?![a-z])|\bor\b")


def relation(text: str) -> tuple[list[str], list[str]]:
    """The relation signs of a text in one spelling, and what stands between them."""
    signs = [CANONICAL.get(sign, sign) for sign in RELATION.findall(text)]
    return signs, [side.strip() for side in RELATION.split(text)]


def as_intervals(text: str) -> list[str] | None:
    """The intervals that a union or some inequalities stand for; None where a part is neither."""
    builder = _BUILDER.fullmatch(text)
    parts = [_as_interval(part.strip()) for part in _BETWEEN.split(builder[1].strip() if builder else text)]
    return None if None in parts else [part for part in parts if part is not None]


def is_inequality(text: str) -> bool:
    """Whether the text has a sign of order."""
    return any(sign in ("<", ">", "<=", ">=") for sign in relation(text)[0])


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
