"""Exact reading of one number as people write it: `-1,234.50`, `\\frac{3}{4}`, `1 1/2`, `2.5 \\times 10^3`, `50%`.

The value is a Fraction, so that 0.5 equals 1/2 and 0.333 does not equal 1/3. A percentage is a hundredth: 50% equals
1/2, and 10% does not equal 10. A unit is kept apart from the value: two numbers with different units differ, and a
number without one equals the same number with one.

What this does not do: no unit conversion (100 cm is not 1 m), no numbers in words, no digits but ASCII ones. Words
that change the value (million, dozen, half, or, to, ...) are never taken for a unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verifiers.answers.clean import clean

MAX_DIGITS = 1000
"""Digits in one numeral; Python's own limit for int() is 4,300."""
MAX_EXPONENT = 400
"""Power of ten in scientific notation."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>(?:US|USD)?\s?[$\u20ac\u00a3])?\s*(?P<sign2>[-+]?)\s*"
    rf"(?:"
    rf"(?:(?P<whole>{_DIGITS})(?:\s*(?=\\frac)|\s+(?=[0-9])))?"
    rf"(?:\\frac\s*(?:\{{\s*(?P<fsign>-?)\s*(?P<top>{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>{_DECIMAL})\s*\}}"
    rf"|\s*(?P<top1>[0-9])\s*(?P<bottom1>[0-9]))"
    rf"|(?P<top2>[0-9]+)\s*/\s*(?P<bottom2>[0-9]+))"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?[0-9]{{1,4}})(?![0-9A-Za-z])"
    rf"|\s*\*\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+]?[0-9]{{1,4}})\s*\}}|(?P<power1>[-+]?[0-9]{{1,4}})))?"
    rf")\s*"
)
_INTEGER = re.compile(r"-?[0-9]{1,300}")
_UNIT = re.compile(
    r"(?:[A-Za-z\u00b5\u03bc]+(?![A-Za-z\u00b5\u03bc])\.?(?:\s?\^\s?\{?\s?-?[0-9]\s?\}?)?"
    r"(?:\s?/\s?|\s|-|\s?\*\s?)?){1,6}")
_MONEY_UNITS = {"$": "dollar", "\u20ac": "euro", "\u00a3": "pound"}

_NOT_A_UNIT = re.compile(
    "hundreds?|thousands?|millions?|billions?|trillions?|mil|bn|k|dozens?|scores?|half|halves|thirds?|quarters?|fourths?"
    "|fifths?|sixths?|eighths?|tenths?|hundredths?|thousandths?|percent|percentage|pct|or|and|to|plus|minus|times|over|by"
    "|divided|of|squared|cubed|factorial|choose|mod|remainder|r|base|pi|sqrt|sin|cos|tan|log|ln|exp|inf|infinity|nan|oo"
    "|e|i|x|y|z|n|is|was|not|no|if|else|then|because|since|but|through|between|about|approximately")
"""Words after a numeral that change what it says; a number followed by one of them is not read as number and unit."""

_UNIT_LETTER = re.compile("[mgshlLAVWNJKCF]")
_UNIT_PAIR = re.compile("cm|mm|km|kg|mg|ml|mL|ft|oz|lb|am|pm|th|st|nd|rd")
"""Units of two letters that may stand at the numeral without a space; other pairs are as likely a product."""
_ALIASES = {
    "usd": "dollar", "us dollar": "dollar", "buck": "dollar", "centimeter": "cm", "centimetre": "cm", "meter": "m",
    "metre": "m", "kilometer": "km", "kilometre": "km", "millimeter": "mm", "millimetre": "mm", "gram": "g",
    "kilogram": "kg", "kilo": "kg", "liter": "l", "litre": "l", "second": "s", "sec": "s", "minute": "min", "hour": "h",
    "hr": "h", "inche": "inch", "in": "inch", "foot": "ft", "feet": "ft", "pound": "lb", "ounce": "oz",
    "yard": "yd", "mile": "mi", "mph": "mi/h", "mi per h": "mi/h", "mile per hour": "mi/h", "people": "person",
}


@dataclass(frozen=True)
class Number:
    """A number: its exact value (a percentage already divided by 100) and its unit, `` where it has none."""

    value: Fraction
    unit: str = ""


def read_number(text: str) -> Number | None:
    """The number that the whole (cleaned) text is; None where it is anything else."""
    if len(text) > MAX_DIGITS:
        return None
    if _INTEGER.fullmatch(text):
        return Number(Fraction(int(text)))
    match = _NUMBER.match(text)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    if match["sign"] == "-" or match["sign2"] == "-":
        value = -value
    if match["sign"] and match["sign2"]:
        return None
    rest = text[match.end():].strip()
    if rest.startswith("%") or re.match(r"percent\b", rest):
        return Number(value / 100) if rest in ("%", "percent") else None
    money = _MONEY_UNITS[match["money"].strip()[-1]] if match["money"] else ""
    if not rest:
        return Number(value, money)
    glued = not text[: match.end()].endswith(" ")
    unit = read_unit(rest, glued)
    if unit is None or (money and unit != money):
        return None
    return Number(value, unit)


def equal_numbers(gold: Number, answer: Number) -> bool:
    """Same value, and no two different units."""
    return gold.value == answer.value and (not gold.unit or not answer.unit or gold.unit == answer.unit)


def read_unit(text: str, glued: bool) -> str | None:
    """The normalised unit that follows a numeral, or None where the words are not (surely) a unit.

    Args:
        text: What follows the numeral.
        glued: No space stands between the numeral and it, as in algebra (`5x`).
    """
    text = clean(text.strip("()[] ").replace("\\", " \\"))
    if not text or len(text) > 60 or not _UNIT.fullmatch(text):
        return None
    words = re.findall(r"[A-Za-z\u00b5\u03bc]+", text)
    if any(_NOT_A_UNIT.fullmatch(word.lower()) for word in words):
        return None
    if len(words[0]) == 1 and (glued or not _UNIT_LETTER.fullmatch(words[0])):
        return None
    if glued and len(words[0]) == 2 and not _UNIT_PAIR.fullmatch(words[0]):
        return None
    canonical = re.sub(r"[\s{}]+", " ", text.lower().rstrip(".")).strip()
    canonical = re.sub(r"\s*([/^*])\s*", r"\1", canonical)
    plural = len(canonical) > 3 and canonical.endswith("s") and not canonical.endswith("ss")
    singular = canonical[:-1] if plural else canonical
    return _ALIASES.get(canonical, _ALIASES.get(singular, singular))


def _value(match: re.Match[str]) -> Fraction | None:
    top = match["top"] or match["top1"] or match["top2"]
    if top is None:
        value = _decimal(match["decimal"])
        power = match["exponent"] or match["power"] or match["power1"]
        if power:
            if abs(int(power)) > MAX_EXPONENT:
                return None
            value *= Fraction(10) ** int(power)
        return value
    bottom = _decimal(match["bottom"] or match["bottom1"] or match["bottom2"])
    if bottom == 0:
        return None
    value = _decimal(top) / bottom
    if match["fsign"]:
        value = -value
    if match["whole"]:
        return None if match["fsign"] else _decimal(match["whole"]) + value  # 1 \frac{-1}{2} is no mixed number
    return value


def _decimal(numeral: str) -> Fraction:
    numeral = numeral.replace(",", "")
    whole, _, fraction = numeral.partition(".")
    return Fraction(int((whole or "0") + fraction), 10 ** len(fraction))
