"""`length_constraints`: words, sentences, paragraphs, and the first word of one of them.

Departure: sentences are counted by the rules below; published, by the trained splitter of NLTK, which needs a download.
The two agree on running prose; they may differ after abbreviations and list numbers.
"""

from __future__ import annotations

import re

from verifiers.rules.rule import RELATIONS, Rule, compare

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(
    r"(?P<stop>[.!?\u2026]{1,9}|[\u3002\uff01\uff1f\u0964\u06d4\u061f])"
    r"(?P<closing>[\"'\u201d\u2019)\]*_]{0,5})(?P<space>\s{0,9}(?=\S)|\s*\Z)"
)
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "gen", "col", "lt", "capt", "sgt", "hon", "vs", "etc",
     "e.g", "i.e", "cf", "al", "no", "nos", "vol", "fig", "figs", "eq", "inc", "ltd", "co", "corp", "dept", "est",
     "approx", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "p.s", "p.p.s",
     "u.s", "u.k", "a.m", "p.m", "ph.d", "b.a", "m.a", "b.sc", "m.sc"]
)  # fmt: skip
LONGEST_ABBREVIATION = 12
_ALWAYS = "\u3002\uff01\uff1f\u0964\u06d4\u061f"
_DIVIDER = re.compile(r"\s?\*\*\*\s?")


def number_words(response: str, num_words: int, relation: str) -> bool:
    """So many runs of letters, digits and underscores."""
    return compare(len(_WORD.findall(response)), relation, num_words)


def number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    """So many sentences."""
    return compare(count_sentences(response), relation, num_sentences)


def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs between dividers `***`; only the first and the last may be empty, and do not count."""
    parts = [part.strip() for part in _DIVIDER.split(response)]
    if any(not part for part in parts[1:-1]):
        return False
    return sum(map(bool, parts)) == num_paragraphs


def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs between empty lines, and the given one begins with the word, in any case."""
    parts = response.split("\n\n")
    num_filled = sum(bool(part.strip()) for part in parts)
    if num_filled != num_paragraphs or not 1 <= nth_paragraph <= num_filled:
        return False
    words = parts[nth_paragraph - 1].split(maxsplit=1)  # as published, empty paragraphs count in the numbering
    if not words:
        return False
    return re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0].lower() == first_word.lower()


def count_sentences(text: str) -> int:
    """Sentences of a text: each ends with `.`, `!`, `?` or their like, or with the text.

    A full stop ends none within a number or a word, after a known abbreviation or an initial, or where a small letter
    follows (unless all letters of the text are small).
    """
    count = start = 0
    cased = not text.islower()
    for match in _SENTENCE_END.finditer(text):
        if _ends(match, text, cased):
            count += 1
            start = match.end()
    return count + any(map(str.isalnum, text[start:]))


def _ends(match: re.Match[str], text: str, cased: bool) -> bool:
    stop, at_end = match["stop"], match.end() == len(text)
    if stop in _ALWAYS or at_end:
        return True
    if not match["space"]:
        return False
    goes_on = cased and text[match.end()].islower()
    if "!" in stop or "?" in stop:
        return not goes_on or not match["closing"]
    word = (text[max(0, match.start() - LONGEST_ABBREVIATION) : match.start()].split() or [""])[-1]
    word = word.lstrip("(\"'\u201c\u2018[*_")
    if word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I"):
        return False
    return not goes_on


RULES = {
    "number_words": Rule(number_words, {"num_words": "count", "relation": RELATIONS}),
    "number_sentences": Rule(number_sentences, {"num_sentences": "count", "relation": RELATIONS}),
    "number_paragraphs": Rule(number_paragraphs, {"num_paragraphs": "count"}),
    "nth_paragraph_first_word": Rule(
        nth_paragraph_first_word, {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"}
    ),
}
