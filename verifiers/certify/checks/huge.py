"""Huge text ends in a verdict within the deadline: megabytes, deep nesting, a hundred thousand of one thing."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.adversarial import tasks_of
from verifiers.certify.checks.survival import survive
from verifiers.certify.malformed import huge
from verifiers.certify.texts import with_completion

NAME = "huge"


def check(bench: Bench) -> Finding:
    """All of it, on one task."""
    case = tasks_of(bench, 1)[0]
    return survive(bench, NAME, [(with_completion(case, completion), what) for what, completion in huge(case)], "huge")
