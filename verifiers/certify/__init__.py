"""Certifying a verifier: what a reward must withstand before a model is trained on it, checked without any model.

    card = certify("math")                        # runs every check; a minute at most for a fast verifier
    card.certified, card.failed, card.rows()
    card.write(path); read_card("math")

`checks` has one file for each check, `card` what is kept of them, `labelled` measures recall and false positives.
Whatever the verifier does, it does in processes that can be killed. docs/verifiers/certification.md explains each check
and what a card does not promise.

The names are imported when they are first used: the processes that judge load this package and need none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifiers.certify.bench import Limits
    from verifiers.certify.card import Card, Finding, Labelled, load_card, read_card
    from verifiers.certify.run import certify

__all__ = ["Card", "Finding", "Labelled", "Limits", "certify", "load_card", "read_card"]

_HOMES = {"certify": "run", "Limits": "bench"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'card')}"), name)
