"""`change_case`: all capitals, all small letters, or so many words in capitals.

Departures: whether a text is English is told by `rules.language`, not by langdetect. Words are told apart here much as
NLTK does it for the published rule, which makes two of a contraction: "IT'S" are two words in capitals, "I'm" is one.
"""

from __future__ import annotations

import re

from verifiers.rules.language import is_language
from verifiers.rules.rule import RELATIONS, Rule, compare

_WORD = re.compile(r"[^\s,;:@#$%&?!()\[\]{}<>\"\u201c\u201d\u2026/|*`]+")

_CONTRACTION = re.compile(r"(?=n't\b|'(?:s|m|d|ll|re|ve)\b)", re.IGNORECASE)


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words whose letters are all capitals; `I` and `A` are such words."""
    found = sum(word.isupper() for word in _WORD.findall(_CONTRACTION.sub(" ", response)))
    return compare(found, capital_relation, capital_frequency)


def english_capital(response: str) -> bool:
    """English, without a small letter."""
    return response.isupper() and is_language(response, "en")


def english_lowercase(response: str) -> bool:
    """English, without a capital letter."""
    return response.islower() and is_language(response, "en")


RULES = {
    "capital_word_frequency": Rule(
        capital_word_frequency, {"capital_frequency": "count", "capital_relation": RELATIONS}
    ),
    "english_capital": Rule(english_capital),
    "english_lowercase": Rule(english_lowercase),
}
