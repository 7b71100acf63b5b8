"""Solved items and the many ways of writing them down, for the arithmetic and word-problem sources.

An item is a question, the worked steps and the answer. A document holds one or several items in one style,
so that solved examples before a question come to mean something.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .words import words_of

UNITS = words_of(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = words_of("_ _ twenty thirty forty fifty sixty seventy eighty ninety")


@dataclass(frozen=True)
class Item:
    """One solved question; `steps` may be empty where the answer is a fact."""

    question: str
    steps: tuple[str, ...]
    answer: str


def in_words(number: int) -> str:
    """English words of an integer.

    >>> in_words(-342)
    'minus three hundred and forty-two'
    """
    if number < 0:
        return "minus " + in_words(-number)
    if number < 20:
        return UNITS[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f"-{UNITS[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{UNITS[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    return f"{in_words(thousands)} thousand" + (f" {in_words(rest)}" if rest else "")


def boxed(item: Item) -> str:
    return f"\\boxed{{{item.answer}}}"


def reply(item: Item, joint: str) -> str:
    """Steps, where there are any, and the boxed answer."""
    return f"{joint.join(item.steps)}. {boxed(item)}" if item.steps else boxed(item)


def _line(item: Item, joint: str) -> str:
    return f"{item.question} {reply(item, joint)}"


def _hash(item: Item, joint: str) -> str:
    steps = joint.join(item.steps) + "\n" if item.steps else ""
    return f"{item.question}\n{steps}#### {item.answer}"


def _question_answer(item: Item, joint: str) -> str:
    answer = f"{joint.join(item.steps)}. The answer is {item.answer}." if item.steps else item.answer
    return f"Q: {item.question}\nA: {answer}"


def _long_question_answer(item: Item, joint: str) -> str:
    steps = joint.join(item.steps) + "\n" if item.steps else ""
    return f"Question: {item.question}\n{steps}Answer: {item.answer}"


def _boxed_solution(item: Item, joint: str) -> str:
    return f"Problem: {item.question}\nSolution: {reply(item, joint)}"


def _boxed_lines(item: Item, joint: str) -> str:
    return "\n".join((item.question, *item.steps, boxed(item)))


def _direct(item: Item, joint: str) -> str:
    steps = (*item.steps, item.answer) if len(item.steps) > 1 else (item.answer,)
    return f"{item.question} {joint.join(steps)}"


def _thought(item: Item, joint: str) -> str:
    steps = joint.join(item.steps) or "I know this one"
    return f"{item.question}\n<think>\n{steps}.\n</think>\nThe answer is {boxed(item)}."


def _chat(item: Item, joint: str) -> str:
    asked = f"<|im_start|>user\n{item.question}<|im_end|>\n"
    return f"{asked}<|im_start|>assistant\n{reply(item, joint)}<|im_end|>"


STYLES: list[tuple[float, Callable[[Item, str], str], str]] = [
    # weight, writer, what stands between two items
    (2.0, _line, "\n"),
    (1.0, _hash, "\n\n"),
    (2.0, _question_answer, "\n"),
    (1.0, _long_question_answer, "\n\n"),
    (2.0, _boxed_solution, "\n\n"),
    (1.5, _boxed_lines, "\n\n"),
    (1.0, _direct, "\n"),
    (0.4, _thought, "\n\n"),
    (0.6, _chat, "\n"),
]
JOINTS = ["; ", "; ", ", ", ". ", "\n", " so "]


def write_items(rng: Random, items: list[Item]) -> str:
    """One document of solved items, all in one style drawn at random."""
    _, write, between = rng.choices(STYLES, weights=[weight for weight, _, _ in STYLES])[0]
    joint = rng.choice(JOINTS)
    return between.join(write(item, joint) for item in items)
