"""The verifier of hidden calls: a program must also give the right values where no reward looked.

A task of kind `calls` may hold `hidden_calls` beside its `calls`. The verifier `code`, which gives the reward, runs
`calls` alone; this one runs both, and so judges by values that no training stage was paid for: a program that knows the
rewarded calls by heart fails here. A benchmark whose tests no stage rewards marks them hidden as a whole
(`hidden_tests: true`), and is judged by all of them. Any other task without hidden calls gets no verdict.

What this does not do: of tests of the kinds `stdio` and `script` no part alone can be hidden.
"""

from __future__ import annotations

from dataclasses import replace

from verifiers.api import Task, Verdict, no_verdict
from verifiers.code import CodeVerifier

HIDDEN = "hidden_calls"
ALL_HIDDEN = "hidden_tests"


class CodeHiddenVerifier(CodeVerifier):
    """Correct if the completion's program passes the rewarded calls and the hidden ones."""

    name = "code_hidden"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by all calls."""
        if task.metadata.get(ALL_HIDDEN) is True:
            return super().judge(task, completion)
        shown, hidden = task.metadata.get("calls"), task.metadata.get(HIDDEN)
        if not isinstance(shown, list) or not isinstance(hidden, list) or not hidden:
            return no_verdict(f"gold_unreadable: {HIDDEN}: missing or empty; allowed: a list of calls")
        metadata = {key: value for key, value in task.metadata.items() if key != HIDDEN}
        return super().judge(replace(task, metadata={**metadata, "calls": [*shown, *hidden]}), completion)
