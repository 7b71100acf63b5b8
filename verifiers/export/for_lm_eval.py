"""A verifier as a metric of lm-eval: the task beside this file names `judge_all` as a filter and `process_results`.

All of a task's answers are judged together, in the pool's workers, before lm-eval asks for the metrics of each. An
answer without a verdict counts as wrong in `correct` and is counted in `no_verdict`: with all of them right, `correct`
would be the sum of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifiers.api import Outcome
from verifiers.export.bridge import Bridge

VERIFIER = "math"
GOLD = "answer"
PARTIAL_CREDIT = False
NUM_WORKERS = 2
MAX_NO_VERDICT = 0.1
"""Share of the latest verdicts that may be missing; beyond it the evaluation stops with the worst reason."""

BRIDGE = Bridge(VERIFIER, GOLD, PARTIAL_CREDIT, NUM_WORKERS, MAX_NO_VERDICT)


def judge_all(
    resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The verdicts of all answers to all problems; a filter of lm-eval, where `resps` are what the model said."""
    rows = [{**doc, "completion": text} for doc, texts in zip(docs, resps, strict=True) for text in texts]
    verdicts = iter(BRIDGE.judge(rows))
    return [[_told(next(verdicts)) for _ in texts] for texts in resps]


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """`correct` and `no_verdict` of one problem, each a mean over its answers."""
    told = results[0] if results and isinstance(results[0], list) else results
    if any(isinstance(one, str) for one in told):  # a task without the filter
        (told,) = judge_all([[str(one) for one in told]], [doc])
    num = max(1, len(told))
    return {
        "correct": sum(one["worth"] or 0.0 for one in told) / num,
        "no_verdict": sum(one["worth"] is None for one in told) / num,
    }


def _told(verdict: Any) -> dict[str, Any]:
    """For lm-eval's log of samples too."""
    outcome: Outcome = verdict.outcome
    return {
        "worth": BRIDGE.worth(verdict), "outcome": outcome.value, "extracted": verdict.extracted,
        "reason": verdict.reason,
    }  # fmt: skip
