"""Pages of mathematics: enough of it, readable, and rendered. Nothing is dropped for holding LaTeX.

Published: OpenWebMath (arXiv 2310.06786 section 3) asks for mathematics in a page before anything else (a LaTeX
command, a formula's mark-up, or a word of a list), and drops pages whose formulas were not extracted; DeepSeekMath and
FineMath leave the judgement to a classifier. C4's curly bracket dropped LaTeX pages from FineWeb (FineMath's card):
the rules here are tested on pages full of brackets, backslashes and dollar signs.

The thresholds are ours, chosen on worked solutions of natural and procedural sets (docs/corpora/filters.md has what
each drops there). Gopher's and C4's rules may follow this filter in a recipe; for that a page's formulas are taken out
of the text first (`prose_around`), so that `\\frac{a}{b}` counts neither as a long word nor as a word without letters.

Signs of mathematics are counted with a weight of one each: a LaTeX command or formula mark, an equals sign or caret,
another operator before a digit, a percent sign, a Unicode operator; and, only where these are too few, words of a list.
"""

from __future__ import annotations

import re

from pydantic import Field, NonNegativeInt

from configs.settings.common import Fraction, Frozen, NonNegativeFloat
from corpora.filters.statistics import TextStatistics

REASONS = ("math_too_short", "too_little_math", "unrendered_math", "no_words_around_math", "interface_text")

_SIGN = re.compile(r"\\[A-Za-z()\[\]]|\$\$?|[=^%∀-⋿×÷±·√²³¹⁰-₟→⇒°π]|[-+*/<>](?= ?[\d(])")
_WORDS = re.compile(
    r"\b(?:how (?:many|much|long|far|old|tall)|sums?|products?|ratios?|fractions?|averages?|means?|median|percent\w*"
    r"|probabilit\w+|odds|integers?|numbers?|digits?|primes?|divisors?|divisible|multiples?|factors?|remainders?|triangles?"
    r"|circles?|squares?|rectang\w+|polygons?|hexagons?|pentagons?|angles?|degrees?|radi(?:us|i)|diameters?|areas?"
    r"|perimeters?|volumes?|lengths?|parallel|perpendicular|equations?|functions?|polynomials?|sequences?|matri(?:x|ces)"
    r"|vectors?|derivatives?|integrals?|theorems?|lemmas?|proofs?|prove|times|twice|half|total|per|each|\d+)\b"
)
"""Words of word problems and of mathematical prose, in lower case; numbers too."""
_FORMULA = re.compile(
    r"\$\$(?:[^$\\]++|\\.|\$(?!\$))*+\$\$|\$(?:[^$\\\n]++|\\.)*+\$|\\\[(?:[^\\]++|\\(?!\]).)*+\\\]"
    r"|\\\((?:[^\\]++|\\(?!\)).)*+\\\)|\\begin\{(\w+)\*?\}(?:[^\\]++|\\(?!end\{).)*+\\end\{\w+\*?\}",
    re.DOTALL,
)
_UNRENDERED = (
    "[math processing error]", "undefined control sequence", "missing or unrecognized delimiter", "[math]",
    "math image", "[tex][/tex]", "image not available", "\ufffd",
)  # fmt: skip
_INTERFACE = (
    "sign in", "log in", "sign up", "subscribe", "add to cart", "all rights reserved", "share this", "click here",
    "next post", "previous post", "leave a reply", "forgot your password",
)  # fmt: skip


class Settings(Frozen):
    """Thresholds; guesses of ours, checked on the sets that the guide names."""

    min_characters: NonNegativeInt = Field(default=20, description="Fewest characters.")
    min_signs: NonNegativeInt = Field(default=2, description="Fewest signs of mathematics, or words of the list.")
    min_signs_per_kilobyte: NonNegativeFloat = Field(
        default=5.0, description="Signs of mathematics, or words of the list, for every 1,000 characters."
    )
    max_unrendered: NonNegativeFloat = Field(
        default=0.05, description="Marks of a formula that failed to render, for each sign of mathematics."
    )
    min_words: NonNegativeInt = Field(default=1, description="Fewest words outside formulas.")
    max_interface_lines: Fraction = Field(
        default=0.2, description="Lines that belong to a site's interface (log in, share, subscribe)."
    )


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """The first rule that the page breaks, or None."""
    text = statistics.text
    if len(text) < settings.min_characters:
        return "math_too_short"
    signs = num_signs(text)
    if not _enough(signs, text, settings):
        words = len(_WORDS.findall(statistics.lower))
        if not _enough(signs + words, text, settings):
            return "too_little_math"
    if sum(map(statistics.lower.count, _UNRENDERED)) > settings.max_unrendered * max(signs, 1):
        return "unrendered_math"
    if sum(1 for word in prose_around(text).split() if word[0].isalpha()) < settings.min_words:
        return "no_words_around_math"
    lines = [line for line in statistics.stripped if line]
    if len(lines) > 4 and any(phrase in statistics.lower for phrase in _INTERFACE):
        interface = sum(1 for line in lines if len(line) < 80 and any(one in line.lower() for one in _INTERFACE))
        if interface > settings.max_interface_lines * len(lines):
            return "interface_text"
    return None


def _enough(signs: int, text: str, settings: Settings) -> bool:
    return signs >= settings.min_signs and signs * 1000 >= settings.min_signs_per_kilobyte * len(text)


def num_signs(text: str) -> int:
    """Signs of mathematics in a text.

    >>> num_signs("3 + 4 = 7"), num_signs("the well-known cat"), num_signs("$x$ is \\\\frac{1}{2}")
    (2, 0, 3)
    """
    return sum(1 for _ in _SIGN.finditer(text))


def prose_around(text: str) -> str:
    """The text with its LaTeX formulas taken out.

    >>> prose_around("So $x^2$ is even.")
    'So   is even.'
    """
    return _FORMULA.sub(" ", text) if "$" in text or "\\" in text else text
