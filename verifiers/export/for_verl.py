"""A verifier as a reward function of verl.

    reward.custom_reward_function.path=math_verl.py reward.custom_reward_function.name=compute_score

`compute_score_async` is the same for an event loop, `compute_score_batch` for the reward manager `batch`. The gold
answer is `ground_truth`; where it is an object (also as JSON), its fields are the verifier's (`tests`, `entry_point`).
Those of `extra_info` are given too, the problem as `question`.

verl has no way to leave a completion out: one without a verdict has the score 0 and `no_verdict` 1, which verl logs.
Too many of them stop the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifiers.api import Outcome, Verdict
from verifiers.export.bridge import Bridge, fields_of

VERIFIER = "math"
GOLD = "answer"
PARTIAL_CREDIT = False
NUM_WORKERS = 2
MAX_NO_VERDICT = 0.05
"""Share of the latest verdicts that may be missing; beyond it the training stops with the worst reason."""
NO_FIELDS = frozenset(("num_turns", "rollout_reward_scores", "completion", "gold", "answer", "id"))

BRIDGE = Bridge(VERIFIER, GOLD, PARTIAL_CREDIT, NUM_WORKERS, MAX_NO_VERDICT)


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, float]:
    """`score`, `acc` (1 if correct) and `no_verdict` (1 if there is none) of one completion."""
    return _told(BRIDGE.judge([_row(data_source, solution_str, ground_truth, extra_info)])[0])


async def compute_score_async(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, float]:
    """The same for an event loop."""
    return _told((await BRIDGE.judge_async([_row(data_source, solution_str, ground_truth, extra_info)]))[0])


def compute_score_batch(
    data_sources: Sequence[str], solution_strs: Sequence[str], ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None] | None = None, **_: Any,
) -> list[dict[str, float]]:  # fmt: skip
    """The same for a whole batch, judged in all workers."""
    infos = [None] * len(solution_strs) if extra_infos is None else extra_infos
    given = zip(data_sources, solution_strs, ground_truths, infos, strict=True)
    return [_told(verdict) for verdict in BRIDGE.judge([_row(*one) for one in given])]


def _row(source: str, completion: str, truth: Any, info: Mapping[str, Any] | None) -> dict[str, Any]:
    fields = fields_of(truth)
    gold = {GOLD: fields.pop("answer")} if "answer" in fields else {}
    more = {key: value for key, value in (info or {}).items() if key not in NO_FIELDS}
    return {**more, **fields, **gold, "source": str(source), "completion": completion}


def _told(verdict: Verdict) -> dict[str, float]:
    worth = BRIDGE.worth(verdict)
    return {
        "score": 0.0 if worth is None else worth,
        "acc": float(verdict.outcome is Outcome.CORRECT),
        "no_verdict": float(worth is None),
    }
