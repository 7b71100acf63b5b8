"""Python files that are mostly one kind of statement: imports, assertions, prints, `pass`, one-line signatures.

Published (OpenCoder arXiv 2411.04905, `code_filter_config.py`): of the lines of code at most 30% hold `import`, 5%
`pass`, 40% `assert`, 40% `print`, and the functions are at most 20% of the lines.

Departures: a line counts where it begins with the statement; OpenCoder looks for the word anywhere in it (`pass` is in
`password`). The 5% of `pass` is raised to 10%: exception hierarchies and abstract classes of the standard library pass
more often. The 20% of functions is raised to 35%: it drops modules of short methods (wrappers, operator overloads).
Tables written as Python (`mostly_literals`) are ours: lines that begin with a quote, digit or bracket.
Files of fewer than `min_lines` lines of code are not judged: among ten lines one import more is a tenth.
"""

from __future__ import annotations

import re
from collections import Counter

from pydantic import Field, NonNegativeInt

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = (
    "mostly_imports", "mostly_pass", "mostly_assertions", "mostly_prints", "mostly_signatures", "mostly_literals",
)  # fmt: skip

_LITERAL_STARTS = "\"'0123456789[]{}(),-."
_STATEMENT = re.compile(r"\n[ \t]*+(import|from|pass|assert|self\.assert|print|def|async def)\b")


class Settings(Frozen):
    """Thresholds, as shares of the lines that are neither blank nor comments."""

    min_lines: NonNegativeInt = Field(default=20, description="Lines of code below which nothing is judged.")
    max_imports: Fraction = Field(default=0.3, description="Lines that begin an import (OpenCoder 0.3).")
    max_pass: Fraction = Field(default=0.1, description="Lines that are `pass` (OpenCoder 0.05).")
    max_assertions: Fraction = Field(default=0.4, description="Lines that assert (OpenCoder 0.4).")
    max_prints: Fraction = Field(default=0.4, description="Lines that print (OpenCoder 0.4).")
    max_literals: Fraction = Field(default=0.8, description="Lines that begin a literal or close a bracket (ours).")
    max_signatures: Fraction = Field(default=0.35, description="Lines that begin a function (OpenCoder 0.2).")


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The statement that there is too much of, or None; other languages than Python are let through."""
    if statistics.language != "python":
        return None
    found = Counter(_STATEMENT.findall("\n" + statistics.text))
    first = Counter(line[:1] for line in statistics.stripped)
    lines = len(statistics.lines) - first[""] - first["#"]
    if lines < settings.min_lines:
        return None
    if sum(first[character] for character in _LITERAL_STARTS) > settings.max_literals * lines:
        return "mostly_literals"
    shares = (
        ("mostly_imports", found["import"] + found["from"], settings.max_imports),
        ("mostly_pass", found["pass"], settings.max_pass),
        ("mostly_assertions", found["assert"] + found["self.assert"], settings.max_assertions),
        ("mostly_prints", found["print"], settings.max_prints),
        ("mostly_signatures", found["def"] + found["async def"], settings.max_signatures),
    )
    return next((reason for reason, count, most in shares if count > most * lines), None)
