"""A completion that is written in another way keeps its verdict: gold stays correct, a near miss stays incorrect."""

from __future__ import annotations

from verifiers.api import Outcome
from verifiers.cases import Case
from verifiers.certify.bench import Bench, Judged, as_line, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding
from verifiers.certify.rewrites import REWRITES
from verifiers.certify.texts import with_completion

NAME = "rewrites"


def check(bench: Bench) -> Finding:
    """All rewrites of all cases, without those that the cases themselves call another answer."""
    made: list[tuple[Case, str, Outcome]] = []
    left_out: dict[str, Case] = {}
    for case in bench.cases:
        for rewrite in REWRITES:
            completion = rewrite.of(case)
            if completion is None:
                continue
            rewritten = with_completion(case, completion)
            known = bench.expected(rewritten)
            near = rewrite.forbidden_by(case, bench.near_misses) if case.expect is Outcome.CORRECT else None
            if known not in (None, case.expect) or (near is not None and known is None):
                left_out.setdefault(rewrite.name, near or rewritten)
                continue
            made.append((rewritten, rewrite.name, case.expect))
    if not made:
        return Finding(NAME, "skipped", "no rewrite applies to its cases")
    judged = bench.judge([case for case, _, _ in made])
    failures: list[tuple[Case, Judged, str]] = []
    lost: list[tuple[Case, Judged, str]] = []
    won: list[tuple[Case, Judged, str]] = []
    for (case, what, expect), one in zip(made, judged, strict=True):
        if one is None:  # after so many faults, which are told below
            continue
        if one.is_fault:
            failures.append((case, one, what))
        elif (one.verdict.outcome is Outcome.CORRECT) != (expect is Outcome.CORRECT):
            (lost if expect is Outcome.CORRECT else won).append((case, one, what))
    if failures:
        case, one, what = smallest(failures)
        sentence = f"with {what} {fault_sentence(one, bench.deadline_s)}"
        return Finding(NAME, "failed", sentence, evidence(case, one, what))
    if won:
        case, one, what = smallest(won)
        return Finding(
            NAME,
            "failed",
            f"{_some(won)}: a near miss becomes correct with {what}, which changes nothing of what it says; judge the "
            "answer and not its form",
            evidence(case, one, what),
        )
    if lost:
        case, one, what = smallest(lost)
        return Finding(
            NAME,
            "failed",
            f"{_some(lost)} of {len(made)}: a gold completion is refused with {what} (reason {one.verdict.reason!r}); "
            f"accept it, or, if it is to be wrong, add the case {as_line(case, Outcome.INCORRECT)}",
            evidence(case, one, what),
        )
    apart = "; ".join(f"{name} by {case.task.id}" for name, case in left_out.items())
    return Finding(
        NAME,
        "passed",
        f"{len(made)} rewrites keep their verdict" + (f"; another answer, as the cases say: {apart}" if apart else ""),
    )


def _some(failures: list[tuple[Case, Judged, str]]) -> str:
    kinds = list(dict.fromkeys(what for _, _, what in failures))
    return f"{len(failures)} rewrites ({', '.join(kinds[:3])}{', ...' if len(kinds) > 3 else ''})"
