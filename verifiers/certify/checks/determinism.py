"""The same completion gets the same verdict: twice in one process, and in processes with other hash seeds."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import allowed_s, first_difference, said
from verifiers.certify.children import ChildFault, ask_all

NAME = "determinism"
HASH_SEEDS = (1, 2)


def check(bench: Bench) -> Finding:
    """Outcome, score, extracted answer and reason are compared."""
    cases = [bench.cases[place] for place in bench.sample(4)]
    order = [place for place in range(len(cases)) for _ in range(2)]
    seeds = [{"hash_seed": seed} for seed in HASH_SEEDS]
    try:
        answers = ask_all(bench, "verdicts", cases, allowed_s(bench, len(order)), *seeds, order=order)
    except ChildFault as fault:
        return Finding(NAME, "failed", f"judging its cases in a process of its own: it {fault}")
    found = first_difference(cases, answers[0][::2], answers[0][1::2])
    if found is not None:
        return Finding(
            NAME,
            "failed",
            f"the same completion, judged twice in a row, gets two verdicts: {said(found)}; keep no state between "
            "calls, and judge by no clock and no chance",
            found,
        )
    found = first_difference(cases, answers[0][::2], answers[1][::2])
    if found is not None:
        return Finding(
            NAME,
            "failed",
            f"two processes with different hash seeds give two verdicts: {said(found)}; sort sets before their order "
            "matters, and use no hash() and no chance",
            found,
        )
    return Finding(
        NAME, "passed", "verdicts are the same twice in a row and under two hash seeds", measured={"cases": len(cases)}
    )
