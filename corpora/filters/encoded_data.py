"""Files that carry encoded data: base64, runs of hexadecimal bytes, runs of escapes.

Published (StarCoder2 arXiv 2402.19173 section 3.1; the same in OpenCoder): drop a file where a match of one of three
patterns is longer than 1,024 characters, or where the matches are more than half of it.

Departures: the published base64 pattern admits line feeds, so that a list of words matches it; ours needs 64
characters on a line before it goes on in the next one, and at least nine different ones among them, or every ruler of
equal signs is data. The published hexadecimal pattern can take quadratic time and loses the first byte of `\\x48\\x31`;
ours wants `0x` or `\\x` before each byte, or bytes that stand apart (`48 31 c0`).
"""

from __future__ import annotations

import re

from pydantic import Field, PositiveInt

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("long_encoded_data", "mostly_encoded_data")

MIN_DIFFERENT = 9
"""Different characters that make a long run data rather than a ruler."""

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{64,}+(?:\n[A-Za-z0-9+/=]{64,}+)*+")
_HEX_MARKED = re.compile(r"(?:(?:0[xX]|\\x)[0-9a-fA-F]{2}(?![0-9a-fA-F])[,\s]*+){8,}+")
_HEX_APART = re.compile(r"(?<!\S)(?:[0-9a-fA-F]{2}[ \n]++){8,}+")
# Whether a pattern is worth running is told by a literal in a copy of the text that keeps only kinds of bytes: base64
# as b, or hexadecimal digits as h and spaces as such. Both steps run at the speed of memory.
_BASE64_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_AS_BASE64 = bytes(ord("b") if i in _BASE64_BYTES else ord("x") for i in range(256))
_LONG_BASE64 = b"b" * 64
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_AS_HEX = bytes(ord("h") if i in _HEX_DIGITS else ord(" ") if i in b" \n" else ord("x") for i in range(256))
_PAIRS_APART = b" hh" * 7
_UNICODE = re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}+")


class Settings(Frozen):
    """Thresholds; the defaults are the published ones."""

    max_run: PositiveInt = Field(default=1024, description="Characters in one run of encoded data.")
    max_fraction: Fraction = Field(default=0.5, description="Share of the file in such runs.")


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """Whether one run is too long, or all of them are too much."""
    lengths = [end - start for start, end in encoded_runs(statistics)]
    if not lengths:
        return None
    if max(lengths) > settings.max_run:
        return "long_encoded_data"
    return "mostly_encoded_data" if sum(lengths) > settings.max_fraction * len(statistics.text) else None


def encoded_runs(statistics: TextStatistics) -> list[tuple[int, int]]:
    """Where the runs of encoded data begin and end, in characters."""
    text = statistics.text
    found = []
    if _LONG_BASE64 in statistics.encoded.translate(_AS_BASE64):
        found += [match.span() for match in _BASE64.finditer(text) if len(set(match.group())) >= MIN_DIFFERENT]
    if "\\x" in text or "0x" in text or "0X" in text:
        found += [match.span() for match in _HEX_MARKED.finditer(text)]
    if _PAIRS_APART in statistics.encoded.translate(_AS_HEX):
        found += [match.span() for match in _HEX_APART.finditer(text)]
    if "\\u" in text:
        found += [match.span() for match in _UNICODE.finditer(text)]
    return found
