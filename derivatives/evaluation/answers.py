"""One model's answers to all problems: greedy once, and several samples for pass@k, judged while others still grow.

An answer keeps its verdict's outcome apart: NO_VERDICT counts as wrong in the figure, and as right in its upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

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
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool


@dataclass(frozen=True)
class Answer:
    """One judged completion."""

    completion: str
    extracted: str | None
    outcome: str
    reason: str
    num_tokens: int
    truncated: bool

    @property
    def correct(self) -> bool:
        return self.outcome == Outcome.CORRECT.value

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Asking:
    """How problems are put and judged; the same for all models but for the format."""

    pool: VerifierPool
    examples: Examples
    num_examples: int
    system: str | None
    seed: int


def ask(
    engine: RolloutEngine, tasks: Sequence[Task], form: str, asking: Asking, sampling: Sampling, num_samples: int
) -> list[list[Answer]]:
    """`num_samples` answers to each task, in order."""
    room = engine.model.config.max_position_embeddings - sampling.max_new_tokens
    prompts = [_encode(engine, task, form, asking, room) for task in tasks]
    judged: dict[tuple[int, int], tuple[str, Future[Verdict]]] = {}

    def submit(index: int, sample: int, completion: Completion) -> None:
        text = own_answer(completion.text) if form == FEW_SHOT else completion.text
        judged[index, sample] = text, asking.pool.submit(tasks[index], text)

    keys = [f"{form}/{number}/{task.id}" for number, task in enumerate(tasks)]
    stop = NEXT_QUESTION if form == FEW_SHOT else None
    groups = engine.generate(prompts, num_samples, sampling, asking.seed, keys, on_completion=submit, stop_text=stop)
    return [
        [_answer(completion, *judged[index, sample], form) for sample, completion in enumerate(group)]
        for index, group in enumerate(groups)
    ]


def _encode(engine: RolloutEngine, task: Task, form: str, asking: Asking, room: int) -> list[int]:
    if form == FEW_SHOT:
        examples = examples_for(task, asking.examples, asking.num_examples)
        return encode_plain(engine.tokenizer, task, examples, room)
    return encode_question(engine.tokenizer, task, asking.system)


def _answer(completion: Completion, text: str, future: Future[Verdict], form: str) -> Answer:
    verdict = future.result()
    ended = completion.finish_reason != "length" or (form == FEW_SHOT and NEXT_QUESTION in completion.text)
    return Answer(text, verdict.extracted, verdict.outcome.value, verdict.reason, len(completion.token_ids), not ended)
