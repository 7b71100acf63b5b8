"""`think_puzzles`: one closed `<think>...</think>`, then a right solution of a reasoning-gym problem outside it.

The families' partial credit counts for up to half of a right solution, and only with the right form: it gives a group
of wrong completions an order to learn from.
"""

from __future__ import annotations

from verifiers.composite import Composite
from verifiers.format import FormatVerifier
from verifiers.puzzles import PuzzleVerifier


def think_puzzles() -> Composite:
    """The composite that the registry finds under this name."""
    return Composite(
        "think_puzzles", decides=[PuzzleVerifier()], gates=[FormatVerifier()], weights={"puzzles": 1.0}, ceiling=0.5
    )
