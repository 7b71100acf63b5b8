"""No near miss is judged correct."""

from __future__ import annotations

from verifiers.api import Outcome
from verifiers.certify.bench import Bench, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding

NAME = "near_misses"


def check(bench: Bench) -> Finding:
    """A near miss that is accepted is a wrong answer that would be paid."""
    judged = bench.remember(bench.near_misses)
    pairs = list(zip(bench.near_misses, judged, strict=True))
    if not pairs:
        return Finding(NAME, "failed", "there is no near miss: nothing tells it from one that accepts everything")
    accepted = [(case, one, "") for case, one in pairs if one is not None and one.verdict.outcome is Outcome.CORRECT]
    if accepted:
        case, one, _ = smallest(accepted)
        all_of_them = "all" if len(accepted) == len(pairs) else f"{len(accepted)} of"
        hint = "it seems to accept whatever it is given: " if len(accepted) == len(pairs) else ""
        return Finding(
            NAME,
            "failed",
            f"{all_of_them} {len(pairs)} near misses are judged correct, the shortest in {case.task.id}: {hint}compare "
            "the completion's answer with task.answer before it returns correct",
            evidence(case, one),
        )
    faults = [(case, one, "") for case, one in pairs if one is not None and one.is_fault]
    if faults:
        case, one, _ = smallest(faults)
        return Finding(
            NAME,
            "failed",
            f"on near miss {case.task.id} {fault_sentence(one, bench.deadline_s)}",
            evidence(case, one),
        )
    return Finding(NAME, "passed", f"none of {len(pairs)} near misses is judged correct")
