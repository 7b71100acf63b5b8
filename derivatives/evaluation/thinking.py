"""What an answer costs in thought, and what it is worth when the thought is cut short.

A model that reasons opens its turn with `<think>`, closes that, and answers. At a budget of B tokens a thought that is
not closed by then is closed for it, in the way in which it closes its thoughts itself, and it answers from what it has.
That is the budget forcing of s1 (arXiv:2501.19393, section 3.1), of which only the upper end is done: no thought is
made longer. Departure: the words "Final Answer" are not put into the model's mouth.

A completion of full length says what happens at every budget: one that closed its thought in time is the very one that
would be drawn at that budget, and one that did not begins with the same tokens. So only what follows a forced closing
is drawn anew. Of a completion that opens no thought nothing is cut.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

OPENING, CLOSING = "<think>", "</think>"
USUAL_CLOSING = f"\n{CLOSING}\n\n"
"""What is put after a thought that is over its budget, of a model that closes none by itself."""
NO_THOUGHT, UNCLOSED, CLOSED, FORCED = "", "unclosed", "closed", "forced"
"""What became of an answer's thought: none was opened, it was never closed, by the model, or for it."""
_TAIL_TOKENS = 16
"""Tokens at the end of a prompt in which a template may have opened a thought."""
_AROUND_CLOSING = re.compile(rf"(\s{{0,4}}{CLOSING}\s{{0,4}})\S")


@dataclass(frozen=True)
class Budgets:
    """Tokens that a thought may take, one figure for each, and tokens of the answer after it."""

    thinking: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Cut:
    """A completion at a budget.

    Attributes:
        ids: Tokens that stay, with those of a forced closing.
        room: Tokens that may still be drawn after them; 0 where nothing is.
        thought: One of NO_THOUGHT, UNCLOSED, CLOSED, FORCED.
        whole: It is the full-length completion, unchanged.
    """

    ids: tuple[int, ...]
    room: int
    thought: str
    whole: bool = False


def thought_in(text: str, opened: bool = False) -> str:
    """What became of the thought of an answer that is shown whole.

    Args:
        text: The answer.
        opened: The prompt has opened the thought already.

    >>> thought_in("<think>2 + 2</think>4"), thought_in(" <think>2 + 2"), thought_in("It is 4."), thought_in("4", True)
    ('closed', 'unclosed', '', 'unclosed')
    """
    if not opened and not text.lstrip().startswith(OPENING):
        return NO_THOUGHT
    return CLOSED if CLOSING in text else UNCLOSED


def opens_thought(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> bool:
    """Whether a prompt ends in an opened thought, as some published chat templates have it."""
    tail = str(tokenizer.decode(list(prompt[-_TAIL_TOKENS:]), skip_special_tokens=False))
    return tail.rstrip().endswith(OPENING)


def usual_closing(texts: Iterable[str]) -> str:
    """How a model closes its thoughts before it answers: the most frequent closing with the space around it.

    >>> usual_closing(["<think>a\\n</think>\\n4", "<think>b\\n</think>\\n5", "<think>c</think> 6", "<think>d"])
    '\\n</think>\\n'
    """
    found = Counter(match[1] for text in texts if (match := _AROUND_CLOSING.search(text)))
    return found.most_common(1)[0][0] if found else USUAL_CLOSING


def closed_at(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int | None:
    """Fewest of the tokens that hold the closing of a thought; None where they do not."""

    def is_closed(num: int) -> bool:
        return CLOSING in str(tokenizer.decode(list(ids[:num]), skip_special_tokens=False))

    if not is_closed(len(ids)):
        return None
    return bisect.bisect_left(range(len(ids) + 1), True, key=is_closed)


def cut_to(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], ended: bool, budget: int, answer_tokens: int,
    closing: Sequence[int], opened: bool = False,
) -> Cut:  # fmt: skip
    """What stays of a full-length completion when its thought may take `budget` tokens, its closing among them.

    Args:
        tokenizer: Of the model.
        ids: The completion's tokens.
        ended: Whether its last one is a stop token (else it was cut at its length).
        budget: Tokens of the thought.
        answer_tokens: Tokens of the answer after it.
        closing: Tokens of a forced closing.
        opened: The prompt has opened the thought already.
    """
    thought = thought_in(str(tokenizer.decode(list(ids), skip_special_tokens=False)), opened)
    if thought == NO_THOUGHT:
        return Cut(tuple(ids), 0, thought, whole=True)
    place = closed_at(tokenizer, ids)
    if place is not None and place <= budget:
        left = answer_tokens - (len(ids) - place)
        if left < 0:
            return Cut(tuple(ids[: place + answer_tokens]), 0, CLOSED)
        return Cut(tuple(ids), 0 if ended else left, CLOSED, whole=ended or left == 0)
    own = ids[: len(ids) - 1] if ended else ids  # an end of turn inside a thought ends the thought alone
    return Cut((*own[:budget], *closing), answer_tokens, FORCED)
