"""A model's answers at several thinking budgets, made of those of full length; `thinking.py` says what stays of each.

What follows a forced closing is drawn, all budgets in one batch; an answer whose thought was closed in time is taken as
it is, with its verdict. For greedy answers that is exactly what drawing anew at the budget would give (but for the
rounding of another batch); for samples it is a draw of the same distribution.

Not done: budgets of answers that use tools, and of plain few-shot answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from configs import stall
from configs.settings.common import Sampling
from derivatives.evaluation.answers import Answer, Asking, Drawn
from derivatives.evaluation.thinking import Budgets, Cut, cut_to, opens_thought
from derivatives.rollout.engine import RolloutEngine, text_of
from derivatives.rollout.on_ranks import share_out
from derivatives.training.chat import encode_text
from verifiers.api import Task, Verdict

Kept = tuple[int, int, tuple[int, ...]]
"""Place of a task, number of a sample, and the tokens that stay of it."""


@dataclass(frozen=True)
class FullLength:
    """What was asked and answered without a budget.

    Attributes:
        tasks: Those that were asked as a chat.
        answers: Of each, its answers.
        drawn: What this rank drew for them.
        sampling: How.
    """

    tasks: Sequence[Task]
    answers: Sequence[Sequence[Answer]]
    drawn: Drawn
    sampling: Sampling


def at_budgets(
    engine: RolloutEngine, full: FullLength, asking: Asking, budgets: Budgets, closing: str
) -> list[list[list[Answer]]]:
    """Each answer at each budget: by task, by sample, by budget, on every rank; `closing` ends a thought that is over.
    """
    return share_out(
        asking.ranks, len(full.tasks), lambda places: _at_budgets(engine, full, asking, budgets, closing, places)
    )


def _at_budgets(
    engine: RolloutEngine, full: FullLength, asking: Asking, budgets: Budgets, closing: str, places: Sequence[int]
) -> list[list[list[Answer]]]:
    cuts = _cut(engine, full.drawn, budgets, closing, places)
    # A thought that ended without a closing before two budgets is the same at both, and is drawn and judged once.
    changed = {
        (place, sample, cut.ids): cut for (place, sample, _), cut in cuts.items() if not cut.whole
    }  # fmt: skip
    more = _drawn_on(engine, full, asking.seed, changed)
    judged: dict[Kept, tuple[Answer, Future[Verdict]]] = {}
    for key, cut in changed.items():
        ids, ended = more.get(key, ([], False))
        text = text_of(engine.tokenizer, [*cut.ids, *ids], "stop" if ended else "length")
        waiting = Answer(text, None, "", "", len(cut.ids) + len(ids), not ended, thought=cut.thought)
        judged[key] = waiting, asking.pool.submit(full.tasks[key[0]], text)
        stall.alive()
    answers = {key: _with_verdict(waiting, future) for key, (waiting, future) in judged.items()}
    return [
        [
            [
                whole if (cut := cuts[place, sample, budget]).whole else answers[place, sample, cut.ids]
                for budget in budgets.thinking
            ]
            for sample, whole in enumerate(full.answers[place])
        ]
        for place in places
    ]


def _cut(
    engine: RolloutEngine, drawn: Drawn, budgets: Budgets, closing: str, places: Iterable[int]
) -> dict[tuple[int, int, int], Cut]:
    """What stays of each completion, by place, sample and budget."""
    tokenizer, closing_ids = engine.tokenizer, encode_text(engine.tokenizer, closing)
    return {
        (place, sample, budget): cut_to(
            tokenizer, one.token_ids, one.finish_reason == "stop", budget, budgets.answer, closing_ids,
            opens_thought(tokenizer, drawn.prompts[place]),
        )
        for place in places
        for sample, one in enumerate(drawn.groups[place])
        for budget in budgets.thinking
    }  # fmt: skip


def _drawn_on(
    engine: RolloutEngine, full: FullLength, seed: int, changed: Mapping[Kept, Cut]
) -> dict[Kept, tuple[list[int], bool]]:
    """The tokens that follow, where any may, and whether the completion ended with them."""
    positions = engine.model.config.max_position_embeddings
    room = {
        (place, sample, ids): min(cut.room, positions - len(full.drawn.prompts[place]) - len(ids))
        for (place, sample, ids), cut in changed.items()
    }
    wanted = max(room.values(), default=0)
    batches: dict[int, list[Kept]] = {}
    for key, left in room.items():
        if left >= 1:  # one batch for all but those at the end of the model's positions
            fits = positions - len(full.drawn.prompts[key[0]]) - len(key[2]) >= wanted
            batches.setdefault(wanted if fits else left, []).append(key)
    found: dict[Kept, tuple[list[int], bool]] = {}
    for num_tokens, keys in batches.items():
        prompts = [[*full.drawn.prompts[place], *ids] for place, _, ids in keys]
        names = [f"after/{place}/{full.tasks[place].id}/{sample}/{len(ids)}" for place, sample, ids in keys]
        limited = full.sampling.model_copy(update={"max_new_tokens": num_tokens})
        for key, (one,) in zip(keys, engine.generate(prompts, 1, limited, seed, names), strict=True):
            ids = one.token_ids[: room[key]]
            found[key] = ids, one.finish_reason == "stop" and len(ids) == len(one.token_ids)
    return found


def _with_verdict(waiting: Answer, future: Future[Verdict]) -> Answer:
    verdict = future.result()
    return Answer(
        waiting.completion, verdict.extracted, verdict.outcome.value, verdict.reason, waiting.num_tokens,
        waiting.truncated, thought=waiting.thought,
    )  # fmt: skip
