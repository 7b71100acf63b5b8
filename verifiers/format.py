"""The format verifier: `<think>...</think>` exactly once and closed, something inside, then an answer.

It judges form alone and knows no gold answer. The reason of an incorrect verdict names what is amiss.

To reward form and answer together, judge a completion with both verifiers and combine the two scores so that any
right answer outranks any wrong one, for example `score = math.score * (0.9 + 0.1 * format.score)`: form then never
pays without the answer. Rewarding form by itself teaches a model to write tags.

The shape is the reasoning format of QwQ and DeepSeek-R1 (https://arxiv.org/abs/2501.12948, section 2.2.2). Departure:
the answer needs no `<answer>` tags of its own.

What this does not do: it does not look at language, length or quality.
"""

from __future__ import annotations

from verifiers.api import Task, Verdict, correct, incorrect

OPENING, CLOSING = "<think>", "</think>"


class FormatVerifier:
    """Correct if the completion thinks once, inside tags, and then answers."""

    name = "format"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its shape."""
        reason = defect(completion)
        if reason is not None:
            return incorrect(reason)
        answer = completion.partition(CLOSING)[2].strip()
        return correct(answer[:200], "well_formed")


def defect(completion: str) -> str | None:
    """What is amiss with a completion's form; None where nothing is."""
    num_openings, num_closings = completion.count(OPENING), completion.count(CLOSING)
    if num_openings == 0:
        return "no_think_tag"
    if num_openings > 1 or num_closings > 1:
        return "repeated_think_tag"
    if num_closings == 0:
        return "unclosed_think_tag"
    before, _, rest = completion.partition(OPENING)
    thought, closing, answer = rest.partition(CLOSING)
    if not closing:
        return "closed_before_opened"
    if before.strip():
        return "text_before_think_tag"
    if not thought.strip():
        return "empty_thought"
    if not answer.strip():
        return "no_answer_after_thought"
    return None
