"""Units of measure: what stands after a numeral, and how two of them convert.

A unit is a product of powers: each known word is a factor times powers of metre, kilogram, second, dollar and so on;
an unknown word (`apples`) is a dimension of its own. So `cm^2`, `square cm` and `sq. centimetres` are one unit, `ml`
is a cubic centimetre, and `km per hour` converts to `m/s`. All factors are exact Fractions (international yard and
pound, US gallon).

What this does not do: no temperatures (Celsius and Fahrenheit are merely different), no exchange rates, no year or
month in days. Single letters are units only where a space or a command stands between them and the
numeral: `5x` is algebra.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

MAX_UNIT = 60
"""Characters of a unit."""
MAX_POWER = 6

_BASE: dict[str, tuple[str, dict[str, int]]] = {
    # word: (factor, powers of the base dimensions)
    "m": ("1", {"m": 1}), "kg": ("1", {"kg": 1}), "s": ("1", {"s": 1}), "dollar": ("1", {"dollar": 1}),
    "km": ("1000", {"m": 1}), "dm": ("0.1", {"m": 1}), "cm": ("0.01", {"m": 1}), "mm": ("0.001", {"m": 1}),
    "micrometer": ("0.000001", {"m": 1}), "nm": ("0.000000001", {"m": 1}),
    "inch": ("0.0254", {"m": 1}), "ft": ("0.3048", {"m": 1}), "yd": ("0.9144", {"m": 1}), "mi": ("1609.344", {"m": 1}),
    "g": ("0.001", {"kg": 1}), "mg": ("0.000001", {"kg": 1}), "tonne": ("1000", {"kg": 1}),
    "lb": ("0.45359237", {"kg": 1}), "oz": ("0.028349523125", {"kg": 1}),
    "ms": ("0.001", {"s": 1}), "min": ("60", {"s": 1}), "h": ("3600", {"s": 1}), "day": ("86400", {"s": 1}),
    "week": ("604800", {"s": 1}), "month": ("1", {"month": 1}), "year": ("12", {"month": 1}),
    "decade": ("120", {"month": 1}), "century": ("1200", {"month": 1}),
    "l": ("0.001", {"m": 3}), "dl": ("0.0001", {"m": 3}), "cl": ("0.00001", {"m": 3}), "ml": ("0.000001", {"m": 3}),
    "gal": ("0.003785411784", {"m": 3}), "qt": ("0.000946352946", {"m": 3}), "pt": ("0.000473176473", {"m": 3}),
    "ha": ("10000", {"m": 2}), "acre": ("4046.8564224", {"m": 2}),
    "cent": ("0.01", {"dollar": 1}), "hz": ("1", {"s": -1}), "khz": ("1000", {"s": -1}), "mhz": ("1000000", {"s": -1}),
    "newton": ("1", {"kg": 1, "m": 1, "s": -2}), "joule": ("1", {"kg": 1, "m": 2, "s": -2}),
    "kj": ("1000", {"kg": 1, "m": 2, "s": -2}), "watt": ("1", {"kg": 1, "m": 2, "s": -3}),
    "kw": ("1000", {"kg": 1, "m": 2, "s": -3}), "pa": ("1", {"kg": 1, "m": -1, "s": -2}),
    "kpa": ("1000", {"kg": 1, "m": -1, "s": -2}),
}
_ALIASES = {
    "usd": "dollar", "buck": "dollar", "c": "cent", "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "millimeter": "mm", "millimetre": "mm", "decimeter": "dm", "decimetre": "dm",
    "micron": "micrometer", "micrometre": "micrometer", "nanometer": "nm", "gram": "g", "kilogram": "kg", "kilo": "kg",
    "milligram": "mg", "kgs": "kg", "liter": "l", "litre": "l", "milliliter": "ml", "millilitre": "ml", "second": "s",
    "sec": "s", "minute": "min", "mins": "min", "hour": "h", "hr": "h", "yr": "year", "inches": "inch", "in": "inch",
    "foot": "ft", "feet": "ft", "pound": "lb", "lbs": "lb", "ounce": "oz", "yard": "yd", "mile": "mi", "gallon": "gal",
    "quart": "qt", "pint": "pt", "hectare": "ha", "centuries": "century", "n": "newton", "j": "joule", "w": "watt",
    "people": "person", "men": "man", "women": "woman", "children": "child", "days": "day", "millisecond": "ms",
    "deg": "degree", "rads": "radian", "rad": "radian", "euros": "euro", "eur": "euro", "gbp": "sterling",
    "cubed": "cubic", "squared": "square", "sq": "square", "cu": "cubic",
}
_COMPOUND = {"mph": "mi/h", "kmph": "km/h", "kph": "km/h", "mps": "m/s", "fps": "ft/s", "cc": "cm^3", "bps": "bit/s"}
_SKIPPED = frozenset(("of", "the", "a", "an", "us"))
_NOT_A_UNIT = re.compile(
    "hundreds?|thousands?|millions?|billions?|trillions?|mil|bn|k|dozens?|scores?|half|halves|thirds?|quarters?|fourths?"
    "|fifths?|sixths?|eighths?|tenths?|hundredths?|thousandths?|percent|percentage|pct|or|and|to|plus|minus|times|over|by"
    "|divided|factorial|choose|mod|modulo|remainder|r|base|pi|sqrt|sin|cos|tan|log|ln|exp|inf|infinity|nan|oo"
    "|e|i|x|y|z|n|is|was|not|no|if|else|then|because|since|but|through|between|about|approximately|for|when|where")
"""Words after a numeral that change what it says; a number followed by one of them is not read as number and unit."""

_LETTER = re.compile("[mgshlLAVWNJKCFcd]")
_PAIR = re.compile("cm|mm|km|kg|mg|ml|mL|ft|oz|lb|in|am|pm|th|st|nd|rd|hr")
"""Units of two letters that may stand at the numeral without a space; other pairs are as likely a product."""
_SHAPE = re.compile(
    r"[A-Za-z\u00b5\u03bc]+\.?(?:\s?\^\s?\{?\s?-?[0-9]\s?\}?)?"
    r"(?:(?:\s?/\s?|\s?\*\s?|-|\s)[A-Za-z\u00b5\u03bc]+\.?(?:\s?\^\s?\{?\s?-?[0-9]\s?\}?)?){0,7}")
_WORD = re.compile(r"(?P<word>[a-z\u00b5\u03bc]+)|\^\s?\{?\s?(?P<power>-?[0-9])\s?\}?|(?P<slash>/)")


@dataclass(frozen=True)
class Unit:
    """A factor and the powers of base dimensions, sorted; dimensions of unknown words begin with `word:`."""

    factor: Fraction
    powers: tuple[tuple[str, int], ...]

    @property
    def measure(self) -> tuple[tuple[str, int], ...]:
        """The powers of what can be measured."""
        return tuple(power for power in self.powers if not power[0].startswith("word:"))

    @property
    def labels(self) -> frozenset[str]:
        """The words that merely say what is counted."""
        return frozenset(name for name, _ in self.powers if name.startswith("word:"))


def read_unit(text: str, glued: bool) -> str | None:
    """The unit after a numeral in one spelling, or None where the words are not (surely) a unit.

    Args:
        text: What follows the numeral, cleaned.
        glued: No space stands between the numeral and it, as in algebra (`5x`).
    """
    text = text.strip("()[] ")
    if not text or len(text) > MAX_UNIT or not _SHAPE.fullmatch(text):
        return None
    words = re.findall(r"[A-Za-z\u00b5\u03bc]+", text)
    if words == ["times"]:
        return "time" if not glued else None
    if any(_NOT_A_UNIT.fullmatch(word.lower()) for word in words):
        return None
    if len(words[0]) == 1 and (glued or not _LETTER.fullmatch(words[0])):
        return None
    if glued and len(words[0]) == 2 and not _PAIR.fullmatch(words[0]):
        return None
    return re.sub(r"\s*([/^*])\s*", r"\1", re.sub(r"[\s{}]+", " ", text.lower().rstrip(".")).strip())


@functools.lru_cache(maxsize=1024)
def unit_of(text: str) -> Unit:
    """The meaning of a unit that `read_unit` returned."""
    factor, powers = Fraction(1), dict[str, int]()
    sign, pending, last = 1, 1, None
    for match in _WORD.finditer(text):
        if match["slash"] or match["word"] == "per":
            sign, last = -1, None
        elif match["power"]:
            if last is not None and abs(int(match["power"])) <= MAX_POWER:
                factor = _multiply(powers, factor, last, (int(match["power"]) - 1) * sign)
        else:
            word = _canonical(match["word"])
            if word in ("square", "cubic"):
                power = 2 if word == "square" else 3
                if last is not None and match["word"] in ("squared", "cubed"):
                    factor = _multiply(powers, factor, last, (power - 1) * sign)
                else:
                    pending = power
            elif word not in _SKIPPED:
                if word in _COMPOUND:
                    inner = unit_of(_COMPOUND[word])
                    factor *= inner.factor ** sign
                    for name, power in inner.powers:
                        powers[name] = powers.get(name, 0) + power * sign
                    last = None
                else:
                    factor = _multiply(powers, factor, word, pending * sign)
                    last = word
                pending = 1
    return Unit(factor, tuple(sorted((name, power) for name, power in powers.items() if power)))


def converted(value: Fraction, unit: str, into: str) -> Fraction | None:
    """A value in another unit of the same dimensions; None where they measure different things."""
    if unit == into:
        return value
    source, target = unit_of(unit), unit_of(into)
    if source.measure != target.measure:
        return None
    if source.labels and target.labels and not source.labels & target.labels:
        return None  # apples for oranges; `pieces` for `pieces of candy` may pass
    return value * source.factor / target.factor


def known(unit: str) -> bool:
    """Whether every word of a unit is a measure."""
    return not unit_of(unit).labels


def _canonical(word: str) -> str:
    if word in _BASE:
        return word
    if word in _ALIASES:
        return _ALIASES[word]
    singular = word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word
    if singular in _BASE:
        return singular
    if singular in _ALIASES:
        return _ALIASES[singular]
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else singular


def _multiply(powers: dict[str, int], factor: Fraction, word: str, power: int) -> Fraction:
    """Take a word's dimensions into `powers`; returns the new factor."""
    value, dimensions = _BASE.get(word, ("1", {f"word:{word}": 1}))
    for name, exponent in dimensions.items():
        powers[name] = powers.get(name, 0) + exponent * power
    return factor * Fraction(value) ** power
