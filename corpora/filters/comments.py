"""Code that is nearly all comment, or has none, or consists of placeholders and strings.

Published: comments and documentation strings are at least 1% and at most 80% of a file (SantaCoder section 4.1,
StarCoder; bigcode-dataset `arguments.py`; OpenCoder has the 80%); strings are at most 60% of what is left (OpenCoder
`quality_signals/code.py`).

Departures: the 1% is off by default (0), because short and clear modules without a comment are among what is worth
learning from; set `min_comments: 0.01` for the published rule. The 80% is raised to 90%: it drops the best documented
modules of numpy and networkx, whose text is mostly what the functions mean. OpenCoder drops files in which more than
1% of the lines say `todo` or `fixme`, which is most maintained code; ours drops a file only when its code is nothing
but placeholders. Strings of fewer than 1,000 characters in all are not judged. Files for which the way of writing
comments is not known are let through.
"""

from __future__ import annotations

import re

from pydantic import Field

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("too_few_comments", "too_many_comments", "mostly_strings", "todo_only")

MIN_STRINGS = 1000
"""Characters in strings below which a small file with one long message is not judged by their share."""

_PLACEHOLDER = re.compile(
    r"(?:pass|\.\.\.|[{}()\[\];]+|raise NotImplementedError\b.*|return(?: None| null| 0)?;?|throw new \w*Error\(.*|"
    r"(?:async )?def .*:|class .*:|@.*|(?:import|from|using|package|#include) .*|)\s*"
    r"(?:(?:#|//).*)?"
)
_TODO = re.compile(r"todo|fixme|your code here|implement me|not implemented", re.IGNORECASE)


class Settings(Frozen):
    """Thresholds."""

    min_comments: Fraction = Field(default=0.0, description="Comments of all characters (published: 0.01).")
    max_comments: Fraction = Field(default=0.9, description="Comments of all characters (published: 0.8).")
    max_strings: Fraction = Field(
        default=0.6, description="Strings of the characters outside comments (OpenCoder 0.6)."
    )


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that comments and strings break, or None."""
    marks = statistics.marks
    if marks is None:
        return None
    comments = marks.comments + marks.docstrings
    total = len(statistics.text)
    if comments < settings.min_comments * total:
        return "too_few_comments"
    if comments > settings.max_comments * total:
        return "too_many_comments"
    if marks.strings > max(MIN_STRINGS, settings.max_strings * (total - comments)):
        return "mostly_strings"
    return "todo_only" if is_todo_only(statistics) else None


def is_todo_only(statistics: TextStatistics) -> bool:
    """Whether a file with a to-do note has no line of code but headers, imports and placeholders."""
    # Looking at the first lines first: a file with real code shows one within a few lines, and the rest is not read.
    for line in statistics.stripped:
        if line and line[0] not in "#/*\"'" and not _PLACEHOLDER.fullmatch(line):
            return False
    return bool(statistics.stripped) and _TODO.search(statistics.text) is not None
