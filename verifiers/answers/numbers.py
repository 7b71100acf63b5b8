"""Exact reading of one number as people write it: `-1,234.50`, `\\frac{3}{4}`, `1 1/2`, `2.5 \\times 10^3`, `50%`.

The value is a Fraction, so that 0.5 equals 1/2 and 0.333 does not equal 1/3. A percentage is a hundredth: 50% equals
1/2, and 10% does not equal 10. A unit is kept apart from the value: two numbers with different units are converted
where both measure the same (`verifiers.answers.units`), else they differ; a number without one equals the same number
with one. `5 million` is 5,000,000, `0.1\\overline{6}` is 1/6, `3 h 20 min` is 200 min, and `12_5` is `12` of base 5,
which equals nothing of another base.

What this does not do: no digits but ASCII ones; number words are `verifiers.answers.words`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verifiers.answers.units import converted, known, read_unit
from verifiers.answers.words import SCALES

MAX_DIGITS = 1000
"""Digits in one numeral; Python's own limit for int() is 4,300."""
MAX_EXPONENT = 400
"""Power of ten in scientific notation."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"\^\s*(?:\{\s*(?P<power>[-+]?[0-9]{1,4})\s*\}|(?P<power1>[-+]?[0-9]{1,4}))"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>(?:US|USD)?\s?[$\u20ac\u00a3])?\s*(?P<sign2>[-+]?)\s*"
    rf"(?:"
    rf"(?:(?P<whole>{_DIGITS})(?:\s*(?=\\frac)|\s+(?:and\s+)?(?=[0-9])))?"
    rf"(?:\\frac\s*(?:\{{\s*(?P<fsign>-?)\s*(?P<top>{_DECIMAL})\s*\}}"
    rf"\s*(?:\{{\s*(?P<bsign>-?)\s*(?P<bottom>{_DECIMAL})\s*\}}"
    rf"|(?P<bottom3>[0-9]))"
    rf"|\s*(?P<top1>[0-9])\s*(?:(?P<bottom1>[0-9])|\{{\s*(?P<bottom4>[0-9]+)\s*\}}))"
    rf"|(?P<top2>[0-9]+)\s*/\s*(?P<bottom2>[0-9]+))"
    rf"|(?P<repeated>[0-9]*\.[0-9]*)\\(?:overline|bar)\s*\{{\s*(?P<period>[0-9]+)\s*\}}"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?[0-9]{{1,4}})(?![0-9A-Za-z])"
    rf"|\s*\*\s*10\s*(?P<times>{_POWER}))?"
    rf")\s*"
)
_QUOTIENT = re.compile(r"(-?)\s*(?:\(\s*(-?[0-9]+)\s*\)|([0-9]+))\s*/\s*(?:\(\s*(-?[0-9]+)\s*\)|([0-9]+))")
_SPACED = re.compile(r"-?[0-9]{1,3}(?: [0-9]{3})+")
"""Thousands parted by spaces: `12 500`."""
_INTEGER = re.compile(r"-?[0-9]{1,300}")
_TEN = re.compile(r"(-?)\s*10\s*\^\s*(?:\{\s*([-+]?[0-9]{1,4})\s*\}|([-+]?[0-9]))")
_BASED = re.compile(r"(-?)([0-9A-Z]+)\s*_\s*(?:\{\s*([0-9]{1,2}|[a-z]+)\s*\}|([0-9]{1,2}))")
_ORDINAL = re.compile(r"\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?")
_SCALE = re.compile(r"(hundred|thousand|million|billion|trillion|dozen)(?![A-Za-z])\s*")
_COMPOUND = re.compile(
    r"[0-9][0-9.,/]*\s*[A-Za-z]{1,12}\.?(?:(?:\s*,|\s+and)?\s*[0-9][0-9.,/]*\s*[A-Za-z]{1,12}\.?){1,3}")
_COMPOUND_PART = re.compile(r"([0-9][0-9.,/]*?)\s*([A-Za-z]{1,12})\.?(?:\s*,\s*|\s+and\s+|\s+|$|(?=[0-9]))")
_ANNOTATION = re.compile(r"(?<=\s)\((?=[^()]*[A-Za-z]{2})[A-Za-z][A-Za-z0-9 ./'-]{1,80}\)")
_MONEY_UNITS = {"$": "dollar", "\u20ac": "euro", "\u00a3": "sterling"}


@dataclass(frozen=True)
class Number:
    """A number: its exact value (a percentage already divided by 100) and its unit, `` where it has none."""

    value: Fraction
    unit: str = ""
    percent: bool = False


def read_number(text: str) -> Number | None:
    """The number that the whole (cleaned) text is; None where it is anything else."""
    if len(text) > MAX_DIGITS:
        return None
    if _INTEGER.fullmatch(text):
        return Number(Fraction(int(text)))
    if "_" in text:
        return _based(text)
    match = _NUMBER.match(text)
    if match is None:
        return _quotient(text) if "/" in text else None
    if " " in text and _SPACED.fullmatch(text):
        return Number(Fraction(int(text.replace(" ", ""))))
    value = _value(match)
    if value is None or (match["sign"] and match["sign2"]):
        return None
    if match["sign"] == "-" or match["sign2"] == "-":
        value = -value
    rest = text[match.end():].strip()
    money = _MONEY_UNITS[match["money"].strip()[-1]] if match["money"] else ""
    if not rest:
        return Number(value, money)
    if rest[0] in "^{stnr":
        special = _special(text, rest, value)
        if special is not None:
            return special
    if rest.startswith(("%", "percent")):
        return Number(value / 100, percent=True) if rest in ("%", "percent") else None
    glued = not text[: match.end()].endswith(" ")
    scale = _SCALE.match(rest)
    if scale is not None and not glued:
        value *= SCALES.get(scale[1], 12)
        rest = rest[scale.end():]
        if not rest:
            return Number(value, money)
    unit = read_unit(rest, glued)
    if unit is None:
        return _quotient(text) if rest[0] == "/" else _compound(text)
    if money and converted(Fraction(1), money, unit) is None:
        return None
    return Number(value, unit)


def annotation_of(text: str) -> tuple[str, str]:
    """`9 (apples)` as the number and what is counted; other texts as they are, with nothing counted."""
    if not text.endswith(")"):
        return text, ""
    start = text.rfind("(")
    if start > 1 and _ANNOTATION.fullmatch(text, start):
        name, sign, value = text[:start].rpartition("=")
        if read_number(value.strip()) is not None:
            return f"{name}{sign}{value}".strip(), text[start + 1: -1].strip()
    return text, ""


def equal_numbers(gold: Number, answer: Number) -> bool:
    """Same value, converted where two units allow it; a unit that only one of them has does not count."""
    if gold.unit == answer.unit:
        return gold.value == answer.value
    if gold.unit.startswith("base ") or answer.unit.startswith("base "):
        return False
    if not gold.unit or not answer.unit:
        return gold.value == answer.value
    return converted(answer.value, answer.unit, gold.unit) == gold.value


def has_measure(number: Number) -> bool:
    """Whether the number's unit is one that converts."""
    return bool(number.unit) and not number.unit.startswith("base ") and known(number.unit)


