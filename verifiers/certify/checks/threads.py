"""Eight threads at once get the verdicts that the pool got."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import allowed_s, baseline, first_difference, said
from verifiers.certify.children import ChildFault, ask

NAME = "threads"
THREADS = 8
STACK_MB = 128
"""Addresses that a thread takes for its stack and its share of the allocator, without using them."""


def check(bench: Bench) -> Finding:
    """In a process of its own; the threads change places every ten microseconds."""
    places = bench.sample(THREADS)
    cases = [bench.cases[place] for place in places]
    try:
        more_mb = bench.limits.memory_mb + THREADS * STACK_MB
        told = ask(
            bench, "threads", cases, allowed_s(bench, THREADS * len(cases)), threads=THREADS, memory_mb=more_mb
        )
    except ChildFault as fault:
        return Finding(NAME, "failed", f"judged by {THREADS} threads at once it {fault}; hold no lock while judging")
    expected = baseline(bench, places)
    for one in told:
        found = first_difference(cases, expected, one)
        if found is not None:
            hint = "use no signals: they work in the main thread alone" if "signal" in str(found["other"]) else (
                "share nothing that a call changes, or hold a lock around it"
            )  # fmt: skip
            return Finding(
                NAME, "failed", f"judged by {THREADS} threads at once, verdicts differ: {said(found)}; {hint}", found
            )
    return Finding(
        NAME, "passed", f"{THREADS} threads at once get the same verdicts", measured={"cases": len(cases)}
    )
