"""`punctuation`: no comma anywhere. As published, only the ASCII comma counts."""

from __future__ import annotations

from verifiers.rules.rule import Rule


def no_comma(response: str) -> bool:
    """No comma at all."""
    return "," not in response


RULES = {"no_comma": Rule(no_comma)}
