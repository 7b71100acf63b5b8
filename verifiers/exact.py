"""The exact verifier: the last box holds the gold answer, letter for letter but for spaces and case.

It judges tasks whose answer has one way to be written (a whole number, a word, a list in a given form), where another
verifier gave the reward: it shares no code with `math` or `puzzles`, so that no leniency of theirs, and no fault, can
pass for a gain. Where a completion thinks, only what follows the last `</think>` counts; a thought that is not followed
by an answer has none.

What this does not do: it knows no equivalence. `0.50` is not `0.5`, and an answer without a box is none.
"""

from __future__ import annotations

from verifiers.api import Task, Verdict, correct, incorrect, no_verdict

BOX = "\\boxed{"
CLOSING = "</think>"
SHOWN = 200
"""Characters of the answer that are kept in a verdict."""


class ExactVerifier:
    """Correct if the last box after the thought holds the gold answer."""

    name = "exact"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the text of its box."""
        gold = folded(task.answer)
        if not gold:
            return no_verdict("empty_gold")
        answer = completion.rpartition(CLOSING)[2]
        found = last_box(answer)
        if found is None:
            return incorrect("no_box")
        if folded(found) == gold:
            return correct(found[:SHOWN], "same_text")
        return incorrect("other_text", found[:SHOWN])


def last_box(text: str) -> str | None:
    """What the last `\\boxed{` holds, up to its own closing brace; None where there is no box or it does not close.

    >>> last_box("\\\\boxed{1} and \\\\boxed{{2}}")
    '{2}'
    """
    _, opening, rest = text.rpartition(BOX)
    if not opening:
        return None
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:place]
    return None


def folded(text: str) -> str:
    """The text without case, with single spaces."""
    return " ".join(text.split()).casefold()
