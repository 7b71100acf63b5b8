"""Files with too few letters, or with too many digits, spaces or hexadecimal numbers: tables, dumps, drawings.

Published: at least 25% letters and digits (SantaCoder, StarCoder; bigcode-dataset `arguments.py`), at least 25%
letters (StarCoder2 section 3.1, DeepSeek-Coder); at least 50% letters among the visible characters, at most 20%
digits, at most 50% white space, at most 40% of the characters in words such as `0x1f` (OpenCoder,
`code_filter_config.py` and its `quality_signals/code.py`).

Departures: the share of digits is one of the visible characters, and their 20% is raised to 30%, OpenCoder's own value
for SQL: it drops numerical code with its coefficients and tests (mpmath, numpy). White space counts without the spaces
that indent a line, which measure nesting rather than emptiness: OpenCoder's 50% with them drops deeply indented code. A
letter is one by Unicode, so that comments in other scripts count. The 50% of letters is taken down to 40%: what lies
between the two in the standard library is dense but real code (tables of constants, operator overloads).
"""

from __future__ import annotations

import re

from pydantic import Field

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("too_few_alphanumeric", "too_few_letters", "too_many_digits", "too_much_space", "too_many_hex_words")

_HEX_WORD = re.compile(r"0[xX][0-9a-fA-F]++\b")  # begins with a literal, which makes the search fast
_INDENT = re.compile(r"^[ \t]+|(?<![ \t])[ \t]++(?=\\$)", re.MULTILINE)
"""Also what stands before the backslashes at the ends of the lines of a macro."""


class Settings(Frozen):
    """Thresholds."""

    min_alphanumeric: Fraction = Field(default=0.25, description="Letters and digits of all characters (StarCoder).")
    min_letters: Fraction = Field(default=0.4, description="Letters of the visible characters (OpenCoder: 0.5).")
    max_digits: Fraction = Field(default=0.3, description="Digits of the visible characters (OpenCoder: 0.2).")
    max_space: Fraction = Field(
        default=0.5, description="White space of all characters, indentation apart (OpenCoder 0.5, with it)."
    )
    max_hex_words: Fraction = Field(default=0.4, description="Characters in words like 0x1f (OpenCoder 0.4).")


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that the characters break, or None."""
    counts = statistics.characters
    visible = max(counts.total - counts.spaces, 1)
    if counts.letters + counts.digits < settings.min_alphanumeric * counts.total:
        return "too_few_alphanumeric"
    if counts.digits > settings.max_digits * visible:
        return "too_many_digits"
    if counts.letters < settings.min_letters * visible:
        return "too_few_letters"
    if counts.spaces > settings.max_space * counts.total:
        indent = sum(map(len, _INDENT.findall(statistics.text)))
        if counts.spaces - indent > settings.max_space * (counts.total - indent):
            return "too_much_space"
    if "0x" in statistics.text or "0X" in statistics.text:
        in_words = sum(map(len, _HEX_WORD.findall(statistics.text)))
        if in_words > settings.max_hex_words * counts.total:
            return "too_many_hex_words"
    return None
