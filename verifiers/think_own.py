"""`think_own`: one closed `<think>...</think>`, then what the task's own verifier takes as right. All or nothing.

The reward of a reasoning stage whose problems are of several kinds, as QwQ-32B's first stage has mathematics and code,
and its second whatever else can be checked (https://qwenlm.github.io/blog/qwq-32b). The task names the verifier:
`math`, `puzzles`, `code`, `instructions` and others (`verifiers/own.py`).
"""

from __future__ import annotations

from verifiers.composite import Composite
from verifiers.format import FormatVerifier
from verifiers.own import OwnVerifier


def think_own() -> Composite:
    """The composite that the registry finds under this name."""
    return Composite("think_own", decides=[OwnVerifier()], gates=[FormatVerifier()])
