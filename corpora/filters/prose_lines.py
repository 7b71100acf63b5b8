"""Pages of the web that are not running text: C4's rules, judged for the whole page, and FineWeb's of its lines.

Published (Raffel et al. 2020, JMLR 21, section 2.2): keep lines that end in a terminal mark and have three words; drop
pages with fewer than five sentences (three in the code), with `lorem ipsum`, with a curly bracket; drop lines that
name JavaScript or a cookie policy. FineWeb (arXiv 2406.17557): drop where at most 12% of lines end in a terminal mark,
where at least 67% have fewer than 31 characters.

Departures: nothing is cut out of a page, because what is left of one is not what anybody wrote: a page is dropped when
too large a share of it is what C4 would cut. **A curly bracket drops nothing**: it dropped every page with LaTeX from
FineWeb, unseen (FineMath's authors found it). FineWeb's rule of repeated characters is Gopher's (`repetition`).
"""

from __future__ import annotations

import re

from pydantic import Field, NonNegativeInt

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("lorem_ipsum", "too_few_sentences", "few_lines_end_sentences", "mostly_short_lines", "mostly_policy_notices")

_SENTENCE_END = re.compile(r"[.!?][\"')\]”’]{0,3}(?=\s|$)")
_LINE_ENDS = (".", "?", "!", '"', "'", "”", "’", ":", "$", ")")
"""Terminal marks of C4, with those that end a line before a formula or a list."""
_NOTICES = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip


class Settings(Frozen):
    """Thresholds."""

    min_sentences: NonNegativeInt = Field(default=3, description="Fewest sentence ends (C4: 5 in the paper, 3 in use).")
    min_ended_lines: Fraction = Field(default=0.12, description="Lines that end in a terminal mark (FineWeb 0.12).")
    short_line: NonNegativeInt = Field(default=30, description="Characters up to which a line is short (FineWeb 30).")
    max_short_lines: Fraction = Field(default=0.67, description="Short lines of all not blank (FineWeb 0.67).")
    max_notice_lines: Fraction = Field(
        default=0.1, description="Lines about cookies, terms of use and JavaScript (C4 cuts each; a guess)."
    )


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that the page breaks, or None."""
    lower = statistics.lower
    if "lorem ipsum" in lower:
        return "lorem_ipsum"
    if settings.min_sentences and not _has_sentences(statistics.text, settings.min_sentences):
        return "too_few_sentences"
    lines = [line for line in statistics.stripped if line]
    if sum(1 for line in lines if line.endswith(_LINE_ENDS)) < settings.min_ended_lines * len(lines):
        return "few_lines_end_sentences"
    if sum(1 for line in lines if len(line) <= settings.short_line) > settings.max_short_lines * len(lines):
        return "mostly_short_lines"
    if any(notice in lower for notice in _NOTICES):
        notices = sum(1 for line in lines if any(notice in line.lower() for notice in _NOTICES))
        if notices > settings.max_notice_lines * len(lines):
            return "mostly_policy_notices"
    return None


def _has_sentences(text: str, num: int) -> bool:
    return any(i >= num for i, _ in enumerate(_SENTENCE_END.finditer(text), start=1))
