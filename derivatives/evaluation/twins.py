"""A set beside its twins: what a model loses when the same problems have other numbers, and what of its gain is left.

`results["twins"]` is `{set: {model: {"original", "twin", "gap", "plain_gain", "clean_gain"}}}`: two accuracies on the
same problems, the gap between them (twin less original), and, for all models but the first, the gain over the first
model on the originals and on the twins. All intervals are over pairs drawn anew (`statistics.bootstrap_mean`). A large
gap speaks for memory, a clean gain near the plain one against it; twins of a generated set are another draw, whose gap
is 0 but for chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.names import TWINS
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.report import accuracy
from derivatives.evaluation.statistics import bootstrap_mean
from verifiers.api import Task


def pairs_of(tasks: Sequence[Task]) -> dict[str, list[tuple[int, int]]]:
    """Places of each original and its twin, by the original's set; only of those that were both asked."""
    places = {(task.source, task.id): place for place, task in enumerate(tasks)}
    found: dict[str, list[tuple[int, int]]] = {}
    for place, task in enumerate(tasks):
        name = task.source.removeprefix(f"{TWINS}/")
        original = places.get((name, str(task.metadata.get("twin_of"))))
        if name != task.source and original is not None:
            found.setdefault(name, []).append((original, place))
    return found


def twin_figures(
    tasks: Sequence[Task], answers: Mapping[str, Sequence[Answer]], confidence: float, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """`results["twins"]`, empty where no twins were asked.

    Args:
        tasks: All problems, in the order of the answers.
        answers: Each model's greedy answers; the first model is what the others are compared with.
        confidence: Level of all intervals.
        seed: Of the resamples.
    """
    first = next(iter(answers))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, pairs in pairs_of(tasks).items():
        right = {model: [(float(given[a].correct), float(given[b].correct)) for a, b in pairs]
                 for model, given in answers.items()}  # fmt: skip
        for model, own in right.items():
            figures: dict[str, Any] = {
                "original": accuracy([answers[model][a] for a, _ in pairs], confidence),
                "twin": accuracy([answers[model][b] for _, b in pairs], confidence),
                "gap": bootstrap_mean([twin - original for original, twin in own], confidence, seed),
            }
            if model != first:
                for side, key in enumerate(("plain_gain", "clean_gain")):
                    gained = [one[side] - before[side] for one, before in zip(own, right[first], strict=True)]
                    figures[key] = bootstrap_mean(gained, confidence, seed)
            found.setdefault(name, {})[model] = figures
    return found
