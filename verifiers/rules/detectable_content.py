"""`detectable_content`: placeholders in square brackets, and a postscript."""

from __future__ import annotations

import re

from verifiers.rules.rule import Rule

_POSTSCRIPTS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}


def number_placeholders(response: str, num_placeholders: int) -> bool:
    """At least so many `[...]`, each within a line."""
    return sum(map(_brackets, response.split("\n"))) >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    """The marker occurs, in any case; in the two usual markers a space may follow each dot."""
    marker = postscript_marker.strip()
    pattern = _POSTSCRIPTS.get(marker)
    lowered = response.lower()
    return marker.lower() in lowered if pattern is None else pattern.search(lowered) is not None


def _brackets(line: str) -> int:
    """Brackets that open and close, from the left; linear however many only open."""
    count = start = 0
    while (opened := line.find("[", start)) >= 0 and (closed := line.find("]", opened)) >= 0:
        count, start = count + 1, closed + 1
    return count


RULES = {
    "number_placeholders": Rule(number_placeholders, {"num_placeholders": "count"}),
    "postscript": Rule(postscript, {"postscript_marker": "text"}),
}
