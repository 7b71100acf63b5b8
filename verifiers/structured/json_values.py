"""JSON read strictly, and compared by value.

Reading refuses what JSON (RFC 8259) forbids or leaves open: NaN and Infinity, two members of one name, text behind the
document; and what is too large: see the constants. A number is an int where its value is whole, else a Fraction: `1.0`
is `1`, `0.10` is `0.1`, and `0.1` is a tenth. Texts and names are brought to Unicode's form NFC, where one text has one
spelling; nothing else of them is folded: case and spaces count.

Two values are equal when kind and value are: `1` is not `true`, `null` is not an absent member. Members may stand in
any order. Elements keep theirs, except in the arrays that a task calls free: those are equal as multisets.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NoReturn

MAX_TEXT = 1_000_000
"""Characters of a document."""
MAX_DEPTH = 64
"""Objects and arrays inside one another."""
MAX_DIGITS = 1_000
"""Digits of a number."""
MAX_EXPONENT = 400
"""Power of ten of a number."""

Value = None | bool | int | Fraction | str | list["Value"] | dict[str, "Value"]
Paths = tuple[tuple[str, ...], ...] | None
"""Arrays whose elements may stand in any order, by their path; None is all of them."""

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class Unreadable(ValueError):
    """A text that is no document we read. `reason` says why, in snake_case words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_json(text: str) -> Value:
    """The value of a text that is one JSON document.

    Raises:
        Unreadable: with one of `no_document`, `too_long`, `too_deep`, `not_json`, `trailing_text`, `duplicate_key`,
            `not_a_number`, `number_out_of_range`.
    """
    text = text.strip(" \t\r\n\ufeff")
    if not text:
        raise Unreadable("no_document")
    if len(text) > MAX_TEXT:
        raise Unreadable("too_long")
    if _depth(text) > MAX_DEPTH:
        raise Unreadable("too_deep")
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable("not_json") from error
    except RecursionError as error:
        raise Unreadable("too_deep") from error
    if text[end:].strip():
        raise Unreadable("trailing_text")
    return value if text.isascii() and "\\" not in text else normalised(value)


def normalised(value: Any) -> Value:
    """A value with its texts in form NFC and its floats as the decimals that they are written as.

    Raises:
        Unreadable: Two names become one, a number has no value, or it is no JSON.
    """
    if value is None or isinstance(value, (bool, int, Fraction)):
        return value
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float):
        return _decimal(repr(value)) if value - value == 0 else _constant(str(value))
    if isinstance(value, (list, tuple)):
        return [normalised(element) for element in value]
    if isinstance(value, Mapping):
        found = {unicodedata.normalize("NFC", str(name)): normalised(member) for name, member in value.items()}
        if len(found) < len(value):
            raise Unreadable("duplicate_key")
        return found
    raise Unreadable(f"not_json: {type(value).__name__}")


def read_order(given: Any) -> Paths:
    """Which arrays are free, from a task's `order`: absent or `fixed` (none), `free` (all), or an object from paths to
    `free` or `fixed`. A path is a JSON pointer (RFC 6901), in which `*` stands for any one name or place; the empty
    path is the document itself.

    >>> read_order({"/items": "free", "/items/*/tags": "free"})
    (('items',), ('items', '*', 'tags'))

    Raises:
        Unreadable: It is anything else.
    """
    if given is None or given == "fixed":
        return ()
    if given == "free":
        return None
    if not isinstance(given, Mapping) or any(order not in ("free", "fixed") for order in given.values()):
        raise Unreadable("order")
    if any(not isinstance(path, str) or (path and not path.startswith("/")) for path in given):
        raise Unreadable("order")
    return tuple(_segments(path) for path, order in given.items() if order == "free")


