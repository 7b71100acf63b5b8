"""Prose that is too short, too long, or whose words are not those of a text: Gopher's quality rules.

Published (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1): 50 to 100,000 words; a mean word of 3 to 10 characters;
at most one hash sign or ellipsis for ten words; at most 90% of lines that begin with a bullet and 30% that end with an
ellipsis; at least 80% of words that hold a letter; at least two of eight English stop words.

Departures: words are runs of characters between white space with the punctuation around them taken off (datatrove runs
nltk's tokeniser, at a hundredth of the speed); what is punctuation alone counts for no rule. A bullet is also `-`, `*`
and a number with a point. Stop words are counted in lower case, and are asked for only where the letters are mostly
Latin: the rule is about English, and would otherwise drop every other script by the way. Hash signs that open a
Markdown heading do not count.
"""

from __future__ import annotations

import re

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.settings.common import Fraction, Frozen, NonNegativeFloat
from corpora.filters.statistics import TextStatistics

REASONS = (
    "too_few_prose_words", "too_many_prose_words", "words_too_short", "words_too_long", "too_many_hash_signs",
    "too_many_ellipses", "mostly_bullets", "lines_end_in_ellipsis", "too_few_words_with_letters", "too_few_stop_words",
)  # fmt: skip

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_AROUND = ".,;:!?()[]{}<>\"'`*_~|/\\-–—=+#$%^&@“”‘’…•·"
_BULLET = re.compile(r"(?:[•◦▪●‣·*-]|\d{1,3}[.)])(?:\s|$)")
_ELLIPSIS = ("...", "…")


class Settings(Frozen):
    """Thresholds; the defaults are the published ones."""

    min_words: NonNegativeInt = Field(default=50, description="Fewest words (Gopher 50).")
    max_words: PositiveInt = Field(default=100_000, description="Most words (Gopher 100,000).")
    min_mean_word: NonNegativeFloat = Field(default=3.0, description="Mean characters in a word (Gopher 3).")
    max_mean_word: NonNegativeFloat = Field(default=10.0, description="Mean characters in a word (Gopher 10).")
    max_symbols_per_word: NonNegativeFloat = Field(
        default=0.1, description="Hash signs, and likewise ellipses, for each word (Gopher 0.1)."
    )
    max_bullet_lines: Fraction = Field(default=0.9, description="Lines that begin with a bullet (Gopher 0.9).")
    max_ellipsis_lines: Fraction = Field(default=0.3, description="Lines that end in an ellipsis (Gopher 0.3).")
    min_words_with_letters: Fraction = Field(default=0.8, description="Words with a letter (Gopher 0.8).")
    min_stop_words: NonNegativeInt = Field(default=2, description="Stop words, repeats included (Gopher 2).")


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that words and lines break, or None."""
    words = [word for word in (word.strip(_AROUND) for word in statistics.words) if word]
    if len(words) < settings.min_words:
        return "too_few_prose_words"
    if len(words) > settings.max_words:
        return "too_many_prose_words"
    num_words = max(len(words), 1)
    mean = sum(map(len, words)) / num_words
    if mean < settings.min_mean_word:
        return "words_too_short"
    if mean > settings.max_mean_word:
        return "words_too_long"
    return (
        _symbols(statistics, settings, num_words) or _lines(statistics, settings) or _letters(words, settings)
    )


def _symbols(statistics: TextStatistics, settings: Settings, num_words: int) -> str | None:
    text, most = statistics.text, settings.max_symbols_per_word * num_words
    hashes = text.count("#")
    if hashes > most and hashes - sum(len(line) - len(line.lstrip("#")) for line in statistics.stripped) > most:
        return "too_many_hash_signs"
    return "too_many_ellipses" if text.count("...") + text.count("…") > most else None


def _lines(statistics: TextStatistics, settings: Settings) -> str | None:
    lines = [line for line in statistics.stripped if line]
    if sum(1 for line in lines if _BULLET.match(line)) > settings.max_bullet_lines * len(lines):
        return "mostly_bullets"
    if sum(1 for line in lines if line.endswith(_ELLIPSIS)) > settings.max_ellipsis_lines * len(lines):
        return "lines_end_in_ellipsis"
    return None


def _letters(words: list[str], settings: Settings) -> str | None:
    # A word of letters alone is the usual case, and costs one call.
    with_letters = sum(1 for word in words if word.isalpha() or any(map(str.isalpha, word)))
    if with_letters < settings.min_words_with_letters * len(words):
        return "too_few_words_with_letters"
    latin = sum(1 for word in words if word.isascii())
    if 2 * latin < len(words):
        return None
    found = 0
    for word in words:
        found += word.lower() in STOP_WORDS
        if found >= settings.min_stop_words:
            return None
    return "too_few_stop_words" if found < settings.min_stop_words else None
