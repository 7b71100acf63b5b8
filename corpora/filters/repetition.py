"""Prose that repeats itself: Gopher's repetition rules.

Published (Rae et al. 2021, arXiv 2112.11446, table A1): at most 30% of lines and of paragraphs that came before, with
20% of the characters; the most frequent run of 2, 3, 4 words has at most 20%, 18%, 16% of the characters; runs of 5 to
10 words that came before have at most 15%, 14%, 13%, 12%, 11%, 10%.

Departures: words are runs of characters between white space, in lower case, and their lengths are counted with one
space between two; the share is one of the words' characters, not of the text's. A run of 2, 3 or 4 words counts as
frequent when it stands there three times at least: in a text of fifty words two mentions of one name are no
repetition. Characters that several repeated runs share are counted once.
"""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from configs.settings.common import Fraction, Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("repeated_prose_lines", "repeated_paragraphs", "frequent_run_of_words", "repeated_runs_of_words")

MIN_FREQUENT = 3
"""Times that a run of words stands in a text before it can be called frequent."""


class Settings(Frozen):
    """Thresholds; the defaults are the published ones."""

    max_lines: Fraction = Field(default=0.3, description="Lines that came before, of those not blank.")
    max_line_characters: Fraction = Field(default=0.2, description="Characters in lines that came before.")
    max_paragraphs: Fraction = Field(default=0.3, description="Paragraphs that came before.")
    max_paragraph_characters: Fraction = Field(default=0.2, description="Characters in paragraphs that came before.")
    max_frequent: tuple[Fraction, ...] = Field(
        default=(0.2, 0.18, 0.16), description="Characters in the most frequent run of 2, 3, 4 words."
    )
    max_repeated: tuple[Fraction, ...] = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10), description="Characters in repeated runs of 5, 6, ... 10 words."
    )


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first kind of repetition that is too much, or None."""
    total = max(len(statistics.text), 1)
    lines = [line for line in statistics.stripped if line]
    count, characters = _came_before(lines)
    if count > settings.max_lines * len(lines) or characters > settings.max_line_characters * total:
        return "repeated_prose_lines"
    paragraphs = [part for part in statistics.text.split("\n\n") if part.strip()]
    count, characters = _came_before(paragraphs)
    if count > settings.max_paragraphs * len(paragraphs) or characters > settings.max_paragraph_characters * total:
        return "repeated_paragraphs"
    words = statistics.lower.split()
    in_words = max(sum(map(len, words)) + len(words) - 1, 1)
    for n, most in enumerate(settings.max_frequent, start=2):
        if frequent_characters(words, n) > most * in_words:
            return "frequent_run_of_words"
    shortest = 5
    if not _any_repeat(words, shortest):  # a longer run that repeats holds a shorter one that does
        return None
    for n, most in enumerate(settings.max_repeated, start=shortest):
        if repeated_characters(words, n) > most * in_words:
            return "repeated_runs_of_words"
    return None


def frequent_characters(words: list[str], n: int) -> int:
    """Characters that the most frequent run of n words covers; 0 where none stands there `MIN_FREQUENT` times."""
    if len(words) < n:
        return 0
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    most = max(counts.values())
    if most < MIN_FREQUENT:
        return 0
    return max(sum(map(len, run)) + n - 1 for run, count in counts.items() if count == most) * most


def repeated_characters(words: list[str], n: int) -> int:
    """Characters of the words that lie in a run of n words which came before, each counted once."""
    seen: set[tuple[str, ...]] = set()
    covered = 0  # words up to here are counted
    total = 0
    for i, run in enumerate(zip(*(words[k:] for k in range(n)), strict=False)):
        if run in seen:
            total += sum(len(word) + 1 for word in words[max(i, covered) : i + n])
            covered = i + n
        else:
            seen.add(run)
    return total


def _any_repeat(words: list[str], n: int) -> bool:
    runs = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(runs)) < len(runs)


def _came_before(parts: list[str]) -> tuple[int, int]:
    """How many parts came before in the list, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    counts = Counter(parts)
    return len(parts) - len(counts), sum((count - 1) * len(part) for part, count in counts.items())
