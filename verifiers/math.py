"""The math verifier: reads the final answer out of a completion and compares it with the gold answer.

The stages are one module each: `verifiers.answers.extract` finds the answer, `clean` removes typesetting, `numbers`
compares exactly, `expression` and `evaluate` compare what is not a plain number, `equivalence` and `forms` take lists,
tuples, sets, matrices and equations apart, `question` knows what the question allows. The verdict's reason names the
comparison that decided and how the answer was found, as in `same_number_boxed`.

A gold answer that nothing can read is compared as text. An empty gold answer gives no verdict. What is too long, too
deep or too much to compare is incorrect, with the reason `over_budget`.

Departures from Math-Verify (https://github.com/huggingface/Math-Verify): no parser with an evaluator sees the text of a
completion, there is no tolerance, a percentage is a hundredth unless the question asks for percent, different units
convert or differ, a chain of equalities is not an answer, an unevaluated sum is not accepted for a number, and an
interval is the inequality that it says.

What this does not do: see `docs/verifiers/math.md`. It holds no clock: completions of a model are judged through
`verifiers.pool`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from verifiers.answers.equivalence import compare
from verifiers.answers.extract import WAYS, extract, last_boxed
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict

MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
SHOWN = 200
"""Characters of the extracted answer that are kept in a verdict."""

_HASHES = re.compile(r"(?:^|\n)\s*####[ \t]*([^\n]+)\s*\Z")


class MathVerifier:
    """Correct if the completion's final answer equals the gold answer.

    `task.prompt` is read as the question (`verifiers.answers.question`); it may be empty.
    `task.metadata["extraction"]`, a list of `verifiers.answers.extract.WAYS`, replaces the ways of finding an answer
    for one task.
    """

    name = "math"
    version = "2"

    def __init__(self, ways: Sequence[str] = WAYS) -> None:
        """Make one.

        Args:
            ways: How an answer may be found; `("boxed",)` takes nothing but a box.

        Raises:
            ValueError: A way that is none.
        """
        unknown = sorted(set(ways) - set(WAYS))
        if unknown or not ways:
            raise ValueError(f"ways: {list(ways)!r}; allowed: one or more of {list(WAYS)!r}")
        self.ways = tuple(ways)

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its final answer."""
        gold = gold_answer(task.answer)
        if not gold:
            return no_verdict("empty_gold")
        ways = task.metadata.get("extraction", self.ways) if task.metadata else self.ways
        if ways is not self.ways and (isinstance(ways, str) or not ways or not set(ways) <= set(WAYS)):
            return no_verdict("unknown_extraction")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        found = extract(completion, ways)
        if found.text is None:
            return incorrect("no_answer")
        if not found.text:
            return incorrect(f"empty_answer_{found.kind}", "")
        match = compare(gold, found.text, task.prompt)
        shown = found.text[:SHOWN]
        if match.equal:
            return correct(shown, f"{match.reason}_{found.kind}")
        if match.reason == OVER_BUDGET:
            return incorrect(OVER_BUDGET, shown)
        return incorrect(f"{match.reason}_{found.kind}", shown)

    def warm_up(self) -> None:
        """Import and prepare what the first irrational expression would."""
        compare("\\sqrt{2}", "2^{1/2}")


def gold_answer(text: str) -> str:
    """The gold answer itself where a worked solution is given: what its last `####` line or box says."""
    text = text.strip(" \t\r\n")  # a form feed is the rest of a broken `\\frac`
    if "####" in text:
        match = _HASHES.search(text)
        if match is not None:
            return match[1].strip()
    if "boxed" in text:
        boxed = last_boxed(text)
        if boxed is not None:
            return boxed.strip()
    return text
