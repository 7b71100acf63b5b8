"""From judged answers to the figures of `results.json` (its shape is in docs/architecture.md).

Figures over all problems (pass@1, pass@k, maj@k, those at thinking budgets, gains) leave the twins of other sets out: a
problem that is asked again with other numbers would count twice. Twins stand by set, and in `results["twins"]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

from configs.names import TWINS
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.formats import CHAT
from derivatives.evaluation.majority import NO_FINAL_ANSWER as NO_CONSTANT
from derivatives.evaluation.majority import votes
from derivatives.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_means,
    pass_at_k,
    relative_rise,
    spread,
    wilson,
)
from derivatives.evaluation.texts import Cost, bits_per_byte
from derivatives.evaluation.thinking import CLOSED, NO_THOUGHT
from verifiers.api import Outcome, Task, Verdict

NUM_CONSTANTS = 3
"""Gold answers, most frequent first, that are tried as a constant answer to a whole set."""
NO_THOUGHTS, NOT_CHAT = "no answer opens a thought", "asked plainly, not as a chat"
"""Why a model has no figures at thinking budgets."""


@dataclass(frozen=True)
class Questions:
    """What all models were asked, and how figures are made of it.

    Attributes:
        tasks: Problems, in the order of the greedy answers.
        sampled: Places of those that were sampled, in the order of the samples.
        kept: Problems of other domains.
        not_voted: Sets without a final answer to vote on, with the reason.
        confidence: Level of all intervals.
        seed: Of the resamples.
    """

    tasks: Sequence[Task]
    sampled: Sequence[int] = ()
    kept: Sequence[Task] = ()
    not_voted: Mapping[str, str] = field(default_factory=dict)
    confidence: float = 0.95
    seed: int = 0

    @cached_property
    def counted(self) -> list[int]:
        """Places of the problems that figures over all are made of: all but twins, unless there are only twins."""
        own = [place for place, task in enumerate(self.tasks) if not task.source.startswith(f"{TWINS}/")]
        return own or list(range(len(self.tasks)))

    @cached_property
    def voted(self) -> list[int]:
        """Which of the sampled problems are voted on."""
        return [
            number for number, place in enumerate(self.sampled) if self.tasks[place].source not in self.not_voted
        ]


@dataclass(frozen=True)
class AtBudget:
    """Answers whose thought may take so many tokens: to all problems, and the samples."""

    max_thinking_tokens: int
    greedy: Sequence[Answer]
    sampled: Sequence[Sequence[Answer]] = ()


@dataclass(frozen=True)
class ModelAnswers:
    """All that is known of one model: what a partial result keeps and what figures are made of."""

    form: str
    greedy: Sequence[Answer]
    sampled: Sequence[Sequence[Answer]] = ()  # of the sampled problems, in their order
    texts: Mapping[str, Sequence[Cost]] = field(default_factory=dict)  # of each held-out text, document by document
    formats: Mapping[str, float] = field(default_factory=dict)  # pass@1 of every format on the problems it was tried on
    kept_form: str = ""
    kept: Sequence[Answer] = field(default_factory=list)
    budgets: Sequence[AtBudget] = field(default_factory=list)
    contamination: Mapping[str, Any] = field(default_factory=dict)  # flags of the task sets, by name

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> ModelAnswers:
        budgets = [
            AtBudget(one["max_thinking_tokens"], _read(one["greedy"]), [_read(group) for group in one["sampled"]])
            for one in given["budgets"]
        ]
        texts = {name: [(int(size), float(bits)) for size, bits in costs] for name, costs in given["texts"].items()}
        return ModelAnswers(
            given["form"], _read(given["greedy"]), [_read(group) for group in given["sampled"]], texts,
            given["formats"], given["kept_form"], _read(given["kept"]), budgets, given["contamination"],
        )  # fmt: skip


def _read(given: Sequence[Mapping[str, Any]]) -> list[Answer]:
    return [Answer(**one) for one in given]


def accuracy(answers: Sequence[Answer], confidence: float) -> dict[str, float]:
    """pass@1 with its interval; missing verdicts are wrong in the value and right in `high_bound`."""
    total = len(answers)
    correct = sum(answer.correct for answer in answers)
    missing = sum(answer.outcome == Outcome.NO_VERDICT.value for answer in answers)
    low, high = wilson(correct, total, confidence)
    share = correct / total if total else 0.0
    return {
        "value": share, "low": low, "high": high, "correct": correct, "no_verdict": missing, "total": total,
        "low_bound": share, "high_bound": (correct + missing) / total if total else 1.0,
    }  # fmt: skip


def chances(groups: Sequence[Sequence[Answer]]) -> list[float]:
    """Each sampled problem's pass@k, where k is the number of its samples."""
    return [pass_at_k(len(group), sum(answer.correct for answer in group), len(group)) for group in groups]


