"""There are enough cases to tell a verifier from one that accepts, or refuses, everything."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding

NAME = "cases"
MIN_GOLD = 4
MIN_NEAR_MISSES = 4
HOW = (
    'write one JSON object a line, {"completion": "\\\\boxed{4}", "answer": "4", "expect": "correct"}, and near misses '
    'with "expect": "incorrect"; prompt and metadata as the verifier reads them'
)


def check(bench: Bench) -> Finding:
    """At least four of each kind."""
    gold, near = len(bench.gold), len(bench.near_misses)
    if not bench.cases:
        where = "cases.jsonl beside its module" if bench.cases_file is None else bench.cases_file.name
        return Finding(NAME, "failed", f"it has no cases: {HOW}, in {where}")
    if gold < MIN_GOLD or near < MIN_NEAR_MISSES:
        return Finding(
            NAME,
            "failed",
            f"{gold} gold cases and {near} near misses are too few to tell right from wrong; at least {MIN_GOLD} and "
            f"{MIN_NEAR_MISSES}: {HOW}",
        )
    return Finding(NAME, "passed", f"{gold} gold cases and {near} near misses")
