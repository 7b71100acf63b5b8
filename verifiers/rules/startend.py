"""`startend`: how a response ends, and whether it stands in double quotation marks."""

from __future__ import annotations

from verifiers.rules.rule import Rule


def end_checker(response: str, end_phrase: str) -> bool:
    """It ends with the phrase, in any case; quotation marks around the whole may follow."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """The first and the last character are straight double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


RULES = {"end_checker": Rule(end_checker, {"end_phrase": "text"}), "quotation": Rule(quotation)}
