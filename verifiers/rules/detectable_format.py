"""`detectable_format`: bullets, sections, highlights, a title, JSON, one of three set answers.

Departures: a response that holds more than one of the three set answers has not chosen (published, one is enough);
section marks are taken literally; a lone `*` is a bullet of its own and does not swallow the next line.
"""

from __future__ import annotations

import json
import re

from verifiers.rules.rule import Rule

SET_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_BULLET = re.compile(r"^[^\S\n]*(?:\*(?!\*)|-)", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*")
_FENCES = ("```json", "```Json", "```JSON", "```")


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `*` (not `**`) or `-`."""
    return len(_BULLET.findall(response)) == num_bullets


def constrained_response(response: str) -> bool:
    """One of the set answers occurs."""
    return sum(answer in response for answer in SET_ANSWERS) == 1


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """At least so many `*...*` or `**...**` that are not empty, each within a line."""
    found = _HIGHLIGHT.findall(response) + _DOUBLE_HIGHLIGHT.findall(response)
    return sum(bool(text.strip()) for text in found) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many marks with a number behind them, as `Section 1`."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """All of it is one JSON value, in a code fence or not."""
    text = response.strip()
    for fence in _FENCES:  # as published, one after another
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):  # RecursionError: nested beyond what any reader takes
        return False
    return True


def title(response: str) -> bool:
    """A line holds `<<...>>` with something inside."""
    return any(map(_has_title, response.split("\n")))


def _has_title(line: str) -> bool:
    opened, closed = line.find("<<"), line.rfind(">>")
    return 0 <= opened < closed - 2 and bool(line[opened : closed + 2].lstrip("<").rstrip(">").strip())


RULES = {
    "number_bullet_lists": Rule(number_bullet_lists, {"num_bullets": "count"}),
    "constrained_response": Rule(constrained_response),
    "number_highlighted_sections": Rule(number_highlighted_sections, {"num_highlights": "count"}),
    "multiple_sections": Rule(multiple_sections, {"section_spliter": "text", "num_sections": "count"}),
    "json_format": Rule(json_format),
    "title": Rule(title),
}
