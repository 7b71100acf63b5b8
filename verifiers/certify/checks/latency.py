"""How long a judgement takes, in a worker, without the way there; none may exceed the pool's limit."""

from __future__ import annotations

from verifiers.api import OVER_BUDGET
from verifiers.certify.bench import Bench, evidence, fault_sentence
from verifiers.certify.card import Finding

NAME = "latency"


def check(bench: Bench) -> Finding:
    """All cases, over and over; a verifier so slow that this would take half a minute is timed on fewer."""
    fitting = max(20, int(10 * bench.limits.repeat_s / max(1e-6, bench.mean_s)))
    count = max(len(bench.cases), min(bench.limits.latency_calls, fitting))
    cases = [bench.cases[place % len(bench.cases)] for place in range(count)]
    judged = bench.judge(cases)
    for case, one in zip(cases, judged, strict=True):
        if one is not None and one.is_fault:
            return Finding(NAME, "failed", f"on a case {fault_sentence(one, bench.deadline_s)}", evidence(case, one))
    seconds = sorted(
        one.verdict.seconds for one in judged if one is not None and one.verdict.reason != OVER_BUDGET
    ) or [bench.deadline_s]  # fmt: skip
    measured = {
        "calls": len(seconds),
        "p50_ms": _milliseconds(seconds, 0.5),
        "p99_ms": _milliseconds(seconds, 0.99),
        "longest_ms": _milliseconds(seconds, 1.0),
    }
    return Finding(
        NAME, "passed", f"no judgement of a case exceeds the pool's limit of {bench.deadline_s:g} s", measured=measured
    )


def _milliseconds(seconds: list[float], share: float) -> float:
    """The smallest time that this share of the judgements does not exceed."""
    place = min(len(seconds) - 1, max(0, -(-int(share * len(seconds) * 1000) // 1000) - 1))
    return round(1000 * seconds[place], 4)