def _quotient(text: str) -> Number | None:
    """`(-3)/(4)`: integers in brackets of their own."""
    match = _QUOTIENT.fullmatch(text)
    if match is None:
        return None
    top, bottom = int(match[2] or match[3]), int(match[4] or match[5])
    if not bottom:
        return None
    return Number(Fraction(-top if match[1] else top, bottom))


def _special(text: str, rest: str, value: Fraction) -> Number | None:
    """A pure power of ten, or an ordinal."""
    ten = _TEN.fullmatch(text)
    if ten is not None:
        power = int(ten[2] or ten[3])
        if abs(power) > MAX_EXPONENT:
            return None
        return Number(Fraction(10) ** power * (-1 if ten[1] else 1))
    if value.denominator == 1 and value > 0 and _ORDINAL.fullmatch(rest):
        return Number(value)
    return None


def _based(text: str) -> Number | None:
    """`1A_{12}`: the digits as they stand, of their base; letters only above base ten."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    base = match[3] or match[4]
    if match[2].isdecimal():
        return Number(Fraction(int(match[1] + match[2])), "" if base in ("10", "ten") else f"base {base}")
    if not base.isdecimal() or not 11 <= int(base) <= 36 or len(match[2]) > 40:
        return None
    return Number(Fraction(int(match[1] + match[2], 36)), f"base {base}")


def _compound(text: str) -> Number | None:
    """`3 h 20 min` as 200 of the last unit, which is the smallest."""
    if not _COMPOUND.fullmatch(text):
        return None
    total, last = Fraction(0), ""
    for numeral, word in _COMPOUND_PART.findall(text):
        part = re.fullmatch(_DECIMAL, numeral)
        unit = read_unit(word, glued=False)
        if part is None or unit is None or not known(unit):
            return None
        if last:
            carried = converted(total, last, unit)
            if carried is None or (converted(Fraction(1), last, unit) or 0) <= 1:
                return None
            total = carried
        total, last = total + _decimal(numeral), unit
    return Number(total, last)


def _value(match: re.Match[str]) -> Fraction | None:
    top = match["top"] or match["top1"] or match["top2"]
    if top is None:
        if match["period"]:
            return _repeating(match["repeated"], match["period"])
        value = _decimal(match["decimal"])
        power = match["exponent"] or match["power"] or match["power1"]
        if power:
            if abs(int(power)) > MAX_EXPONENT:
                return None
            value *= Fraction(10) ** int(power)
        return value
    bottoms = ("bottom", "bottom1", "bottom2", "bottom3", "bottom4")
    bottom = _decimal(next(match[name] for name in bottoms if match[name]))
    if bottom == 0:
        return None
    value = _decimal(top) / bottom
    if (match["fsign"] == "-") != (match["bsign"] == "-"):
        value = -value
    if match["whole"]:
        if match["fsign"] or match["bsign"]:
            return None  # 1 \frac{-1}{2} is no mixed number
        return _decimal(match["whole"]) + value
    return value


def _repeating(start: str, period: str) -> Fraction:
    whole, _, fraction = start.partition(".")
    scale = 10 ** len(fraction)
    return Fraction(int((whole or "0") + fraction), scale) + Fraction(int(period), (10 ** len(period) - 1) * scale)


def _decimal(numeral: str) -> Fraction:
    numeral = numeral.replace(",", "")
    whole, _, fraction = numeral.partition(".")
    return Fraction(int((whole or "0") + fraction), 10 ** len(fraction))
