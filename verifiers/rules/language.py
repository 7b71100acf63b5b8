"""`language`: whether all of a response is in one language, told by script and by function words.

A text is in a language if most of its letters are of the language's script and, where several languages share that
script, no other one of them has clearly more of the text's words among its function words or letters of its own. A text
of more than `FEW_WORDS` words must also have some of the language's own.

Departure: the published rule asks langdetect, which draws random numbers, knows no Hindi below a few words, and counts
a text without letters as followed; here it is not. Words that prove nothing ("OK!") count as any language of their
script.

What this does not do: it knows the languages of `LANGUAGES`; a text in another language of the same script is told
from them by its lack of function words alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from verifiers.rules.rule import Rule
from verifiers.rules.words_by_language import ENDINGS, OWN_LETTERS, WORDS

SCRIPT_SHARE = 0.7
"""Of the letters; the rest may be names, numbers with units, and code."""
FEW_WORDS = 11
"""Words below which function words may be missing by chance."""
OWN_SHARE = 0.06
"""Of the words that must be the language's function words; running text has 0.2 to 0.5."""
CLEARLY = 0.8
"""A language holds its own with this share of what the best one has."""

_SCRIPTS = {
    "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "arabic": "\u0620-\u065f\u066e-\u06d3\u06d5\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc",
    "hebrew": "\u05d0-\u05ea",
    "devanagari": "\u0900-\u0963\u0971-\u097f",
    "bengali": "\u0980-\u09e3",
    "gurmukhi": "\u0a00-\u0a65\u0a70-\u0a7f",
    "gujarati": "\u0a80-\u0ae5",
    "tamil": "\u0b80-\u0be5",
    "telugu": "\u0c00-\u0c65",
    "kannada": "\u0c80-\u0ce5",
    "malayalam": "\u0d00-\u0d65",
    "thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "kana": "\u3041-\u3096\u30a1-\u30fa",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
}
_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_WORD = re.compile(
    r"[^\s\d.,;:!?\"'`()\[\]{}<>*_#=+~^|/\\@&%$\-\u2010-\u2027\u00ab\u00bb\u00bf\u00a1\u0964\u060c\u061b\u061f\u06d4]+"
)

LANGUAGES: dict[str, str] = {
    **dict.fromkeys(("en", "es", "pt", "fr", "de", "it", "pl", "vi", "sw", "fi", "nl"), "latin"),
    **dict.fromkeys(("ru", "uk", "bg"), "cyrillic"),
    **dict.fromkeys(("ar", "fa", "ur"), "arabic"),
    **dict.fromkeys(("hi", "mr", "ne"), "devanagari"),
    "el": "greek", "he": "hebrew", "bn": "bengali", "pa": "gurmukhi", "gu": "gujarati", "ta": "tamil", "te": "telugu",
    "kn": "kannada", "ml": "malayalam", "th": "thai", "ko": "hangul", "ja": "kana", "zh": "han",
}  # fmt: skip
"""Languages by their ISO 639-1 codes, with their scripts."""


def response_language(response: str, language: str) -> bool:
    """All of it is in the language."""
    return is_language(response, language)


def is_language(text: str, language: str) -> bool:
    """Whether a text is in a language of `LANGUAGES`."""
    script = LANGUAGES[language]
    counts = {name: len(letters.findall(text)) for name, letters in _LETTERS.items()}
    own = counts[script]
    if script == "kana":
        own += counts["han"] if own else 0
    if own == 0 or own < SCRIPT_SHARE * sum(counts.values()):
        return False
    if script == "han":
        return counts["kana"] == 0
    rivals = [other for other in LANGUAGES if LANGUAGES[other] == script and other != language]
    if not rivals:
        return True
    words = [word.lower() for word in _WORD.findall(text)]
    share = _share(words, language)
    if len(words) > FEW_WORDS and share < OWN_SHARE:
        return False
    return share >= CLEARLY * max(_share(words, rival) for rival in rivals)


def _share(words: Sequence[str], language: str) -> float:
    """Share of the words that are the language's function words, have its endings, or letters that only it has."""
    known, letters, endings = WORDS[language], OWN_LETTERS.get(language), ENDINGS.get(language, ())
    hits = sum(
        word in known
        or (letters is not None and not letters.isdisjoint(word))
        or (bool(endings) and len(word) > 3 and word.endswith(endings))
        for word in words
    )
    return hits / max(1, len(words))


RULES = {"response_language": Rule(response_language, {"language": tuple(LANGUAGES)})}
