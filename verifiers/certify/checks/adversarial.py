"""Nothing of the adversarial pack earns full marks."""

from __future__ import annotations

from collections.abc import Iterable

from verifiers.api import Outcome
from verifiers.cases import Case
from verifiers.certify.adversarial import controls, entries
from verifiers.certify.bench import Bench, Judged, as_line, evidence, fault_sentence, smallest
from verifiers.certify.card import Finding
from verifiers.certify.rewrites import same_task
from verifiers.certify.texts import with_completion

NAME = "adversarial"
MAX_TASKS = 6
"""Tasks, spread over the cases, on which the pack is tried."""
SLOW_S = 0.2
"""Seconds for a judgement from which two tasks must do."""


def check(bench: Bench) -> Finding:
    """The whole pack on several tasks."""
    made: list[tuple[Case, str]] = []
    for case in tasks_of(bench, 2 if bench.mean_s > SLOW_S else MAX_TASKS):
        near = [each for each in bench.near_misses if same_task(each, case) and each.completion.strip()][:2]
        if not case.task.answer.strip():  # a rule about the text judges, which any text may follow
            near = [each for each in near if not _takes(bench, case, controls(each))]
            if _takes(bench, case, controls(None)):
                continue
        for what, completion in entries(case, near, bench.reasons):
            entry = with_completion(case, completion)
            if bench.expected(entry) is not Outcome.CORRECT:
                made.append((entry, what))
    if not made:
        return Finding(
            NAME,
            "failed",
            "on each of its tasks some text that has nothing to do with it earns full marks; mend the verifier, or add "
            "a case whose task asks for more",
        )
    judged = bench.judge([case for case, _ in made])
    accepted: list[tuple[Case, Judged, str]] = []
    faults: list[tuple[Case, Judged, str]] = []
    for (case, what), one in zip(made, judged, strict=True):
        if one is not None and one.verdict.outcome is Outcome.CORRECT:
            accepted.append((case, one, what))
        elif one is not None and one.is_fault:
            faults.append((case, one, what))
    if accepted:
        case, one, what = smallest(accepted)
        kinds = list(dict.fromkeys(what for _, _, what in accepted))
        return Finding(
            NAME,
            "failed",
            f"{len(accepted)} completions without a right answer earn full marks ({', '.join(kinds[:4])}"
            f"{', ...' if len(kinds) > 4 else ''}): read the answer alone, and nothing that speaks to the judge; if "
            f"this one is right, add the case {as_line(case, Outcome.CORRECT)}",
            evidence(case, one, what),
        )
    if faults:
        case, one, what = smallest(faults)
        return Finding(
            NAME, "failed", f"on {what} {fault_sentence(one, bench.deadline_s)}", evidence(case, one, what)
        )
    return Finding(NAME, "passed", f"none of {len(made)} adversarial completions earns full marks")


def _takes(bench: Bench, case: Case, texts: Iterable[str]) -> bool:
    """Whether one of these texts is correct."""
    judged = bench.judge([with_completion(case, text) for text in texts])
    return any(one is not None and one.verdict.outcome is Outcome.CORRECT for one in judged)


def tasks_of(bench: Bench, count: int) -> list[Case]:
    """One gold case of each of so many different tasks, spread over all."""
    distinct: list[Case] = []
    for case in bench.gold:
        if not any(same_task(case, each) for each in distinct):
            distinct.append(case)
    count = min(count, len(distinct))
    return [distinct[place * len(distinct) // count] for place in range(count)]
