"""Numbers in English words (`twenty-three`, `one hundred and five`, `two thirds`), and times of day.

What this does not do: no other languages, no decimals in words (`two point five`), nothing above trillions.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {word: value for value, word in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"))}
_TENS = {word: 10 * value for value, word in enumerate(
    ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2)}
SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100}
_WORDS = re.compile(r"[A-Za-z]+(?:[\s-]+[A-Za-z]+){0,11}")
_TIME = re.compile(
    r"(?P<hour>[0-9]{1,2})\s*:\s*(?P<minute>[0-5][0-9])(?:\s*:\s*(?P<second>[0-5][0-9]))?\s*"
    r"(?P<half>[ap]\s?\.?\s?m\.?)?|(?P<hour1>[0-9]{1,2})\s*(?P<half1>[ap]\s?\.?\s?m\.?)", re.IGNORECASE)
_DAY = 24 * 3600


def read_words(text: str) -> Fraction | None:
    """The number that the whole text spells; None where it spells none."""
    if len(text) > 120 or not text[:1].isalpha() or not _WORDS.fullmatch(text):
        return None
    words = re.split(r"[\s-]+", text.lower())
    if words[0] in ("negative", "minus"):
        value = _read(words[1:])
        return None if value is None else -value
    return _read(words)


def read_time(text: str) -> frozenset[int] | None:
    """The seconds after midnight that a time of day may mean: two of them where morning or evening is left open."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour = int(match["hour"] or match["hour1"])
    half = (match["half"] or match["half1"] or "")[:1].lower()
    if hour > 24 or (half and not 1 <= hour <= 12):
        return None
    seconds = int(match["minute"] or 0) * 60 + int(match["second"] or 0)
    if half:
        return frozenset((((hour % 12 + (12 if half == "p" else 0)) * 3600) + seconds,))
    hours = (hour, hour + 12) if 1 <= hour <= 12 else (hour,)
    return frozenset((possible * 3600 + seconds) % _DAY for possible in hours)


def _read(words: list[str]) -> Fraction | None:
    if not words:
        return None
    last = words[-1][:-1] if words[-1].endswith("s") and words[-1] != "halves" else words[-1]
    if last in _PARTS or words[-1] == "halves":
        if len(words) == 1:
            return Fraction(1, _PARTS[last]) if last == "half" else None
        count = Fraction(1) if words[:-1] in (["a"], ["an"]) else _whole(words[:-1])
        return None if count is None else count / _PARTS.get(last, 2)
    return _whole(words)


def _whole(words: list[str]) -> Fraction | None:
    """`three hundred and five thousand`: scales fall, and `and` stands only inside."""
    total, group, before = 0, 0, ""
    limit = 10**15
    for index, word in enumerate(words):
        if word == "and":
            if before not in SCALES or index == len(words) - 1:
                return None
        elif word in _UNITS:
            if before in _UNITS or (before in _TENS and not 1 <= _UNITS[word] <= 9) or (group and word == "zero"):
                return None
            group += _UNITS[word]
        elif word in _TENS:
            if before in _UNITS or before in _TENS:
                return None
            group += _TENS[word]
        elif word == "hundred":
            if not 1 <= group <= 99 or before not in (_UNITS.keys() | _TENS.keys()):
                return None
            group *= 100
        elif word in SCALES:
            if not group or SCALES[word] >= limit:
                return None
            limit = SCALES[word]
            total, group = total + group * limit, 0
        else:
            return None
        before = word
    return Fraction(total + group)
