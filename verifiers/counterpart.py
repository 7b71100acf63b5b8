"""The counterpart verifier: judges each task by something else than what its own verifier would reward.

The judge of a derivative whose rewards were several: what a task names as its own verifier gave the reward, and its
counterpart decides whether there was a gain.

| the task names | it is judged by |
|---|---|
| `math`, `puzzles` | `exact`: the text of the last box, which shares no code with either |
| `code` | `code_hidden`: also the calls that no reward looked at |
| `instructions` | the task's `patterns` (regular expressions in its metadata), which the whole answer must match |

A thought is not asked for, so that a model that was never taught to think can be measured too; where one is closed,
what follows it is the answer.

What this does not do: `exact` knows no equivalence, so that it fits answers that have one way to be written; problems
with others are judged by `math_verify`, which a task source names for itself. `code_hidden` finds and runs programs
with the same code as `code`. A task without patterns, or of another verifier, gets no verdict.
"""

from __future__ import annotations

import functools
import re

from verifiers.api import OVER_BUDGET, Task, Verdict, Verifier, correct, incorrect, no_verdict
from verifiers.code_hidden import CodeHiddenVerifier
from verifiers.exact import ExactVerifier
from verifiers.format import CLOSING, OPENING
from verifiers.own import OwnVerifier

MAX_ANSWER = 100_000
"""Characters of an answer that patterns are tried on."""
SHOWN = 200


class PatternVerifier:
    """Correct if the answer, without the spaces around it, matches every pattern of the task from end to end."""

    name = "patterns"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by `patterns` of the task's metadata."""
        given = task.metadata.get("patterns")
        if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
            return no_verdict("gold_unreadable: patterns: missing or no list of texts")
        try:
            patterns = [_compiled(one) for one in given]
        except re.error as error:
            return no_verdict(f"gold_unreadable: patterns: {error}")
        answer = completion.rpartition(CLOSING)[2].strip()
        if len(answer) > MAX_ANSWER:
            return incorrect(OVER_BUDGET)
        if not answer or answer.startswith(OPENING):
            return incorrect("no_answer")
        for place, pattern in enumerate(patterns):
            if pattern.fullmatch(answer) is None:
                return incorrect(f"pattern_{place + 1}_not_matched", answer[:SHOWN])
        return correct(answer[:SHOWN], "all_patterns_matched")


def counterpart() -> OwnVerifier:
    """The verifier that the registry finds under this name."""
    exact = ExactVerifier()
    parts: dict[str, Verifier] = {
        "math": exact, "puzzles": exact, "code": CodeHiddenVerifier(), "instructions": PatternVerifier(),
    }  # fmt: skip
    return OwnVerifier("counterpart", parts)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)