def canonical(value: Value, free: Paths = ()) -> str:
    """A text that two values share exactly when they are equal."""
    if isinstance(value, dict):
        members = (f"{_text(name)}:{canonical(value[name], _below(free, name))}" for name in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        parts = [canonical(element, _below(free, str(place))) for place, element in enumerate(value)]
        return "[" + ",".join(sorted(parts) if _is_free(free) else parts) + "]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def agreement(gold: Value, found: Value, free: Paths = ()) -> float:
    """Share of the gold value's leaves that stand at the same place in the other, in [0, 1].

    A leaf is a text, number, truth value, null, or an empty object or array. Leaves too many lower the share: it is of
    the larger of the two numbers of leaves. In a free array an element counts where an equal one is there.
    """
    return _shared(gold, found, free) / max(num_leaves(gold), num_leaves(found))


def num_leaves(value: Value) -> int:
    """How many leaves a value has; at least 1."""
    if isinstance(value, dict):
        return sum(map(num_leaves, value.values())) or 1
    if isinstance(value, list):
        return sum(map(num_leaves, value)) or 1
    return 1


def first_difference(gold: Value, found: Value, free: Paths = (), path: str = "") -> str:
    """The path of the first place, in the gold value's order, where the other differs; empty for the root."""
    if isinstance(gold, dict) and isinstance(found, dict):
        for name in [*gold, *(name for name in found if name not in gold)]:
            here, below = f"{path}/{_escaped(name)}", _below(free, name)
            if name not in gold or name not in found:
                return here
            if canonical(gold[name], below) != canonical(found[name], below):
                return first_difference(gold[name], found[name], below, here)
    if isinstance(gold, list) and isinstance(found, list) and not _is_free(free):
        for place in range(max(len(gold), len(found))):
            here, below = f"{path}/{place}", _below(free, str(place))
            if place >= len(gold) or place >= len(found):
                return here
            if canonical(gold[place], below) != canonical(found[place], below):
                return first_difference(gold[place], found[place], below, here)
    return path


def _shared(gold: Value, found: Value, free: Paths) -> int:
    if isinstance(gold, dict) and isinstance(found, dict) and gold and found:
        return sum(_shared(gold[name], found[name], _below(free, name)) for name in gold if name in found)
    if isinstance(gold, list) and isinstance(found, list) and gold and found:
        below = [_below(free, str(place)) for place in range(max(len(gold), len(found)))]
        if not _is_free(free):
            return sum(_shared(one, other, paths) for one, other, paths in zip(gold, found, below, strict=False))
        left = Counter(canonical(element, paths) for element, paths in zip(found, below, strict=False))
        right = 0
        for element, paths in zip(gold, below, strict=False):
            key = canonical(element, paths)
            if left[key] > 0:
                left[key] -= 1
                right += num_leaves(element)
        return right
    return int(canonical(gold, free) == canonical(found, free)) * num_leaves(gold)


def _depth(text: str) -> int:
    """How deep the brackets of a text go, those inside of strings left out; stops where it is too much."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        first = match[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > deepest:
            deepest = depth
            if deepest > MAX_DEPTH:
                break
    return deepest


def _whole(numeral: str) -> int:
    if len(numeral) > MAX_DIGITS:
        raise Unreadable("number_out_of_range")
    return int(numeral)


def _decimal(numeral: str) -> int | Fraction:
    digits, _, power = numeral.lower().partition("e")
    if len(digits) > MAX_DIGITS or len(power) > MAX_DIGITS or abs(int(power or 0)) > MAX_EXPONENT:
        raise Unreadable("number_out_of_range")
    value = Fraction(numeral)
    return value.numerator if value.denominator == 1 else value


def _constant(name: str) -> NoReturn:
    raise Unreadable("not_a_number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("duplicate_key")
    return found


def _is_free(free: Paths) -> bool:
    return free is None or () in free


def _below(free: Paths, name: str) -> Paths:
    return free if not free else tuple(path[1:] for path in free if path and path[0] in ("*", name))


def _segments(path: str) -> tuple[str, ...]:
    parts = path.split("/")[1:]
    return tuple(unicodedata.normalize("NFC", part.replace("~1", "/").replace("~0", "~")) for part in parts)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _text(text: str) -> str:
    return json.dumps(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_whole, parse_constant=_constant
)
