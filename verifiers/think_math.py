"""`think_math`: one closed `<think>...</think>`, then the right mathematical answer outside it. All or nothing.

The reward of a QwQ-style reasoning stage. A right answer without the form earns nothing, and neither does the form
without the answer: what is paid for by itself is what a model learns to write.
"""

from __future__ import annotations

from verifiers.composite import Composite
from verifiers.format import FormatVerifier
from verifiers.math import MathVerifier


def think_math() -> Composite:
    """The composite that the registry finds under this name."""
    return Composite("think_math", decides=[MathVerifier()], gates=[FormatVerifier()])
