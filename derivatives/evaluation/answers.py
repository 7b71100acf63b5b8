"""One model's answers to all problems: greedy once, and several samples for pass@k, judged while others still grow.

An answer keeps its verdict's outcome apart: NO_VERDICT counts as wrong in the figure, and as right in its upper bound.
What was drawn at full length is kept until the answers at smaller thinking budgets are made of it (`budgets.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from configs import stall
from configs.settings.common import Sampling
from derivatives.evaluation.formats import (
    Examples,
    alike,
    encode,
    examples_for,
    has_ended,
    limit_of,
    own_answer,
    stops_of,
)
from derivatives.evaluation.thinking import opens_thought, thought_in
from derivatives.rollout.engine import Completion, RolloutEngine
from derivatives.rollout.judged import own_verdict
from derivatives.rollout.on_ranks import share_out
from derivatives.rollout.tools import FAULT, FORGED
from derivatives.training.ranks import ALONE, Ranks
from verifiers.api import Outcome, Task, Verdict, incorrect
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool


@dataclass(frozen=True)
class Answer:
    """One judged completion. `num_tokens` are those that the model drew (at a thinking budget also those of a forced
    closing); programs are those that were run for it; `thought` is one of `thinking.py`'s words."""

    completion: str
    extracted: str | None
    outcome: str
    reason: str
    num_tokens: int
    truncated: bool
    num_programs: int = 0
    thought: str = ""

    @property
    def correct(self) -> bool:
        return self.outcome == Outcome.CORRECT.value

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Asking:
    """How problems are put and judged; the same for all models but for the format. `faults` counts those of the
    sandbox, where answers may use tools; of several ranks each answers a share."""

    pool: VerifierPool
    examples: Examples
    num_examples: int
    system: str | None
    seed: int
    faults: Breaker | None = None
    ranks: Ranks = ALONE

    def of(self, pool: VerifierPool, examples: Examples) -> Asking:
        """The same, with other judges and other examples."""
        return replace(self, pool=pool, examples=examples)


@dataclass
class Drawn:
    """What this rank has drawn at full length, by the place of the task: prompts and completions."""

    prompts: dict[int, list[int]] = field(default_factory=dict)
    groups: dict[int, list[Completion]] = field(default_factory=dict)


def ask(
    engine: RolloutEngine, tasks: Sequence[Task], form: str, asking: Asking, sampling: Sampling, num_samples: int,
    drawn: Drawn | None = None,
) -> list[list[Answer]]:  # fmt: skip
    """`num_samples` answers to each task, in order, on every rank; `drawn` is given this rank's completions to keep."""
    return share_out(
        asking.ranks,
        len(tasks),
        lambda places: _ask_alike(
            engine, [(place, tasks[place]) for place in places], form, asking, sampling, num_samples, drawn
        ),
    )


def _ask_alike(
    engine: RolloutEngine, numbered: Sequence[tuple[int, Task]], form: str, asking: Asking, sampling: Sampling,
    num_samples: int, drawn: Drawn | None,
) -> list[list[Answer]]:  # fmt: skip
    """Answers to this rank's tasks, those together that end alike in this form."""
    answers: dict[int, list[Answer]] = {}
    for group in alike([task for _, task in numbered], form):
        found = _ask(engine, [numbered[place] for place in group], form, asking, sampling, num_samples, drawn)
        answers |= dict(zip(group, found, strict=True))
    return [answers[place] for place in range(len(numbered))]


def _ask(
    engine: RolloutEngine,
    numbered: Sequence[tuple[int, Task]],
    form: str,
    asking: Asking,
    sampling: Sampling,
    num_samples: int,
    drawn: Drawn | None,
) -> list[list[Answer]]:
    """Answers to tasks of this rank that end alike, whose numbers among all name their random numbers."""
    tasks = [task for _, task in numbered]
    stops, limit = stops_of(tasks[0], form), limit_of(tasks[0], form)
    if limit is not None and limit < sampling.max_new_tokens:
        sampling = sampling.model_copy(update={"max_new_tokens": limit})
    positions = engine.model.config.max_position_embeddings
    # A model with few positions (Qwen2.5-Math has 4,096) beside one that thinks for longer: it gets what it has.
    room = max(positions - sampling.max_new_tokens, positions // 2)
    shown = [examples_for(task, asking.examples, asking.num_examples) for task in tasks]
    prompts = [
        encode(engine.tokenizer, task, form, examples, asking.system, room)
        for task, examples in zip(tasks, shown, strict=True)
    ]
    left = positions - max(map(len, prompts), default=0)
    if 1 <= left < sampling.max_new_tokens:
        sampling = sampling.model_copy(update={"max_new_tokens": left})
    judged: dict[tuple[int, int], tuple[str, Future[Verdict]]] = {}

    def submit(index: int, sample: int, completion: Completion) -> None:
        stall.alive()  # one model's answers may take longer than a stage without progress
        text = own_answer(completion.text, stops)
        if asking.faults is not None and (completion.fed or completion.fault):
            own = own_verdict(completion) or incorrect("")
            too_many = asking.faults.note(own, f"the program of an answer to task {tasks[index].id!r}")
            if too_many is not None:
                raise too_many
        judged[index, sample] = text, _verdict(asking.pool, tasks[index], completion, text)

    keys = [f"{form}/{number}/{task.id}" for number, task in numbered]
    groups = engine.generate(prompts, num_samples, sampling, asking.seed, keys, on_completion=submit, stop_text=stops)
    if drawn is not None:
        places = [number for number, _ in numbered]
        drawn.prompts |= dict(zip(places, prompts, strict=True))
        drawn.groups |= dict(zip(places, groups, strict=True))
    opened = [opens_thought(engine.tokenizer, prompt) for prompt in prompts]

    def answer(index: int, sample: int, completion: Completion) -> Answer:
        ended = completion.finish_reason == "stop" or has_ended(completion.text, tasks[index], form)
        return _answer(completion, *judged[index, sample], ended, opened[index])

    return [
        [answer(index, sample, completion) for sample, completion in enumerate(group)]
        for index, group in enumerate(groups)
    ]


def _verdict(pool: VerifierPool, task: Task, completion: Completion, text: str) -> Future[Verdict]:
    """Of a verifier, also on an answer that was cut; of none where an output was forged or the sandbox failed."""
    own = own_verdict(completion) if completion.finish_reason in (FORGED, FAULT) else None
    if own is None:
        return pool.submit(task, text)
    settled: Future[Verdict] = Future()
    settled.set_result(own)
    return settled


def _answer(completion: Completion, text: str, future: Future[Verdict], ended: bool, opened: bool) -> Answer:
    verdict = future.result()
    return Answer(
        text, verdict.extracted, verdict.outcome.value, verdict.reason, completion.num_drawn, not ended,
        len(completion.fed), thought_in(text, opened),
    )  # fmt: skip
