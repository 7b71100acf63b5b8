"""A forked child judges as its parent does: nothing that a fork breaks is held between calls."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import allowed_s, baseline, first_difference, said
from verifiers.certify.children import ChildFault, ask

NAME = "fork"


def check(bench: Bench) -> Finding:
    """The parent has judged one completion before it forks."""
    places = bench.sample()
    cases = [bench.cases[place] for place in places]
    try:
        told = ask(bench, "fork", cases, allowed_s(bench, len(cases)))
    except ChildFault as fault:
        return Finding(
            NAME,
            "failed",
            f"judging in a forked child: it {fault}; what it opens (threads, processes, connections) must be opened "
            "anew where os.getpid() has changed",
        )
    if not told:
        return Finding(NAME, "failed", "the forked child ended without verdicts; open nothing that a fork breaks")
    found = first_difference(cases, baseline(bench, places), told)
    if found is not None:
        return Finding(NAME, "failed", f"a forked child gives other verdicts: {said(found)}; keep no state", found)
    return Finding(NAME, "passed", "a forked child gives the same verdicts", measured={"cases": len(cases)})
