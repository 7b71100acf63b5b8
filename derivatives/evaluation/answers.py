"""One model's answers to all problems: greedy once, and several samples for pass@k, judged while others still grow.

An answer keeps its verdict's outcome apart: NO_VERDICT counts as wrong in the figure, and as right in its upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from configs import stall
from configs.settings.common import Sampling
from derivatives.evaluation.formats import (
    FEW_SHOT,
    NEXT_QUESTION,
    Examples,
    encode_plain,
    encode_question,
    examples_for,
    own_answer,
)
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
    """One judged completion. `num_tokens` are those that the model drew; programs are those that were run for it."""

    completion: str
    extracted: str | None
    outcome: str
    reason: str
    num_tokens: int
    truncated: bool
    num_programs: int = 0

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


def ask(
    engine: RolloutEngine, tasks: Sequence[Task], form: str, asking: Asking, sampling: Sampling, num_samples: int
) -> list[list[Answer]]:
    """`num_samples` answers to each task, in order, on every rank."""
    return share_out(
        asking.ranks,
        len(tasks),
        lambda places: _ask(engine, [(place, tasks[place]) for place in places], form, asking, sampling, num_samples),
    )


def _ask(
    engine: RolloutEngine,
    numbered: Sequence[tuple[int, Task]],
    form: str,
    asking: Asking,
    sampling: Sampling,
    num_samples: int,
) -> list[list[Answer]]:
    """Answers to this rank's tasks, whose numbers among all name their random numbers."""
    tasks = [task for _, task in numbered]
    positions = engine.model.config.max_position_embeddings
    # A model with few positions (Qwen2.5-Math has 4,096) beside one that thinks for longer: it gets what it has.
    room = max(positions - sampling.max_new_tokens, positions // 2)
    prompts = [_encode(engine, task, form, asking, room) for task in tasks]
    left = positions - max(map(len, prompts), default=0)
    if 1 <= left < sampling.max_new_tokens:
        sampling = sampling.model_copy(update={"max_new_tokens": left})
    judged: dict[tuple[int, int], tuple[str, Future[Verdict]]] = {}

    def submit(index: int, sample: int, completion: Completion) -> None:
        stall.alive()  # one model's answers may take longer than a stage without progress
        text = own_answer(completion.text) if form == FEW_SHOT else completion.text
        if asking.faults is not None and (completion.fed or completion.fault):
            own = own_verdict(completion) or incorrect("")
            too_many = asking.faults.note(own, f"the program of an answer to task {tasks[index].id!r}")
            if too_many is not None:
                raise too_many
        judged[index, sample] = text, _verdict(asking.pool, tasks[index], completion, text)

    keys = [f"{form}/{number}/{task.id}" for number, task in numbered]
    stop = NEXT_QUESTION if form == FEW_SHOT else None
    groups = engine.generate(prompts, num_samples, sampling, asking.seed, keys, on_completion=submit, stop_text=stop)
    return [
        [_answer(completion, *judged[index, sample], form) for sample, completion in enumerate(group)]
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


def _encode(engine: RolloutEngine, task: Task, form: str, asking: Asking, room: int) -> list[int]:
    if form == FEW_SHOT:
        examples = examples_for(task, asking.examples, asking.num_examples)
        return encode_plain(engine.tokenizer, task, examples, room)
    return encode_question(engine.tokenizer, task, asking.system)


def _answer(completion: Completion, text: str, future: Future[Verdict], form: str) -> Answer:
    verdict = future.result()
    ended = completion.finish_reason == "stop" or (form == FEW_SHOT and NEXT_QUESTION in completion.text)
    return Answer(
        text, verdict.extracted, verdict.outcome.value, verdict.reason, completion.num_drawn, not ended,
        len(completion.fed),
    )  # fmt: skip
