"""The math verifier: reads the final answer out of a completion and compares it with the gold answer.

The stages are one module each: `verifiers.answers.extract` finds the answer, `clean` removes typesetting, `numbers`
compares exactly, `expression` and `evaluate` compare what is not a plain number, `equivalence` takes lists, tuples,
intervals and equations apart. The verdict's reason names the comparison that decided and how the answer was found,
as in `same_number_boxed`.

A gold answer that nothing can read is compared as text. An empty gold answer gives no verdict. What is too long or
too deep to compare is incorrect, with the reason `over_budget`.

Departures from Math-Verify (https://github.com/huggingface/Math-Verify): no parser with an evaluator sees the text of a
completion, there is no tolerance, a percentage is a hundredth, different units differ, a chain of equalities is not
an answer, and an unevaluated sum is not accepted for a number.

What this does not do: see `verifiers.answers.equivalence`. It holds no clock: completions of a model are judged
through `verifiers.pool`.
"""

from __future__ import annotations

import re

from verifiers.answers.equivalence import compare
from verifiers.answers.extract import extract, last_boxed
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict

MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
SHOWN = 200
"""Characters of the extracted answer that are kept in a verdict."""

_HASHES = re.compile(r"(?:^|\n)\s*####[ \t]*([^\n]+)\s*\Z")


class MathVerifier:
    """Correct if the completion's final answer equals the gold answer."""

    name = "math"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its final answer."""
        gold = gold_answer(task.answer)
        if not gold:
            return no_verdict("empty_gold")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        found = extract(completion)
        if found.text is None:
            return incorrect("no_answer")
        if not found.text:
            return incorrect(f"empty_answer_{found.kind}", "")
        match = compare(gold, found.text)
        shown = found.text[:SHOWN]
        if match.equal:
            return correct(shown, f"{match.reason}_{found.kind}")
        if match.reason == OVER_BUDGET:
            return incorrect(OVER_BUDGET, shown)
        return incorrect(f"{match.reason}_{found.kind}", shown)

    def warm_up(self) -> None:
        """Import what the first irrational expression would import."""
        import mpmath  # noqa: F401


def gold_answer(text: str) -> str:
    """The gold answer itself where a worked solution is given: what its last `####` line or box says."""
    text = text.strip()
    if "####" in text:
        match = _HASHES.search(text)
        if match is not None:
            return match[1].strip()
    if "boxed" in text:
        boxed = last_boxed(text)
        if boxed is not None:
            return boxed.strip()
    return text
