"""What the checks of malformed and of huge completions have in common."""

from __future__ import annotations

from verifiers.api import OVER_BUDGET
from verifiers.cases import Case
from verifiers.certify.bench import Bench, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding


def survive(bench: Bench, name: str, made: list[tuple[Case, str]], kind: str) -> Finding:
    """Whether all of these end in a verdict in time. Running out of memory or stack counts as one (over budget)."""
    judged = bench.judge([case for case, _ in made])
    pairs = list(zip(made, judged, strict=True))
    faults = [(case, one, what) for (case, what), one in pairs if one is not None and one.is_fault]
    if faults:
        case, one, what = smallest(faults)
        return Finding(
            name, "failed", f"on {what} {fault_sentence(one, bench.deadline_s)}", evidence(case, one, what)
        )
    ended = [one for _, one in pairs if one is not None and one.verdict.reason == OVER_BUDGET]
    longest = max(one.wall_s for one in judged if one is not None)
    return Finding(
        name,
        "passed",
        f"all {len(made)} {kind} completions end in a verdict, within the limits of time and memory or as over budget",
        measured={"longest_s": round(longest, 3), "over_budget": len(ended)},
    )
