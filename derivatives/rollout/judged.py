"""Groups of completions with their verdicts: rolled out, judged at once, and replaced where they teach nothing.

A completion may be judged by several verifiers (the stage's own first, then those of `more_rewards`). It has a reward
only if all of them gave a verdict: a mean over completions that were judged differently would compare unlike things.

Source of the replacement: DAPO's dynamic sampling (arXiv:2503.14476, section 3.2). Departures: it is bounded in rounds,
and what the replaced groups cost is counted: they stay in the step's figures and in the rollout store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from configs import stall
from configs.settings.common import Sampling
from derivatives.rollout.engine import Completion
from derivatives.rollout.tools import FAULT, FORGED, OUT_OF_TURNS
from derivatives.rollout.vllm_engine import Engine
from verifiers.api import Outcome, Task, Verdict, incorrect, no_verdict
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool

TRUNCATED = "truncated"
"""Reason of the verdict on a completion that was cut: it is not judged, its score is a matter of configuration."""
UNFINISHED = {"length": TRUNCATED, OUT_OF_TURNS: "out_of_turns", FORGED: "forged_output"}
"""Finish reasons with which a completion is not judged, and the reasons of their verdicts; see `tools.py`."""
TOOL_FAULT = "tool_fault"


@dataclass(frozen=True)
class Judged:
    """One completion and what became of it.

    Attributes:
        completion: Token ids, log-probabilities and text.
        verdict: Of the stage's own verifier.
        more: Of the further ones, in the recipe's order.
        audit: Of the independent one, where this completion was among its samples.
    """

    completion: Completion
    verdict: Verdict
    more: tuple[Verdict, ...] = ()
    audit: Verdict | None = None

    @property
    def truncated(self) -> bool:
        return self.completion.finish_reason == "length"

    @property
    def asked(self) -> bool:
        """Whether the verifiers were asked: not where a completion was cut or ended in another way of its own."""
        return own_verdict(self.completion) is None

    @property
    def missing(self) -> bool:
        """Whether a verdict that the reward needs is not there."""
        return self.missing_reason is not None

    @property
    def missing_reason(self) -> str | None:
        """Why the first missing verdict is missing; None where none is."""
        for verdict in (self.verdict, *self.more):
            if verdict.outcome is Outcome.NO_VERDICT:
                return verdict.reason or "no_reason"
        return None

    def reward(self, weights: Sequence[float] = (), partial_credit: bool = False) -> float:
        """The sum of what all verdicts are worth, those of the further verifiers times their weights.

        Rounded to a billionth, so that two sums of the same scores are equal and have no spread.
        """
        first, *more = (worth(verdict, partial_credit) for verdict in (self.verdict, *self.more))
        return round(first + sum(weight * worth for weight, worth in zip(weights, more, strict=True)), 9)

    def summary(self) -> dict[str, Any]:
        """Text and verdict, for people and for judging again."""
        verdict = {**asdict(self.verdict), "outcome": self.verdict.outcome.value}
        return {"completion": self.completion.text, "finish_reason": self.completion.finish_reason, **verdict}


Group = list[Judged]


def own_verdict(completion: Completion) -> Verdict | None:
    """The verdict that a completion's end is in itself; None where a verifier is to be asked."""
    if completion.finish_reason == FAULT:
        return no_verdict(f"{TOOL_FAULT}: {completion.fault}")
    reason = UNFINISHED.get(completion.finish_reason)
    return None if reason is None else incorrect(reason)


def worth(verdict: Verdict, partial_credit: bool) -> float:
    """What a verdict adds to the reward: 1 if it is correct and 0 if not; with `partial_credit`, its score."""
    return verdict.score if partial_credit or verdict.outcome is Outcome.CORRECT else 0.0


@dataclass(frozen=True)
class Batch:
    """What is to be rolled out: one prompt per task, as token ids, and who judges the completions."""

    tasks: Sequence[Task]
    prompts: Sequence[list[int]]
    keys: Sequence[str]
    num_samples: int
    verifiers: Sequence[str]


@dataclass(frozen=True)
class Rolled:
    """All groups of a step.

    Attributes:
        problems: Numbers of the problems, one per group, in the order in which they were drawn.
        groups: Their completions.
        trained: Places of the groups that the update sees; the others were replaced.
    """

    problems: list[int]
    groups: list[Group]
    trained: list[int]


def roll_out(
    engine: Engine, pool: VerifierPool, batch: Batch, sampling: Sampling, seed: int, faults: Breaker | None = None
) -> list[Group]:
    """Generate all completions; each is with its verifiers as soon as it ends, while the others are still growing.

    Args:
        engine: Draws them.
        pool: Judges them.
        batch: What is to be completed.
        sampling: How.
        seed: Of all draws.
        faults: Counts completions that the sandbox failed; it should live as long as the stage.

    Raises:
        TooManyNoVerdicts: More verdicts are missing than may be, or the sandbox failed that often.
    """
    futures: dict[tuple[int, int], list[Future[Verdict]]] = {}

    def submit(index: int, sample: int, completion: Completion) -> None:
        stall.alive()  # a step of long completions may take longer than one without progress
        task, own = batch.tasks[index], own_verdict(completion)
        if faults is not None and (completion.fed or completion.fault):
            too_many = faults.note(own or incorrect(""), f"the program of a completion of task {task.id!r}")
            if too_many is not None:
                raise too_many
        if own is None:
            futures[index, sample] = [pool.submit(task, completion.text, name) for name in batch.verifiers]

    def judged(index: int, sample: int, completion: Completion) -> Judged:
        own = own_verdict(completion)
        if own is not None:
            return Judged(completion, own, (own,) * (len(batch.verifiers) - 1))
        first, *more = [future.result() for future in futures[index, sample]]
        return Judged(completion, first, tuple(more))

    completions = engine.generate(batch.prompts, batch.num_samples, sampling, seed, batch.keys, on_completion=submit)
    return [[judged(index, sample, one) for sample, one in enumerate(group)] for index, group in enumerate(completions)]


def roll_out_step(
    chosen: Sequence[int],
    roll: Callable[[Sequence[int], int], list[Group]],
    more: Callable[[int, int], list[int]],
    has_spread: Callable[[Group], bool],
    rounds: int,
) -> Rolled:
    """The groups of a step, those without spread replaced as far as `rounds` go.

    Args:
        chosen: The step's problems.
        roll: Completes problems; also told how many groups of the step came before.
        more: The next problems to try: how many, after how many of such.
        has_spread: Whether a group's rewards differ.
        rounds: Times that groups may be replaced.
    """
    problems, groups = list(chosen), roll(chosen, 0)
    trained = list(range(len(problems)))
    for _ in range(rounds):
        flat = [place for place, number in enumerate(trained) if not has_spread(groups[number])]
        others = more(len(flat), len(problems) - len(chosen)) if flat else []
        if not others:
            break
        for group in roll(others, len(problems)):
            if flat and has_spread(group):
                trained[flat.pop(0)] = len(groups)
            groups.append(group)
        problems += others
    return Rolled(problems, groups, trained)
