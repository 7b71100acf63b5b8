"""Plain data as bytes: the only thing that crosses between a candidate and its judge.

Plain data is None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict, of exactly these types.
What equals them by construction is sent as them: Counter, OrderedDict and defaultdict as dict, a named tuple as tuple.

A value is one tag byte and its content; lengths and counts are four bytes, most significant first.

    N T F           None, True, False           s b         length, then UTF-8 (lone surrogates pass), or the bytes
    i               length, two's complement    l t S Z     count, then the members (list, tuple, set, frozenset)
    f c             8 or 16 bytes               d           count, then key and value in turn

The judge never builds a candidate's objects. It reads a message once with `canonical`, which checks bounds and form,
sorts the members of sets and dicts by their bytes, and gives bytes of which there is one for each value: two values are
the same if their bytes are. No hash of a candidate's choosing is ever taken. NaN is the same as NaN, and 0.0 as -0.0.

Departure from pickle and marshal: a message cannot name a class, call anything, refer to itself, or grow when read.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict
from typing import Any

MAX_BYTES = 8 * 2**20
"""Longest message."""
MAX_DEPTH = 64
"""Containers within one another."""
MAX_NODES = 300_000
"""Values in one message, containers included; reading that many takes about half a second."""

EXACT, PYTHON, JSON, AS_SENT = "exact", "python", "json", "as_sent"
RULES = (EXACT, PYTHON, JSON)
"""Which types count as alike. `exact`: none but the same. `python`: as `==` has it (True, 1 and 1.0; a set and a
frozenset). `json`: as python, and a tuple is a list. (AS_SENT is for passing a message on: checked, not changed.)"""

_LENGTH = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")
_NAN = _FLOAT.pack(float("nan"))
_DICTS = (dict, Counter, OrderedDict, defaultdict)
_SEQUENCES: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}


class NotPlainError(Exception):
    """A value that cannot cross; the message is the name of its type."""


class TooLargeError(Exception):
    """A value that is too long, too deep, or has too many parts."""


class MalformedError(Exception):
    """Bytes that are no message."""


def encode(value: Any) -> bytes:
    """The message for a value. Raises NotPlainError and TooLargeError."""
    out: list[bytes] = []
    _encode(value, out, 0)
    if len(out) > 2 * MAX_NODES or sum(map(len, out)) > MAX_BYTES:
        raise TooLargeError
    return b"".join(out)


def decode(data: bytes) -> Any:
    """The value of a message of our own. Never used by the judge on what a candidate sent. Raises MalformedError."""
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise MalformedError
    return value


def canonical(data: bytes, rule: str = EXACT) -> bytes:
    """The one form of a message under a rule of `RULES`. Raises MalformedError and TooLargeError; takes no hash."""
    if len(data) > MAX_BYTES:
        raise TooLargeError
    try:
        value, end = _Reader(data, rule).read(0, 0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise MalformedError from error
    if end != len(data):
        raise MalformedError
    return data if rule == AS_SENT else value


def _encode(value: Any, out: list[bytes], depth: int) -> None:
    kind = type(value)
    if value is None:
        out.append(b"N")
    elif kind is bool:
        out.append(b"T" if value else b"F")
    elif kind is int:
        out.append(_integer(value))
    elif kind is float:
        out.append(b"f" + _FLOAT.pack(value))
    elif kind is str:
        text = value.encode("utf-8", "surrogatepass")
        out.append(b"s" + _length(len(text)) + text)
    elif kind is bytes:
        out.append(b"b" + _length(len(value)) + value)
    elif kind is complex:
        out.append(b"c" + _COMPLEX.pack(value.real, value.imag))
    else:
        _encode_container(value, out, depth)


def _encode_container(value: Any, out: list[bytes], depth: int) -> None:
    kind = type(value)
    if depth >= MAX_DEPTH or len(out) > MAX_NODES:
        raise TooLargeError
    tag = _SEQUENCES.get(kind)
    if tag is None and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        tag = b"t"
    if tag is not None:
        members = list(value)
        out.append(tag + _length(len(members)))
        for member in members:
            _encode(member, out, depth + 1)
    elif kind in _DICTS:
        pairs = list(value.items())
        out.append(b"d" + _length(len(pairs)))
        for key, member in pairs:
            _encode(key, out, depth + 1)
            _encode(member, out, depth + 1)
    else:
        raise NotPlainError(kind.__name__)


def _length(number: int) -> bytes:
    if number > MAX_BYTES:
        raise TooLargeError
    return _LENGTH.pack(number)


def _integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"i" + _length(size) + value.to_bytes(size, "big", signed=True)


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    tag = data[at : at + 1]
    at += 1
    if tag in b"NTF" and tag:
        return {b"N": None, b"T": True, b"F": False}[tag], at
    if tag == b"f":
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if tag == b"c":
        return complex(*_COMPLEX.unpack_from(data, at)), at + 16
    if not tag or tag not in b"isbltSZd" or depth > MAX_DEPTH:
        raise MalformedError
    size = _LENGTH.unpack_from(data, at)[0]
    at += 4
    if tag in b"isb":
        content = data[at : at + size]
        at += size
        if tag == b"i":
            return int.from_bytes(content, "big", signed=True), at
        return (content.decode("utf-8", "surrogatepass") if tag == b"s" else content), at
    members = []
    for _ in range(2 * size if tag == b"d" else size):
        member, at = _decode(data, at, depth + 1)
        members.append(member)
    if tag == b"d":
        return dict(zip(members[::2], members[1::2], strict=True)), at
    return {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}[tag](members), at


class _Reader:
    """Reads one message into its canonical form."""

    def __init__(self, data: bytes, rule: str) -> None:
        self.data, self.rule, self.num_nodes = data, rule, 0
        self.keeps_types = rule in (EXACT, AS_SENT)

    def read(self, at: int, depth: int) -> tuple[bytes, int]:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise TooLargeError
        tag = self.data[at : at + 1]
        at += 1
        if tag == b"i" or tag == b"s" or tag == b"b":
            end = at + 4 + _LENGTH.unpack_from(self.data, at)[0]
            content = self.data[at + 4 : end]
            if end > len(self.data):
                raise MalformedError
            if tag == b"i":
                return _integer(int.from_bytes(content, "big", signed=True)), end
            if tag == b"s":
                content.decode("utf-8", "surrogatepass")
            return self.data[at - 1 : end], end
        if tag == b"N":
            return tag, at
        if tag == b"T" or tag == b"F":
            return (tag if self.keeps_types else _integer(int(tag == b"T"))), at
        if tag == b"f":
            return self._float(_FLOAT.unpack_from(self.data, at)[0]), at + 8
        if tag == b"c":
            real, imaginary = _COMPLEX.unpack_from(self.data, at)
            if not self.keeps_types and imaginary == 0:
                return self._float(real), at + 16
            return b"c" + _plain_float(real) + _plain_float(imaginary), at + 16
        return self._container(tag, at, depth)

    def _float(self, value: float) -> bytes:
        if not self.keeps_types and value.is_integer():
            return _integer(int(value))
        return b"f" + _plain_float(value)

    def _container(self, tag: bytes, at: int, depth: int) -> tuple[bytes, int]:
        if not tag or tag not in b"ltSZd":
            raise MalformedError
        if depth >= MAX_DEPTH:
            raise TooLargeError
        size = _LENGTH.unpack_from(self.data, at)[0]
        if size > MAX_NODES:
            raise TooLargeError
        at += 4
        parts: list[bytes] = []
        for _ in range(size):
            part, at = self.read(at, depth + 1)
            parts.append(part)
            if tag == b"d":
                part, at = self.read(at, depth + 1)
                parts.append(part)
        if self.rule == AS_SENT:
            return b"", at
        if tag == b"d":
            pairs = sorted(zip(parts[::2], parts[1::2], strict=True))
            if any(one[0] == other[0] for one, other in zip(pairs, pairs[1:], strict=False)):
                raise MalformedError  # no dict has a key twice
            parts = [part for pair in pairs for part in pair]
        elif tag in b"SZ":
            parts.sort()
            if any(one == other for one, other in zip(parts, parts[1:], strict=False)):
                raise MalformedError
        if not self.keeps_types and tag == b"Z":
            tag = b"S"
        if self.rule == JSON and tag == b"t":
            tag = b"l"
        return tag + _LENGTH.pack(size) + b"".join(parts), at


def _plain_float(value: float) -> bytes:
    if value != value:
        return _NAN
    return _FLOAT.pack(value + 0.0)  # -0.0 + 0.0 is 0.0
