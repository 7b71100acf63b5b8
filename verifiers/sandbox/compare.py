"""Whether a result is the expected one. Both are canonical messages (`inside.codec`), so nothing of the result's runs.

Without a tolerance two results are the same if their bytes are. With one, floats (and an int beside a float, under the
rules that take them as alike) may differ by it, absolutely or relative to the larger; keys of dicts and members of
sets must be the same. NaN is NaN. Infinities are only themselves.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from verifiers.sandbox.inside import codec
from verifiers.sandbox.problem import EXACT_OUTPUT, NUMBERS

_LENGTH = struct.Struct(">I")
_SPACE_BEFORE_BREAK = re.compile(rb"[ \t\r\f\v]+(?=\n|\Z)")


def same_result(expected: bytes, found: bytes, types: str = codec.EXACT, tolerance: float = 0.0) -> bool:
    """Whether two canonical messages stand for the same value."""
    if expected == found or not tolerance:
        return expected == found
    return _close(_tree(expected, 0)[0], _tree(found, 0)[0], types, tolerance)


def same_output(expected: bytes, found: bytes, how: str) -> bool:
    """Whether two standard outputs are the same: `exact` to the byte; `lines` but for blanks at the end of a line and
    blank lines at the end; `numbers` word for word, where two numbers may differ by 1e-6, absolutely or relatively."""
    if how == EXACT_OUTPUT:
        return expected == found
    if how == NUMBERS:
        ours, theirs = expected.split(), found.split()
        return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))
    return _SPACE_BEFORE_BREAK.sub(b"", expected).rstrip(b"\n") == _SPACE_BEFORE_BREAK.sub(b"", found).rstrip(b"\n")


def _same_word(expected: bytes, found: bytes) -> bool:
    if expected == found:
        return True
    try:
        return len(found) < 400 and _near(float(expected), float(found), 1e-6)
    except ValueError:
        return False


def _tree(data: bytes, at: int) -> tuple[tuple[bytes, Any], int]:
    """A canonical message as nested pairs of tag and content; no content is hashed."""
    tag = data[at : at + 1]
    at += 1
    if tag in b"NTF":
        return (tag, None), at
    if tag == b"f":
        return (tag, struct.unpack_from(">d", data, at)[0]), at + 8
    if tag == b"c":
        return (tag, struct.unpack_from(">dd", data, at)), at + 16
    size = _LENGTH.unpack_from(data, at)[0]
    at += 4
    if tag == b"i":
        return (tag, int.from_bytes(data[at : at + size], "big", signed=True)), at + size
    if tag in b"sb":
        return (tag, data[at : at + size]), at + size
    members = []
    for _ in range(2 * size if tag == b"d" else size):
        member, at = _tree(data, at)
        members.append(member)
    return (tag, members), at


def _close(expected: tuple[bytes, Any], found: tuple[bytes, Any], types: str, tolerance: float) -> bool:
    (tag, ours), (other, theirs) = expected, found
    if tag in b"if" and other in b"if" and (tag == other == b"f" or (types != codec.EXACT and b"f" in (tag, other))):
        return _near(ours, theirs, tolerance)
    if tag != other:
        return False
    if tag == b"c":
        return _near(ours[0], theirs[0], tolerance) and _near(ours[1], theirs[1], tolerance)
    if tag not in b"ltd":
        return bool(ours == theirs)
    if len(ours) != len(theirs):
        return False
    if tag == b"d":
        same_keys = ours[::2] == theirs[::2]
        return same_keys and all(_close(a, b, types, tolerance) for a, b in zip(ours[1::2], theirs[1::2], strict=True))
    return all(_close(a, b, types, tolerance) for a, b in zip(ours, theirs, strict=True))


def _near(expected: float, found: float, tolerance: float) -> bool:
    if expected != expected or found != found:
        return expected != expected and found != found
    try:
        return math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int that no float holds
        return expected == found
