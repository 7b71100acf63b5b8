"""Rewards of control arms: a coin, and the form of an answer. They know no right answer, which is what they are for.

An rl stage that is paid by one of these says so (`control`, see `configs.controls`); no other stage may name them, no
list shows them, and a model that one of them paid is never released. What RL gains under them is what it would gain by
optimising anything at all: random rewards alone raised Qwen2.5-Math-7B by 21.4 points on MATH-500, true ones by 29.1
(arXiv:2506.10947, figure 1).

- `Coin` says correct for half of all completions, by a hash of the run's seed, the question and the completion: equal
  completions have equal verdicts, on every machine and after every resume. The seed stands in the task's metadata,
  where only a stage that is a control puts it. Without it there is no verdict, so that it pays for nothing by accident.
- `Box` says correct where the last `\\boxed{` closes and holds anything (the format reward of that paper).
- `Program` says correct where the last fenced block closes and holds anything.

The form of a reasoning answer is judged by `verifiers.format`.
"""

from __future__ import annotations

import hashlib

from verifiers.api import Task, Verdict, correct, incorrect, no_verdict
from verifiers.exact import last_box
from verifiers.structured.blocks import fenced_blocks

SEED_KEY = "control_seed"
"""Key of the task's metadata under which a control stage puts the run's seed."""
MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""


class Coin:
    """Correct for half of all completions, whatever they say."""

    name = "control_random"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Toss the coin of this seed, question and completion."""
        seed = task.metadata.get(SEED_KEY)
        if not isinstance(seed, int):
            return no_verdict("no_control_seed")
        said = f"{seed}\0{task.prompt}\0{completion}".encode("utf-8", "surrogatepass")
        heads = hashlib.blake2b(said, digest_size=8).digest()[0] & 1
        return correct(reason="heads") if heads else incorrect("tails")


class Box:
    """Correct where an answer stands in a box, whatever the answer is."""

    name = "control_box"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge the form of one completion."""
        found = last_box(completion) if len(completion) <= MAX_COMPLETION else None
        return correct(reason="boxed") if found and found.strip() else incorrect("no_box")


class Program:
    """Correct where a program stands in a fenced block, whatever it does."""

    name = "control_program"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge the form of one completion."""
        blocks = fenced_blocks(completion) if len(completion) <= MAX_COMPLETION else []
        closed = bool(blocks) and blocks[-1].closed and bool(blocks[-1].text.strip())
        return correct(reason="fenced") if closed else incorrect("no_closed_block")
