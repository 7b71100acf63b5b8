"""From judged answers to the figures of `results.json`, and the table that is printed of them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from derivatives.evaluation.answers import Answer
from derivatives.evaluation.statistics import Interval, bootstrap_mean, pass_at_k, wilson
from verifiers.api import Outcome, Task, Verdict

NUM_CONSTANTS = 3
"""Gold answers, most frequent first, that are tried as a constant answer to a whole set."""
NO_CONSTANT = "not judged by a final answer alone"
"""Why a set has no constant answer, as tables and cards say it."""
NUM_COLUMNS = 140
"""Width of the printed tables where there is no terminal."""


@dataclass(frozen=True)
class ModelAnswers:
    """All that is known of one model: what a partial result keeps and what figures are made of."""

    form: str
    greedy: Sequence[Answer]
    sampled: Sequence[Sequence[Answer]]  # of the sampled problems, in their order
    bits_per_byte: Mapping[str, float]
    formats: Mapping[str, float] = field(default_factory=dict)  # pass@1 of every format on the problems it was tried on

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> ModelAnswers:
        greedy = [Answer(**one) for one in given["greedy"]]
        sampled = [[Answer(**one) for one in group] for group in given["sampled"]]
        return ModelAnswers(given["form"], greedy, sampled, given["bits_per_byte"], given["formats"])


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


def chances(model: ModelAnswers) -> list[float]:
    """Each sampled problem's pass@k, where k is the number of its samples."""
    return [pass_at_k(len(group), sum(answer.correct for answer in group), len(group)) for group in model.sampled]


def model_figures(model: ModelAnswers, tasks: Sequence[Task], confidence: float, seed: int) -> dict[str, Any]:
    """One model's entry in `results.json`."""
    by_task: dict[str, list[Answer]] = {}
    for task, answer in zip(tasks, model.greedy, strict=True):
        by_task.setdefault(task.source, []).append(answer)
    sampled = None
    if model.sampled:
        interval = bootstrap_mean(chances(model), confidence, seed)
        sampled = {"k": len(model.sampled[0]), **interval, "problems": len(model.sampled)}
    num, programs = len(model.greedy), sum(answer.num_programs for answer in model.greedy)
    return {
        "pass@1": accuracy(model.greedy, confidence),
        "by_task": {name: accuracy(answers, confidence) for name, answers in by_task.items()},
        "pass@k": sampled,
        "format": model.form,
        "formats": dict(model.formats),
        "bits_per_byte": dict(model.bits_per_byte),
        "mean_tokens": sum(answer.num_tokens for answer in model.greedy) / num,
        "truncated_fraction": sum(answer.truncated for answer in model.greedy) / num,
        **({"mean_programs": programs / num} if programs else {}),
    }


def gain(before: ModelAnswers, after: ModelAnswers, confidence: float, seed: int) -> dict[str, Interval | None]:
    """What `after` has over `before` on the same problems."""
    once = [float(b.correct) - float(a.correct) for a, b in zip(before.greedy, after.greedy, strict=True)]
    many = [b - a for a, b in zip(chances(before), chances(after), strict=True)]
    return {
        "pass@1": bootstrap_mean(once, confidence, seed),
        "pass@k": bootstrap_mean(many, confidence, seed) if many else None,
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
    num_correct = 0
    for name, group in by_task.items():
        constants = [answer for answer, _ in Counter(task.answer for task in group).most_common(NUM_CONSTANTS)]
        taken_from = {task.answer: task for task in group}
        scores = [(num_right(group, one), one) for one in constants if num_right([taken_from[one]], one)]
        count, constant = max(scores, key=lambda pair: pair[0], default=(0, None))
        num_correct += count
        best[name] = {"answer": constant, "value": count / len(group)}
        if constant is None:
            best[name] |= {"value": None, "reason": NO_CONSTANT}
    whole = all(one["value"] is not None for one in best.values())
    return {"best_constant": best, "value": num_correct / len(tasks) if whole else None}


def print_table(results: Mapping[str, Any]) -> None:
    """Models by figures, then task sets by models with the best constant answer, on stdout."""
    from rich.console import Console
    from rich.table import Table

    models = results["models"]
    k = next((one["pass@k"]["k"] for one in models.values() if one["pass@k"]), None)
    sampled = [f"pass@{k}"] if k else []
    headings = ["model", "pass@1", "gain over the first", *sampled, "bits per byte", "tokens", "format"]
    overall = Table(*headings, title=f"judged by {results['judge']}, {results['confidence']:.0%} intervals")
    for name, one in models.items():
        gained = results["gains"].get(name)
        gain_shown = _percent(gained["pass@1"], sign=True) if gained else ""
        sampled_shown = [_percent(one["pass@k"])] if k else []
        bits = " ".join(f"{value:.3f}" for value in one["bits_per_byte"].values())
        tokens = f"{one['mean_tokens']:.0f}"
        overall.add_row(name, _percent(one["pass@1"]), gain_shown, *sampled_shown, bits, tokens, one["format"])
    by_task = Table("task set", "problems", "best constant", *models, title="pass@1 by task set")
    constants = results["floor"]["best_constant"]
    for task, best in constants.items():
        row = [one["by_task"][task] for one in models.values()]
        by_task.add_row(task, f"{row[0]['total']}", _constant(best), *map(_percent, row))
    reached = results["floor"]["value"]
    shown = "" if reached is None else f"{reached:.1%}"
    by_task.add_row("all", "", shown, *(_percent(one["pass@1"]) for one in models.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=NUM_COLUMNS)
    console.print(overall, by_task)
    if results.get("audit"):
        console.print(_audit_table(results["audit"]))


def _audit_table(found: Mapping[str, Any]) -> Any:
    """Agreement with the auditor, the gap, and the gain that it confirms."""
    from rich.table import Table

    title = f"audited by {found['verifier']} on {found['problems']} problems"
    table = Table("model", "agreement", "gap", "gain by the judge there", "gain confirmed", title=title)
    for name, one in found["models"].items():
        gained = found["gains"].get(name) or {}
        gains = (_percent(gained.get(by), sign=True) for by in ("judge", "audit"))
        table.add_row(name, _percent(one["agreement"]), _percent(one["gap"], sign=True), *gains)
    return table


def _constant(best: Mapping[str, Any]) -> str:
    """What the best constant answer reaches, and which it is; or why there is none."""
    from rich.markup import escape

    if best["value"] is None:
        return escape(f"none: {best['reason']}")
    return f"{best['value']:.1%} ({escape(textwrap.shorten(best['answer'], 30, placeholder='...'))})"


def _percent(interval: Mapping[str, float] | None, sign: bool = False) -> str:
    if interval is None:
        return ""
    form = "+.1%" if sign else ".1%"
    return f"{interval['value']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"