def by_set(tasks: Sequence[Task], answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by the name of their task set."""
    found: dict[str, list[Answer]] = {}
    for task, answer in zip(tasks, answers, strict=True):
        found.setdefault(task.source, []).append(answer)
    return found


def model_figures(model: ModelAnswers, asked: Questions) -> dict[str, Any]:
    """One model's entry in `results.json`."""
    confidence = asked.confidence
    counted = [model.greedy[place] for place in asked.counted]
    sampled = None
    if model.sampled:
        sampled = _of_samples(model.sampled, chances(model.sampled), asked)
    num, programs = len(counted), sum(answer.num_programs for answer in counted)
    by_task: dict[str, dict[str, Any]] = {
        name: accuracy(answers, confidence) for name, answers in by_set(asked.tasks, model.greedy).items()
    }
    for name, flag in model.contamination.items():
        by_task[name]["contamination"] = flag
    kept = by_set(asked.kept, model.kept)
    return {
        "pass@1": accuracy(counted, confidence),
        "by_task": by_task,
        "pass@k": sampled,
        **({"maj@k": _majority(model.sampled, asked)} if _is_voted(model.sampled) else {}),
        "format": model.form,
        "formats": dict(model.formats),
        **_kept(model, kept, confidence),
        "bits_per_byte": {name: bits_per_byte(costs) for name, costs in model.texts.items()},
        "mean_tokens": sum(answer.num_tokens for answer in counted) / num,
        "tokens": {
            "right": spread([answer.num_tokens for answer in counted if answer.correct]),
            "wrong": spread([answer.num_tokens for answer in counted if not answer.correct]),
        },
        "truncated_fraction": sum(answer.truncated for answer in counted) / num,
        **({"mean_programs": programs / num} if programs else {}),
        **_thoughts(counted),
        **_budgets(model, asked),
    }


def _kept(model: ModelAnswers, kept: Mapping[str, Sequence[Answer]], confidence: float) -> dict[str, Any]:
    if not kept:
        return {}
    return {
        "kept": {name: accuracy(answers, confidence) for name, answers in kept.items()},
        "kept_all": accuracy(model.kept, confidence),
        "kept_format": model.kept_form,
    }


def _is_voted(groups: Sequence[Sequence[Answer]]) -> bool:
    """With one sample there is nothing to agree on."""
    return bool(groups) and len(groups[0]) > 1


def _majority(groups: Sequence[Sequence[Answer]], asked: Questions) -> dict[str, Any] | None:
    """maj@k with its interval; None where no sampled problem has a final answer."""
    if not asked.voted:
        return None
    voted = [groups[number] for number in asked.voted]
    return _of_samples(voted, votes(voted), asked)


def _of_samples(groups: Sequence[Sequence[Answer]], values: Sequence[float], asked: Questions) -> dict[str, Any]:
    """A figure over sampled problems with its interval; `no_verdict` are those that might be solved, were no verdict of
    their samples missing."""
    missing = Outcome.NO_VERDICT.value
    might = sum(value < 1.0 and any(answer.outcome == missing for answer in group)
                for value, group in zip(values, groups, strict=True))  # fmt: skip
    interval = bootstrap_mean(values, asked.confidence, asked.seed)
    return {"k": len(groups[0]), **interval, "problems": len(values), "no_verdict": might}


def _thoughts(answers: Sequence[Answer]) -> dict[str, Any]:
    """How many answers open a thought, and how many of these close it; nothing where none does."""
    opened = [answer for answer in answers if answer.thought != NO_THOUGHT]
    if not opened:
        return {}
    closed = sum(answer.thought == CLOSED for answer in opened)
    return {"thoughts": {"opened_fraction": len(opened) / len(answers), "closed_fraction": closed / len(opened)}}


def thinks(model: ModelAnswers) -> bool:
    """Whether any answer of a chat opens a thought."""
    return model.form == CHAT and any(answer.thought != NO_THOUGHT for answer in model.greedy)


def _budgets(model: ModelAnswers, asked: Questions) -> dict[str, Any]:
    """Figures at each thinking budget, and what each adds to the smallest; the reason where there are none."""
    if not model.budgets:
        return {}
    if model.form != CHAT:
        return {"no_budgets": NOT_CHAT}
    if not thinks(model):
        return {"no_budgets": NO_THOUGHTS}
    rows = []
    for budget in model.budgets:
        answers = [budget.greedy[place] for place in asked.counted]
        smallest = [model.budgets[0].greedy[place] for place in asked.counted]
        more = [float(b.correct) - float(a.correct) for a, b in zip(smallest, answers, strict=True)]
        thought = _thoughts(answers).get("thoughts", {"closed_fraction": None})
        rows.append(
            {
                "max_thinking_tokens": budget.max_thinking_tokens,
                "pass@1": accuracy(answers, asked.confidence),
                "maj@k": _majority(budget.sampled, asked) if _is_voted(budget.sampled) else None,
                "over_smallest": bootstrap_mean(more, asked.confidence, asked.seed),
                "mean_tokens": sum(answer.num_tokens for answer in answers) / len(answers),
                "closed_fraction": thought["closed_fraction"],
            }
        )
    return {"budgets": rows}


def gain(before: ModelAnswers, after: ModelAnswers, asked: Questions) -> dict[str, Any]:
    """What `after` has over `before` on the same problems."""
    return gains({"before": before, "after": after}, asked)["before->after"]


def gains(answers: Mapping[str, ModelAnswers], asked: Questions) -> dict[str, dict[str, Any]]:
    """What each model has over each other on the same problems, by `a->b`."""
    if len(answers) < 2:
        return {}

    def right(given: Sequence[Answer], places: Sequence[int]) -> list[float]:
        return [float(given[place].correct) for place in places]

    def of_each(values: Callable[[ModelAnswers], Sequence[float]]) -> dict[str, Interval]:
        return paired({name: values(model) for name, model in answers.items()}, asked.confidence, asked.seed)

    def of_sets(tasks: Sequence[Task], given: Callable[[ModelAnswers], Sequence[Answer]]) -> dict[str, Any]:
        places: dict[str, list[int]] = {}
        for place, task in enumerate(tasks):
            places.setdefault(task.source, []).append(place)
        tables = {
            name: of_each(lambda model, own=own: right(given(model), own))  # type: ignore[misc]
            for name, own in places.items()
        }
        return {pair: {name: table[pair] for name, table in tables.items()} for pair in next(iter(tables.values()))}

    first = next(iter(answers.values()))
    once = of_each(lambda model: right(model.greedy, asked.counted))
    tables: dict[str, Mapping[str, Any]] = {
        "pass@1": once,
        "pass@k": of_each(lambda model: chances(model.sampled)) if first.sampled else dict.fromkeys(once),
    }
    if _is_voted(first.sampled):
        tables["maj@k"] = (
            of_each(lambda model: votes([model.sampled[number] for number in asked.voted]))
            if asked.voted else dict.fromkeys(once)
        )  # fmt: skip
    tables["by_task"] = of_sets(asked.tasks, lambda model: model.greedy)
    if asked.kept:
        tables["kept"] = of_each(lambda model: right(model.kept, range(len(asked.kept))))
        tables["kept_by_task"] = of_sets(asked.kept, lambda model: model.kept)
    if first.texts:
        tables["bits_per_byte"] = {
            f"{a}->{b}": _rises(answers[a], answers[b], asked) for a in answers for b in answers if a != b
        }
    return {pair: {metric: table[pair] for metric, table in tables.items()} for pair in once}


def paired(values: Mapping[str, Sequence[float]], confidence: float, seed: int) -> dict[str, Interval]:
    """Mean differences of all ordered pairs, by `a->b`, over the same problems; one set of resamples for all.

    >>> found = paired({"a": [0.0, 0.0, 1.0, 1.0], "b": [1.0, 1.0, 1.0, 1.0]}, 0.95, 0)
    >>> found["a->b"], found["b->a"]
    ({'value': 0.5, 'low': 0.0, 'high': 1.0}, {'value': -0.5, 'low': -1.0, 'high': 0.0})
    """
    pairs = list(combinations(values, 2))
    differences = [[after - before for before, after in zip(values[a], values[b], strict=True)] for a, b in pairs]
    found: dict[str, Interval] = {}
    for (a, b), one in zip(pairs, bootstrap_means(differences, confidence, seed), strict=True):
        found[f"{a}->{b}"] = one
        found[f"{b}->{a}"] = {"value": 0.0 - one["value"], "low": 0.0 - one["high"], "high": 0.0 - one["low"]}
    return {f"{a}->{b}": found[f"{a}->{b}"] for a in values for b in values if a != b}


def _rises(before: ModelAnswers, after: ModelAnswers, asked: Questions) -> dict[str, dict[str, Any]]:
    """How much more each held-out text costs, relatively."""
    return {
        name: relative_rise(
            [bits for _, bits in costs], [bits for _, bits in after.texts[name]], asked.confidence, asked.seed
        )
        for name, costs in before.texts.items()
    }


def floor(tasks: Sequence[Task], judge: Callable[[Sequence[tuple[Task, str]]], Sequence[Verdict]]) -> dict[str, Any]:
    """How far the best constant answer of each set gets: what a model must beat to have understood anything.

    A gold answer in a box that is not even right for the task it comes from (a program, instructions, a format that
    asks for more) makes no constant answer: the set has none, with the reason, and neither has the whole. Its 0% would
    be a fact about the judge, and beating it would show nothing.
    """
    by_task: dict[str, list[Task]] = {}
    for task in tasks:
        by_task.setdefault(task.source, []).append(task)

    def num_right(group: Sequence[Task], constant: str) -> int:
        verdicts = judge([(task, f"\\boxed{{{constant}}}") for task in group])
        return sum(verdict.outcome is Outcome.CORRECT for verdict in verdicts)

    best: dict[str, dict[str, Any]] = {}
    num_correct = num_counted = 0
    counted = {task.source for task in (tasks[place] for place in Questions(tasks).counted)}
    for name, group in by_task.items():
        constants = [answer for answer, _ in Counter(task.answer for task in group).most_common(NUM_CONSTANTS)]
        taken_from = {task.answer: task for task in group}
        scores = [(num_right(group, one), one) for one in constants if num_right([taken_from[one]], one)]
        count, constant = max(scores, key=lambda pair: pair[0], default=(0, None))
        num_correct += count if name in counted else 0
        num_counted += len(group) if name in counted else 0
        best[name] = {"answer": constant, "value": count / len(group)}
        if constant is None:
            best[name] |= {"value": None, "reason": NO_CONSTANT}
    whole = all(best[name]["value"] is not None for name in counted)
    return {"best_constant": best, "value": num_correct / num_counted if whole else None}
