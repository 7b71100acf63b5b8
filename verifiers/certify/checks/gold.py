"""Every gold case is judged correct."""

from __future__ import annotations

from verifiers.api import Outcome
from verifiers.certify.bench import Bench, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding

NAME = "gold"


def check(bench: Bench) -> Finding:
    """Also remembers the verdicts, their reasons and how long one takes, for the checks that follow."""
    judged = bench.remember(bench.gold)
    pairs = list(zip(bench.gold, judged, strict=True))
    bench.reasons = list(dict.fromkeys(one.verdict.reason for one in judged if one is not None))[:8]
    faults = [(case, one, "") for case, one in pairs if one is not None and one.is_fault]
    if faults:
        case, one, _ = smallest(faults)
        return Finding(
            NAME,
            "failed",
            f"on gold case {case.task.id} {fault_sentence(one, bench.deadline_s)}",
            evidence(case, one),
        )
    refused = [(case, one, "") for case, one in pairs if one is not None and one.verdict.outcome is not Outcome.CORRECT]
    if refused:
        case, one, _ = smallest(refused)
        return Finding(
            NAME,
            "failed",
            f"{len(refused)} of {len(pairs)} gold cases are not judged correct, the shortest in {case.task.id} "
            f"(reason {one.verdict.reason!r}): mend the verifier, or the case where it is wrong",
            evidence(case, one),
        )
    return Finding(NAME, "passed", f"all {len(pairs)} gold cases are judged correct")
