"""The numbers that a word problem writes, and the constants that its words stand for.

`mentions` finds the numbers, `written` writes another one in the same way (separators, decimals, capital letter),
`reasons` gives the constants: `twice` is a 2, `a week` is 7 days, `three friends` is a 3. A text whose numbers are tied
to more than their value (times of the day, dates, ordinals, rounding, chances) has no twin, and says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD_VALUES = {
    **{word: number for number, word in enumerate(_UNITS)},
    **{word: 10 * number for number, word in enumerate(_TENS, 2)},
    **{f"{tens}-{unit}": 10 * number + ones
       for number, tens in enumerate(_TENS, 2) for ones, unit in enumerate(_UNITS[1:10], 1)},
}  # fmt: skip
_VALUE_WORDS = {value: word for word, value in _WORD_VALUES.items()}
_WORD = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(_WORD_VALUES, key=len, reverse=True))})(?![\w-])", re.IGNORECASE)
_SPELLED = re.compile(_WORD.pattern.replace("(?![\\w-])", "(?!\\w)"), re.IGNORECASE)
"""Also before a hyphen (a three-month course): those stay, but explain a 3."""

_DIGITS = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?|\.\d+")

_REFUSED = {
    "a time of the day": r"\d:\d\d|\b[ap]\.?m\b|o'?.?clock|\bnoon\b|midnight",
    "a date": r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\s+\d|"
    r"\b\d+(?:st|nd|rd|th)\b|\bborn\b|\bbirthday\b|\byear\s+\d",
    "rounding": r"\bround(?:ed|ing|s)?\b(?! trip)|nearest|approximate|\babout how\b|\bestimat|\bat least\b|\bat most\b|"
    r"\bminimum\b|\bmaximum\b|\bfewest\b|\bwhole number\b|\bremainder\b",
    "chance or number theory": r"\bchance|probabilit|\bdice\b|\bdie\b|\bprime\b|\beven number|\bodd number|consecutive|"
    r"\bsquare root|\bsquared\b|\bcubed\b|\bdigits?\b|\bratio\b|\bmultiples?\b|\bfactor|\bdivisible",
    "a number in a name": r"\b(?:grade|route|room|chapter|level|highway|phase|number|step|day|week|lap|"
    r"team|class|group|box|house|store|iphone|xbox|playstation|no\.)"
    r" #?\d",
    "a number joined to letters or another number":
    r"\d[A-Za-z]|[A-Za-z]\d|\d-\d|\d\s*[+*^=x]\s*\d|#\d|\d\s*:\s*\d|\bto-\d",
    "feet with inches, hours with minutes, pounds with ounces":
    r"\d+['’-]?\s*(?:feet|foot|hours?|pounds?|minutes?)\s*,?\s*(?:and\s+)?\d+\s*(?:inch|minute|ounce|second)",
}  # fmt: skip

_STANDS_FOR: dict[str, str] = {
    r"\btwice\b|\bdoubl|\bboth\b|\bpairs?\b|\bcouple\b|\btwins?\b|\bhal(?:f|ves)\b|\bsecond\b|\bbi": "2 0.5 1.5",
    r"\btriple|\bthrice\b|\bthirds?\b|\btri": "3",
    r"\bquadrupl|\bquarters?\b|\bfourths?\b|\bsquare\b|\brectang": "4 0.25 0.75 3 25",
    r"\bfifths?\b|\bnickels?\b|\bpenta": "5 4 0.2 0.05",
    r"\bsixths?\b|\bhexa": "6",
    r"\bsevenths?\b": "7",
    r"\beighths?\b": "8",
    r"\bninths?\b": "9",
    r"\btenths?\b|\bdimes?\b|\bdecade": "10 0.1",
    r"\bdozen": "12 6 24",
    r"\bweek|\bdaily\b|\bevery day\b": "7 5 2 4 52",
    r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day": "2 3 4 5 6 7",
    r"\bmonth|\byear|\bannual|\bcentury": "12 4 52 30 31 28 365 100 6 3",
    r"\b(?:January|February|March|April|June|July|August|September|October|November|December)\b": "28 30 31 3 4 6 12",
    r"\bday|\bnight": "24 7 365",
    r"\bhour|\bminute|\bsecond|\bhalf.hour": "60 30 15 24 45 0.5 3600",
    r"\bfoot|\bfeet|\binch|\byards?\b|\bmile": "12 3 36 5280",
    r"\bounce|\bpounds?\b|\bcups?\b|\bpint|\bquart|\bgallon": "16 8 2 4 128",
    r"\bkilo|\bkm\b|\bkg\b|\bmilli|\bml\b|\bgrams?\b|\blit(?:er|re)s?\b|\bmet(?:er|re)s?\b|\bcentimet|\bcm\b":
    "1000 100 10",
    r"\bcents?\b|\bpenn|\bcoins?\b|\bdimes?\b|\bquarters?\b|\bnickels?\b": "100 0.01 0.05 0.1 0.25 5 10 25",
    r"%|\bpercent": "100 0.01",
    r"\bhundred": "100",
    r"\bthousand": "1000",
    r"\bmillion": "1000000",
    r"\blegs?\b|\bpaws?\b|\bwheels?\b|\btires?\b|\bcorners?\b|\bsides?\b": "2 4 3 6 8",
    r"\bfingers?\b|\btoes?\b|\bhands?\b": "5 10",
    r"\bperimeter|\baverage": "2 4",
}
"""Words, and the numbers that they may stand for in a calculation. Too many rather than too few: a number that may be a
constant stays as it is."""


class NoTwin(Exception):
    """This problem has no twin; the message says why, in the same words for all problems of a kind."""


@dataclass(frozen=True)
class Mention:
    """A number in a text.

    Attributes:
        start: Where it begins.
        text: As it is written.
        value: What it is worth.
        places: Decimals that it writes.
        fixed: It may not change: part of a fraction, a percentage, or spelled.
        after_a: The article before it, `a` or `an`, or nothing.
        spelled: Written in words.
        most: What another number may be at most: no week has eight days.
    """

    start: int
    text: str
    value: Fraction
    places: int = 0
    fixed: bool = False
    after_a: str = ""
    spelled: bool = False
    most: Fraction | None = None

    def fits(self, value: Fraction) -> bool:
        """Whether another number can be written in its place."""
        if self.spelled and value not in _VALUE_WORDS:
            return False
        if self.most is not None and value > self.most:
            return False
        return not self.after_a or (self.after_a == "an") == _sounds_like_a_vowel(value)


def _sounds_like_a_vowel(value: Fraction) -> bool:
    """Eight, eleven, eighteen, eighty..."""
    text = str(int(value))
    return text.startswith("8") or text in ("11", "18")


def mentions(question: str, spelled: bool = False) -> list[Mention]:
    """All numbers of a text, in order; those in words only where they may change. Raises NoTwin.

    >>> [(one.text, one.fixed) for one in mentions("Pay 1,200 or 20% of 3/4, $5.00?")]
    [('1,200', False), ('20', True), ('3', True), ('4', True), ('5.00', False)]
    """
    for reason, pattern in _REFUSED.items():
        if re.search(pattern, question, re.IGNORECASE):
            raise NoTwin(reason)
    found: list[Mention] = []
    for match in _DIGITS.finditer(question):
        text, before, after = match[0], question[: match.start()], question[match.end() :]
        value = Fraction(text.replace(",", ""))
        if value.denominator == 1 and 1900 <= value <= 2100 and "," not in text and not before.endswith("$"):
            raise NoTwin("a date")
        fraction = re.match(r"\s*/\s*\d", after) or re.search(r"\d\s*/\s*$", before)
        mixed = re.match(r"\s+(?:and\s+)?\d+/\d|\s+(?:and|&) (?:a|one|two|three)[ -](?:half|quarter|third)", after)
        percent = re.match(r"\s*(?:%|percent)", after)
        places = len(text.partition(".")[2])
        article = re.search(r"\b(an?)\s+\$?$", before, re.IGNORECASE)
        found.append(Mention(match.start(), text, value, places, bool(fraction or mixed or percent),
                             article[1].lower() if article else "", False, _most(question, value, after)))
    if spelled:
        for match in _WORD.finditer(question):
            article = re.search(r"\b(an?)\s+$", question[: match.start()], re.IGNORECASE)
            value = Fraction(_WORD_VALUES[match[0].lower()])
            if value > 1:
                found.append(Mention(match.start(), match[0], value, 0, False, article[1].lower() if article else "",
                                     True, _most(question, value, question[match.end() :])))  # fmt: skip
    return sorted(found, key=lambda one: one.start)


_LIMITS = ((7, "days?", "week"), (28, "days?", "month"), (4, "weeks?", "month"), (12, "months?", "year"),
           (24, "hours?", "day|night"), (60, "minutes?", "hour"), (60, "seconds?", "minute"),
           (12, "inch(?:es)?", "feet|foot"), (52, "weeks?", "year"))  # fmt: skip
"""A number of these is at most so much where the other word is in the text."""


def _most(question: str, value: Fraction, after: str) -> Fraction | None:
    """What a number in this place may be at most: what it was below, of what its text speaks of."""
    for most, unit, whole in _LIMITS:
        if value <= most and re.match(rf"[\s-]*{unit}\b", after) and re.search(rf"\b(?:{whole})", question):
            return Fraction(most)
    return None


def reasons(question: str, spelled: bool = False) -> set[Fraction]:
    """The constants that may stand in a calculation without being a number of the text.

    Args:
        question: The problem's text.
        spelled: Whether numbers in words are numbers of the text, and no constants.
    """
    found = {Fraction(value) for pattern, values in _STANDS_FOR.items()
             if re.search(pattern, question, re.IGNORECASE) for value in values.split()}  # fmt: skip
    found |= set() if spelled else spelled_values(question)
    for text in re.findall(r"(\d+(?:\.\d+)?)\s*(?:%|percent)", question):
        share = Fraction(text) / 100
        found |= {share, 1 - share, 1 + share, 100 - 100 * share, 100 + 100 * share}
    for sentence in re.split(r"(?<=[.?!])\s", question):
        things = sentence.count(",") + len(re.findall(r"\band\b", sentence))
        found |= {Fraction(number) for number in range(2, things + 2)}  # as many as are listed
    return found - {Fraction(0)}


def spelled_values(question: str) -> set[Fraction]:
    """The numbers that a text writes in words.

    >>> sorted(map(int, spelled_values("Three friends take a four-hour walk")))
    [3, 4]
    """
    return {Fraction(_WORD_VALUES[match[0].lower()]) for match in _SPELLED.finditer(question)} - {Fraction(0)}


def written(mention: Mention, value: Fraction) -> str:
    """The number as the mention writes its own: separators, decimals, words.

    >>> written(Mention(0, "1,200", Fraction(1200)), Fraction(1500))
    '1,500'
    """
    if mention.spelled:
        word = _VALUE_WORDS[int(value)]
        return word.capitalize() if mention.text[0].isupper() else word
    return f"{float(value):{',' if ',' in mention.text else ''}.{mention.places}f}"
