"""Broken text ends in a verdict: half characters, control characters, what is neither JSON nor a program."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.adversarial import tasks_of
from verifiers.certify.checks.survival import survive
from verifiers.certify.malformed import MALFORMED
from verifiers.certify.texts import with_completion

NAME = "malformed"


def check(bench: Bench) -> Finding:
    """All of it, on two tasks."""
    made = [
        (with_completion(case, completion), what)
        for case in tasks_of(bench, 2)
        for what, completion in MALFORMED.items()
    ]
    return survive(bench, NAME, made, "malformed")
