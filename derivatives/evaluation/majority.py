"""maj@k: the answer that most of k samples agree on, right or wrong.

Source: self-consistency, Wang et al. 2022 (arXiv:2203.11171), unweighted. Samples agree where the answers that the
verifier read out of them are equal as numbers or as cleaned text. Of answers with equally many samples the one that was
drawn first wins. A sample without an answer votes for nothing; where none has one, the problem is not solved. The
verdict on an answer is that on its first sample.

Departures: answers are not compared as expressions (`x + 1` and `1 + x` are two), since equality by algebra needs not
be transitive, and votes would depend on the order. Sets without a final answer (programs, instructions) have nothing to
vote on and are left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from derivatives.evaluation.answers import Answer
from verifiers.answers.clean import clean
from verifiers.answers.numbers import read_number
from verifiers.api import Outcome, Task, Verdict

NO_FINAL_ANSWER = "not judged by a final answer alone"
"""Why a set has no constant answer and no vote, as tables and cards say it."""
NUM_TRIED = 3
"""Gold answers of a set with which it is found out whether a final answer alone is judged."""
FORMS = ("\\boxed{{{}}}", "<think>\nSo it is.\n</think>\n\\boxed{{{}}}")
"""How a final answer alone may be written: as it is, or after the thought that some judges ask for."""


def majority(samples: Sequence[Answer]) -> Answer | None:
    """The first sample of the answer that most agree on; None where no sample has an answer."""
    groups: dict[str | Fraction, list[Answer]] = {}
    for sample in samples:
        if sample.extracted is not None and sample.extracted.strip():
            groups.setdefault(ballot(sample.extracted), []).append(sample)
    # The first of the largest: dictionaries keep the order in which answers were first seen.
    return max(groups.values(), key=len)[0] if groups else None


def ballot(extracted: str) -> str | Fraction:
    """What two answers must have in common to be one: their number, else their cleaned text.

    >>> ballot("$12.50"), ballot("25/2 dollars"), ballot("\\\\text{Blue}"), ballot("blue.")
    (Fraction(25, 2), Fraction(25, 2), 'blue', 'blue')
    """
    text = clean(extracted)
    number = read_number(text)
    if number is not None:
        return number.value
    folded = " ".join(text.split())
    return folded.casefold() if len(folded) > 1 else folded


def votes(groups: Sequence[Sequence[Answer]]) -> list[float]:
    """For each problem 1 where the majority of its samples is right, else 0."""
    return [float((won := majority(samples)) is not None and won.correct) for samples in groups]


def without_vote(
    tasks: Sequence[Task], judge: Callable[[Sequence[tuple[Task, str]]], Sequence[Verdict]]
) -> dict[str, str]:
    """Task sets that no final answer alone solves, each with the reason: there is nothing to vote on.

    A set counts as solved by a final answer where the gold answer of one of its first problems, in a box, is judged
    right; with a thought before it where a judge wants one.
    """
    first: dict[str, list[Task]] = {}
    for task in tasks:
        group = first.setdefault(task.source, [])
        if len(group) < NUM_TRIED:
            group.append(task)
    found: dict[str, str] = {}
    for name, group in first.items():
        tried = [(task, form.format(task.answer)) for task in group if task.answer for form in FORMS]
        verdicts = judge(tried) if tried else []
        if not any(one.outcome is Outcome.CORRECT and one.extracted is not None for one in verdicts):
            found[name] = NO_FINAL_ANSWER
    return found
