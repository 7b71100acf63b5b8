"""The judge of a release is not the verifier that gave the reward, nor one that shares its judgement.

A policy that has learnt what a verifier wrongly accepts would be released by the same verifier. Names tell here, since
no verifier's code is imported by a recipe: composites count as the part that decides, strict and loose instructions
as one. `code` and `code_hidden` run programs alike and differ in what decides, the tests: those of the judge were never
paid for, so they count as two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.catalogue import dataset, dataset_names
from configs.settings.common import TaskSource
from configs.settings.evaluation import EvaluateStage, ReleaseStage
from configs.settings.reinforcement import RlStage, SampleStage

if TYPE_CHECKING:
    from configs.schema import Recipe

DECIDES = {
    "think_math": ("math",),
    "think_puzzles": ("puzzles",),
    "think_own": ("choice", "code", "instructions", "json_schema", "math", "puzzles", "table"),
    "instructions_loose": ("instructions",),
    "counterpart": ("code_hidden", "exact", "patterns"),
}
"""Verifiers that judge by the code of others, and which."""
READERS = frozenset({"choice", "math", "puzzles"})
"""Verifiers that find the final answer in a text by the same code (`verifiers/answers`), and judge it by their own."""
OTHERS = {"math": "math_verify", "puzzles": "exact", "code": "code_hidden", "exact": "math_verify"}
"""Judges to propose beside a reward."""
OWN = {
    "reasoning_gym/": ("puzzles",), "functions/": ("code",), "structured/": ("json_schema", "table"),
    "instructions/": ("instructions",), "fim/": ("fim",),
}  # fmt: skip
"""What judges generated sets that no judge is named for, by the beginning of their names."""
TWINS = "twins/"
"""Before the name of a set: problems made from it, which are judged as it is."""
OF_TESTS = {"ifeval": ("instructions",)}
"""What judges catalogue sets without gold answers; all others of these have programs."""


def implementations(verifier: str) -> frozenset[str]:
    """The verifiers whose judgement this one's is.

    >>> sorted(implementations("think_math")), sorted(implementations("code_hidden"))
    (['math'], ['code_hidden'])
    """
    return frozenset(DECIDES.get(verifier, (verifier,)))


def read_alike(first: str, second: str) -> bool:
    """Whether two verifiers find the answer that they judge by the same code.

    >>> read_alike("think_math", "puzzles"), read_alike("math", "math_verify")
    (True, False)
    """
    return bool(implementations(first) & READERS and implementations(second) & READERS)


def judges_of(stage: EvaluateStage) -> tuple[str, ...]:
    """Who judges an evaluation's tasks: the judge, or what each set brings along."""
    if stage.judge is not None:
        return (stage.judge,)
    return tuple(dict.fromkeys(name for source in stage.tasks for name in own_verifiers(source)))


def own_verifiers(source: TaskSource) -> tuple[str, ...]:
    """Verifiers of a set's problems: that of the recipe's source, else those that they name themselves."""
    if source.verifier is not None:
        return (source.verifier,)
    if source.name.endswith(".jsonl"):
        return _named_in(Path(source.name).expanduser())
    name = source.name.removeprefix(TWINS)
    tests = dataset(name).tests if name in dataset_names() else None
    if tests is not None:
        return OF_TESTS.get(tests, ("code",))
    return next((names for start, names in OWN.items() if name.startswith(start)), ("math",))


def _named_in(path: Path) -> tuple[str, ...]:
    """Verifiers that the lines of a user's file name, or have by default; of a file that cannot be read the default."""
    found: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for line in filter(str.strip, file):
                # Most lines of most files name none, and are not worth parsing.
                row = json.loads(line) if '"verifier"' in line or '"middle"' in line else {}
                gap = "middle" in row and "prompt" not in row
                found["fim" if gap else str(row.get("verifier", "math"))] = None
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # whoever reads the problems says what is wrong with the line
    return tuple(found) or ("math",)


def rewards_of(recipe: Recipe, line: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Field and name of every verifier that paid for, or chose, what the models of a line were trained on; and of those
    that paid the models whose samples they were trained on, since what fools a verifier is learnt from samples too."""
    from configs.schema import line_of, resolved_model  # which imports this module

    samples = {stage.id: stage for stage in recipe.stages if isinstance(stage, SampleStage)}
    waiting, known = list(line), set(line)
    while waiting:
        stage = recipe.stage(name := waiting.pop(0))
        if isinstance(stage, RlStage):
            yield f"{name}.verifier", stage.verifier
            for index, more in enumerate(stage.more_rewards):
                yield f"{name}.more_rewards[{index}].verifier", more.verifier
        for made in (samples[ref] for ref in getattr(stage, "data", ()) if ref in samples and ref not in known):
            known.add(made.id)
            yield f"{made.id}.verifier", made.verifier
            before = [one for one in line_of(recipe, resolved_model(recipe, made)) if one not in known]
            known.update(before)
            waiting += before


def check_judge(recipe: Recipe, release: ReleaseStage, measured: EvaluateStage, line: Sequence[str]) -> None:
    """Refuse a release whose judge gave the reward, unless the recipe allows it in so many words.

    Raises:
        ValueError: With both fields and a judge to take instead.
    """
    if release.allow_same_judge:
        return
    judges = judges_of(measured)
    for path, reward in rewards_of(recipe, line):
        shared = next((name for name in judges if implementations(name) & implementations(reward)), None)
        if shared is not None:
            how = "is" if shared == reward else "shares its implementation with"
            whose = "" if measured.judge is not None else " (each task set's own)"
            other = next((OTHERS[one] for one in sorted(implementations(reward)) if one in OTHERS), "NAME")
            raise ValueError(
                f"{measured.id}.judge: {shared!r}{whose} {how} the reward {path}={reward}, so what fools one fools "
                f"both; allowed: a judge that gave no reward; set {measured.id}.judge={other}, or "
                f"{release.id}.allow_same_judge=true, which the card will say"
            )
