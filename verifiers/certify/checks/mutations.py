"""A gold completion that was made wrong is not correct any more."""

from __future__ import annotations

from verifiers.api import Outcome
from verifiers.certify.bench import Bench, as_line, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding
from verifiers.certify.mutations import mutations

NAME = "mutations"


def check(bench: Bench) -> Finding:
    """All mutations of all gold cases."""
    made = [
        (mutated, what)
        for case in bench.gold
        for what, mutated in mutations(case, bench.gold)
        if bench.expected(mutated) is not Outcome.CORRECT and (mutated.completion, mutated.task) != (
            case.completion, case.task)
    ]  # fmt: skip
    if not made:
        return Finding(
            NAME, "skipped", "no gold case states its task's answer or a program, so none can be made wrong by a rule"
        )
    # Another gold answer may be one that cannot be read, and so no fault that would end the check.
    judged = bench.judge([case for case, _ in made], max_faults=len(made) + 1)
    accepted, faults = [], []
    for (case, what), one in zip(made, judged, strict=True):
        if one is not None and one.verdict.outcome is Outcome.CORRECT:
            accepted.append((case, one, what))
        elif one is not None and one.is_fault and not (what.startswith("the gold") and not one.timed_out):
            faults.append((case, one, what))
    if accepted:
        case, one, what = smallest(accepted)
        return Finding(
            NAME,
            "failed",
            f"{len(accepted)} of {len(made)} completions that were made wrong are judged correct, the shortest with "
            f"{what}: compare all of the answer; if this one is right, add the case "
            f"{as_line(case, Outcome.CORRECT)}",
            evidence(case, one, what),
        )
    if faults:
        case, one, what = smallest(faults)
        sentence = f"with {what} {fault_sentence(one, bench.deadline_s)}"
        return Finding(NAME, "failed", sentence, evidence(case, one, what))
    return Finding(NAME, "passed", f"none of {len(made)} completions that were made wrong is judged correct")
