"""What the question says about the form of its answer, for the few comparisons that turn on it.

Each function takes the question's text (empty where there is none, which never widens what is accepted) and is called
only after every comparison without it has failed, so that it costs nothing on easy answers.

What this does not do: it understands no language; each hint is a fixed English pattern.
"""

from __future__ import annotations

import functools
import re

MAX_QUESTION = 20_000
"""Characters that are looked at, from the end."""

_PERCENT = re.compile(
    r"\b(?:what|which|how many|find the|determine the|by what|by how many|compute the|calculate the)\b"
    r"[^.?!\n0-9]{0,60}?"
    r"\b(?:percent(?:age)?s?)\b|\\%\s*(?:\?|of what)|in percent|as a percent|(?:_{3,}|\\_)\s*\\?%", re.IGNORECASE)
_BASE = re.compile(r"\bbases?\b|_\{?[0-9]{1,2}\}?\s*\$", re.IGNORECASE)
_ROUNDED = re.compile(
    r"\bround(?:ed|ing)?\b|\bnearest\b|\bdecimal (?:place|point|digit)|\bsignificant (?:figure|digit)|\bapproximate"
    r"|\bto the (?:tenth|hundredth|thousandth)", re.IGNORECASE)
_ABOUT = re.compile(r"\bapproximately\b|\bestimate\b|\broughly\b", re.IGNORECASE)
_TO_PLACE = re.compile(r"\bround(?:ed|ing)?\b|\bnearest\b|\bdecimal\b|\bsignificant\b|\bexact", re.IGNORECASE)
_MONOTONE = re.compile(
    r"\b(?:interval|domain)s? (?:of|on which|where|in which)\b[^.?!]{0,60}\b(?:increas|decreas|monoton)"
    r"|\b(?:increasing|decreasing|monoton\w+)\b[^.?!]{0,20}\bintervals?\b", re.IGNORECASE)
_RATIO = re.compile(r"\bratio\b|\bproportion\b|\bodds\b", re.IGNORECASE)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\[A-Za-z]+")
_OPTION = re.compile(
    r"(?:^|[\s({\[]|\\text(?:bf)?\{|\\mathrm\{)\(?([A-J])\s*[).:]\s*\}?\s*(.+?)"
    r"(?=(?:[\s({\[]|\\text(?:bf)?\{|\\mathrm\{|\\q?quad)+\(?[A-J]\s*[).:]|\n|$)", re.DOTALL)
_WH = re.compile(r"\b(?:who|which|what)\b\s+", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")
_ARTICLES = frozenset(("a", "an", "the"))


def asks_percent(question: str) -> bool:
    """Whether a percentage is asked for, so that 40 and 40% say the same."""
    return _PERCENT.search(question[-MAX_QUESTION:]) is not None


def asks_base(question: str) -> bool:
    """Whether numbers of another base are spoken of."""
    return _BASE.search(question[-MAX_QUESTION:]) is not None


def asks_rounding(question: str) -> bool:
    """Whether a rounded or approximate value is asked for."""
    return _ROUNDED.search(question[-MAX_QUESTION:]) is not None


def asks_estimate(question: str) -> bool:
    """Whether an approximate value is asked for, to no stated place."""
    question = question[-MAX_QUESTION:]
    return _ABOUT.search(question) is not None and _TO_PLACE.search(question) is None


def asks_monotone_interval(question: str) -> bool:
    """Whether an interval of increase or decrease is asked for, whose ends may be written open or closed."""
    return _MONOTONE.search(question[-MAX_QUESTION:]) is not None


def asks_ratio(question: str) -> bool:
    """Whether a ratio is asked for."""
    return _RATIO.search(question[-MAX_QUESTION:]) is not None


@functools.lru_cache(maxsize=64)
def letters_of(question: str) -> frozenset[str]:
    """The letters and commands in the question's formulas; all its single letters where it has no formula."""
    question = question[-MAX_QUESTION:]
    spans = ["".join(match) for match in _MATH.findall(question)]
    return frozenset(letter for span in spans or [question] for letter in _LETTERS.findall(span))


def order_of(labels: list[str], question: str) -> list[str]:
    """The labels in the order in which the question last lists them; alphabetically where it does not list them all."""
    question = question[-MAX_QUESTION:]
    places: dict[str, int] = {}
    for label in labels:
        found = re.finditer(rf"(?<![A-Za-z\\]){re.escape(label)}(?![A-Za-z])", question)
        places[label] = max((match.start() for match in found), default=-1)
    if min(places.values(), default=-1) < 0:
        return sorted(labels)
    return sorted(labels, key=places.__getitem__)


def options_of(question: str) -> dict[str, str]:
    """The choices that the question offers, by letter; empty unless there are at least two, from A on."""
    if "B" not in question:
        return {}
    found = {match[1]: match[2].strip(" \t\n$.,;\\") for match in _OPTION.finditer(question[-4_000:])}
    letters = sorted(found)
    return found if len(letters) >= 2 and letters == list("ABCDEFGHIJ"[: len(letters)]) else {}


def completes(gold: str, answer: str, question: str) -> bool:
    """Whether the gold sentence is the question with the answer in place of its question word.

    `Anna won the race` completes `Who won the race, if ...` for the answer `Anna`.
    """
    sentence, said = _words(gold), _words(answer)
    rest = sentence[len(said):]
    if not said or len(rest) < 2 or sentence[: len(said)] != said:
        return False
    question = question[-MAX_QUESTION:]
    return any(_words(question[match.end():])[: len(rest)] == rest for match in _WH.finditer(question))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text[:2_000].lower()) if word not in _ARTICLES]
