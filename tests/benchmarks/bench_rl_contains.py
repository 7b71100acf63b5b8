"""The verifier of `bench_rl.py`: a completion is right if it holds the gold text, as the peer's reward function says.

It is not among the built-in ones: `bench_rl_ours.py` offers it as a plugin, so that it is judged in the pool's workers
like any other.
"""

from __future__ import annotations

from verifiers.api import Task, Verdict, correct, incorrect


class ContainsVerifier:
    """Correct if the gold text stands anywhere in the completion."""

    name = "contains"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion."""
        return correct(task.answer, "found") if task.answer in completion else incorrect("not_found")
