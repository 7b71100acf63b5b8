"""`keywords`: words that must, may not, or must so often occur.

As published, a required keyword may be part of a longer word, a forbidden one counts only as a word of its own, and
case never matters. Departure: a keyword is taken literally; published, its dots and brackets work as a pattern.
"""

from __future__ import annotations

import re

from verifiers.rules.rule import RELATIONS, Rule, compare


def existence(response: str, keywords: list[str]) -> bool:
    """All keywords occur."""
    return all(_occurrences(response, keyword) > 0 for keyword in keywords)


def frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so often."""
    return compare(_occurrences(response, keyword.strip()), relation, frequency)


def forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a word."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", response, re.IGNORECASE) for word in forbidden_words if word
    )


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter occurs so often, in either case."""
    return compare(response.lower().count(letter), let_relation, let_frequency)


def _occurrences(response: str, keyword: str) -> int:
    return len(re.findall(re.escape(keyword), response, re.IGNORECASE))


RULES = {
    "existence": Rule(existence, {"keywords": "texts"}),
    "frequency": Rule(frequency, {"keyword": "text", "frequency": "count", "relation": RELATIONS}),
    "forbidden_words": Rule(forbidden_words, {"forbidden_words": "texts"}),
    "letter_frequency": Rule(
        letter_frequency, {"letter": "letter", "let_frequency": "count", "let_relation": RELATIONS}
    ),
}
