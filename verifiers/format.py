"""The format verifier: `<think>...</think>` exactly once and closed, something inside, then an answer.

It judges form alone and knows no gold answer. The reason of an incorrect verdict names what is amiss.

To reward form and answer together use a composite (`verifiers.composite`), which keeps any right answer above any wrong
one: form then never pays without the answer. Rewarding form by itself teaches a model to write tags.

The shape is the reasoning format of QwQ and DeepSeek-R1 (https://arxiv.org/abs/2501.12948, section 2.2.2). Departure:
the answer needs no `<answer>` tags of its own. A thought is empty unless it holds a letter or a digit of some script;
tags count in any case and with spaces inside the brackets (`</ Think >` repeats a tag), but only the plain spelling
opens or closes a thought.

What this does not do: it does not look at language, length or quality.
"""

from __future__ import annotations

import re

from verifiers.api import Task, Verdict, correct, incorrect

OPENING, CLOSING = "<think>", "</think>"
SHOWN = 200
"""Characters of the answer that are kept in a verdict."""

_ANY_OPENING = re.compile(r"<\s{0,9}think\s{0,9}>", re.IGNORECASE)
_ANY_CLOSING = re.compile(r"<\s{0,9}/\s{0,9}think\s{0,9}/?\s{0,9}>", re.IGNORECASE)


class FormatVerifier:
    """Correct if the completion thinks once, inside tags, and then answers."""

    name = "format"
    version = "2"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its shape."""
        reason = defect(completion)
        if reason is not None:
            return incorrect(reason)
        return correct(answer_part(completion).strip()[:SHOWN], "well_formed")


def answer_part(completion: str) -> str:
    """What follows the thought; empty where no thought is closed."""
    return completion.partition(CLOSING)[2]


def defect(completion: str) -> str | None:
    """What is amiss with a completion's form; None where nothing is."""
    num_openings, num_closings = len(_ANY_OPENING.findall(completion)), len(_ANY_CLOSING.findall(completion))
    if num_openings > 1 or num_closings > 1:
        return "repeated_think_tag"
    if OPENING not in completion:
        return "no_think_tag"
    if CLOSING not in completion:
        return "unclosed_think_tag"
    before, _, rest = completion.partition(OPENING)
    thought, closing, answer = rest.partition(CLOSING)
    if not closing:
        return "closed_before_opened"
    if before.strip():
        return "text_before_think_tag"
    if not any(map(str.isalnum, thought)):
        return "empty_thought"
    if not any(character.isprintable() and not character.isspace() for character in answer):
        return "no_answer_after_thought"
    return None
