"""A verifier as a reward function of TRL: 1.0 correct, 0.0 incorrect, None where there is no verdict.

    from math_trl import reward                     # or reward_async, which TRL gathers beside other asynchronous ones
    GRPOTrainer(..., reward_funcs=reward)

The data set's columns reach the verifier by their names; `GOLD` is the one with the gold answer. TRL keeps a completion
without a reward out of its group's mean and out of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifiers.export.bridge import Bridge, rows_of

VERIFIER = "math"
GOLD = "answer"
PARTIAL_CREDIT = False
NUM_WORKERS = 2
MAX_NO_VERDICT = 0.05
"""Share of the latest verdicts that may be missing; beyond it the training stops with the worst reason."""
NO_COLUMNS = frozenset(("completion_ids", "environments", "trainer_state", "log_extra", "log_metric"))

BRIDGE = Bridge(VERIFIER, GOLD, PARTIAL_CREDIT, NUM_WORKERS, MAX_NO_VERDICT)


def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """One reward a completion, judged in the pool's workers; texts and chat messages are understood."""
    return [BRIDGE.worth(verdict) for verdict in BRIDGE.judge(_rows(prompts, completions, columns))]


async def reward_async(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """The same for an event loop."""
    return [BRIDGE.worth(verdict) for verdict in await BRIDGE.judge_async(_rows(prompts, completions, columns))]


def _rows(prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> list[dict[str, Any]]:
    return rows_of(prompts, completions, {name: one for name, one in columns.items() if name not in NO_COLUMNS})


reward.__name__ = reward_async.__name__ = VERIFIER  # what TRL's log calls them
