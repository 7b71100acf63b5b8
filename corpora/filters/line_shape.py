"""Files whose lines say that they are data, minified code, or next to nothing.

Published: at most 1,000 characters in a line and 100 on average (SantaCoder arXiv 2301.03988 section 4.1, StarCoder
arXiv 2305.06161, DeepSeek-Coder arXiv 2401.14196; the defaults of bigcode-dataset's `preprocessing/arguments.py`);
at most 100,000 lines, and only a longest line of 100,000 characters for languages of prose and data (StarCoder2 arXiv
2402.19173 section 3.1); at least 10 lines, 50 characters, 30 words, a mean line of 5 characters, at most 3 MB and at
most 70% of lines that stand in the file more than once (OpenCoder arXiv 2411.04905, `code_filter_config.py`).

Departures: a line repeated counts only where it holds a letter or digit (closing brackets repeat in all code; OpenCoder
excepts single characters and `},`), and the 70% is raised to 87%: below that stands code with an asynchronous twin of
every function, and with long argument lists of one argument a line (of 28 files of packages above 80% 11 are good
code, all of them below 87%); the ten lines are of any kind, as there.
"""

from __future__ import annotations

from collections import Counter

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.settings.common import Fraction, Frozen, NonNegativeFloat
from corpora.filters.statistics import TextStatistics

EXEMPT = frozenset({
    "html", "json", "markdown", "roff", "tex", "text", "xml", "restructuredtext", "csv", "jupyter-notebook",
})  # fmt: skip
"""Languages in which a paragraph or a record is one line."""

REASONS = (
    "too_few_characters", "too_few_words", "too_few_lines", "too_many_bytes", "too_many_lines", "line_too_long",
    "mean_line_too_long", "mean_line_too_short", "repeated_lines",
)  # fmt: skip


class Settings(Frozen):
    """Thresholds; the defaults are the published ones."""

    min_characters: NonNegativeInt = Field(default=50, description="Fewest characters in a file (OpenCoder 50).")
    min_words: NonNegativeInt = Field(default=30, description="Fewest runs of non-space characters (OpenCoder 30).")
    min_lines: NonNegativeInt = Field(default=10, description="Fewest lines (OpenCoder 10).")
    max_lines: PositiveInt = Field(default=100_000, description="Most lines (StarCoder2 and OpenCoder 100,000).")
    max_bytes: PositiveInt = Field(default=3_000_000, description="Most bytes in UTF-8 (OpenCoder 3 MB).")
    max_line: PositiveInt = Field(default=1000, description="Characters in the longest line (StarCoder 1,000).")
    max_exempt_line: PositiveInt = Field(
        default=100_000, description="The same for languages of prose and data (StarCoder2 100,000)."
    )
    max_mean_line: NonNegativeFloat = Field(default=100.0, description="Mean characters in a line (StarCoder 100).")
    min_mean_line: NonNegativeFloat = Field(default=5.0, description="Mean characters in a line (OpenCoder 5).")
    max_repeated_lines: Fraction = Field(
        default=0.87, description="Share of the non-empty lines that stand in the file more than once (OpenCoder: 0.7)."
    )


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that the lines break, or None."""
    text = statistics.text
    if len(text) < settings.min_characters:
        return "too_few_characters"
    if len(statistics.encoded) > settings.max_bytes:
        return "too_many_bytes"
    if len(text) < 100 * settings.min_words and len(statistics.words) < settings.min_words:
        return "too_few_words"
    num_lines = len(statistics.lines)
    if num_lines < settings.min_lines:
        return "too_few_lines"
    if num_lines > settings.max_lines:
        return "too_many_lines"
    exempt = statistics.language in EXEMPT
    if statistics.longest_line > (settings.max_exempt_line if exempt else settings.max_line):
        return "line_too_long"
    if not exempt and statistics.mean_line > settings.max_mean_line:
        return "mean_line_too_long"
    if statistics.mean_line < settings.min_mean_line:
        return "mean_line_too_short"
    return "repeated_lines" if repeated_lines(statistics.stripped) > settings.max_repeated_lines else None


def repeated_lines(stripped: list[str]) -> float:
    """Share of the lines that hold a letter or digit and stand there more than once, of all that are not blank.

    At most what is said: where few lines repeat at all, an upper bound is returned in place of a count.

    >>> repeated_lines(["a = 1", "a = 1", "}", "}", ""])
    0.5
    """
    num_blank = stripped.count("")
    total = len(stripped) - num_blank
    surplus = total - (len(set(stripped)) - (num_blank > 0))
    # k different lines that repeat are at least 2k lines, so that twice the surplus bounds their number.
    if not total or 2 * surplus < total / 2:
        return 2 * surplus / max(total, 1)
    repeated = sum(count for line, count in Counter(stripped).items() if count > 1 and any(map(str.isalnum, line)))
    return repeated / total
