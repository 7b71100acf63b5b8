"""Twins of problems: the same kind of problem that nobody can have seen, as `twins/SET`.

    load_tasks(TaskSource(name="twins/gsm8k", split="test", count=200))

gives the twins of those problems that `gsm8k` gives with the same split, count and seed, where they have one
(`metadata["twin_of"]` is the original's id): so `count` counts originals, and fewer twins may come. A model that knows
a published set by heart scores lower on its twins, which are as hard.

- `twins/gsm8k`, `twins/asdiv`: the numbers are changed and the answer is recomputed by the set's own worked steps
  (`renumber.py`); a problem of which any number cannot be traced has no twin.
- Twins of a generated set (`twins/reasoning_gym/chain_sum`, `twins/functions/lists`): another draw, without the
  questions of the first one. These are clean by construction as the originals are; the two are a pair by their place
  alone.

What this does not do: MATH, AIME and programs. Their solutions are prose without worked steps that a machine could
follow, and a rewritten problem whose answer is wrong now and then would measure nothing.
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from configs.catalogue import open_rows
from configs.errors import UserError
from configs.names import TWINNED, TWINS, is_generated
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.number_words import NoTwin, reasons
from verifiers.tasks.renumber import Step, Twin, holds, number_of, renumber
from verifiers.tasks.split import question_digest

__all__ = ["NoTwin", "draw", "holds_for_row", "twin_of_row"]

PREFIX = f"{TWINS}/"
OTHER_SEED = 1_000_003
"""Added to the seed for the other draw of a generated set."""
_MAX_ROUNDS = 5
"""Draws of a generated set until enough of its questions are others."""
_log = logging.getLogger(__name__)
_Row = Mapping[str, Any]


def draw(source: TaskSource, load: Callable[[TaskSource], list[Task]]) -> list[Task]:
    """The twins of what the source without `twins/` gives.

    Args:
        source: Name with the prefix; split, count, params and seed are those of the originals.
        load: Loads a source of originals.

    Raises:
        UserError: No such set, or none of the problems has a twin.
    """
    name = source.name.removeprefix(PREFIX)
    inner = source.model_copy(update={"name": name})
    if is_generated(name):
        return _another_draw(inner, source.name, load)
    if name not in TWINNED:
        raise UserError(f"task set: {source.name!r} is not known; allowed: {PREFIX} before a generated set or one of "
                        f"{', '.join(TWINNED)}; other sets have no worked steps by which an answer could be recomputed")
    originals = {task.id: task for task in load(inner)}
    twins: list[Task] = []
    refused: Counter[str] = Counter()
    for row in open_rows(name, source.split):
        original = originals.get(row["id"])
        if original is None:
            continue
        try:
            twin = twin_of_row(name, row, source.seed)
        except NoTwin as error:
            refused[str(error)] += 1
            continue
        metadata = {**original.metadata, "twin_of": original.id, "changed": dict(twin.changed)}
        twins.append(replace(original, id=PREFIX + original.id, prompt=twin.question, answer=twin.answer,
                             metadata=metadata, source=source.name))  # fmt: skip
    _log.info("%s: %d of %d problems have a twin; the others: %s", source.name, len(twins), len(originals),
              ", ".join(f"{reason} ({count})" for reason, count in refused.most_common()))  # fmt: skip
    if not twins:
        raise UserError(f"count: none of the {len(originals)} problems of {name} (split {source.split}, seed "
                        f"{source.seed}) has a twin; raise the count")
    return twins


def twin_of_row(name: str, row: _Row, seed: int) -> Twin:
    """The twin of a row of `open_rows`, determined by its id and the seed. Raises NoTwin."""
    rng = random.Random(f"{row['id']}:{seed}")
    return renumber(row["question"].strip(), _STEPS[name](row), row["answer"], rng, spelled=name == "asdiv")


def holds_for_row(name: str, row: _Row) -> bool:
    """Whether the row's own numbers give back its question and its gold answer. Raises NoTwin."""
    return holds(row["question"].strip(), _STEPS[name](row), row["answer"], spelled=name == "asdiv")


def _another_draw(inner: TaskSource, name: str, load: Callable[[TaskSource], list[Task]]) -> list[Task]:
    originals = load(inner)
    asked = {question_digest(task.prompt) for task in originals}
    other = inner.model_copy(update={"seed": (inner.seed + OTHER_SEED) % 2**31})
    count = len(originals)
    for _ in range(_MAX_ROUNDS):
        try:
            drawn = load(other.model_copy(update={"count": count}))
        except UserError:  # fewer questions than that: told below, of the set that was asked for
            break
        fresh = [task for task in drawn if question_digest(task.prompt) not in asked]
        if len(fresh) >= len(originals):
            return [replace(task, id=PREFIX + task.id, source=name,
                            metadata={**task.metadata, "twin_of": original.id})
                    for task, original in zip(fresh, originals, strict=False)]  # fmt: skip
        count += len(originals) - len(fresh)
    raise UserError(f"count: {inner.count} for {name} (params {inner.params}): the set has too few questions for two "
                    "draws that share none; lower the count or widen the params")


# The worked steps of each set ------------------------------------------------------------------------------------


_NUMBER = r"(?:\d+(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_STEP = re.compile(
    rf"<<([^<>=]*)=([^<>=]*)>>|([(\d$.][\d\s$.,()+*/x×%-]*[\d)%])\s*=\s*(\$?(?:{_NUMBER}))(?!\s*[-+*/x×%]|\d)"
)
"""`<<48/2=24>>`, or the same without the marks."""
_TOLD_TWICE = re.compile(r"=?\s*\$?\s*(?=<<)")


def _gsm8k_steps(row: _Row) -> list[Step]:
    """From the calculator annotations `<<48/2=24>>` of the solution, which must hold all of its arithmetic."""
    solution = str(row["raw"]["answer"]).rpartition("####")[0].replace("–", "-").replace("−", "-")
    solution = _TOLD_TWICE.sub(" ", solution)
    steps: list[Step] = []
    for match in _STEP.finditer(solution):
        expression, result = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
        steps.append(Step(_expression(expression), number_of(result)))
    told = _STEP.sub(" ", solution)
    if "=" in told or "<<" in told:
        raise NoTwin("arithmetic outside the annotations")
    known = {step.result for step in steps} | {number_of(one) for step in steps for one in _numbers(step.expression)}
    known |= {number_of(one) for one in _numbers(str(row["question"]))} | reasons(str(row["question"])) | {Fraction(1)}
    if any(number_of(one) not in known for one in _numbers(told)):
        raise NoTwin("a number of the solution comes from nowhere")
    return steps


_NO_ARITHMETIC = ("Comparison", "Ceil-Division", "Floor-Division", "LCM", "GCD")


def _asdiv_steps(row: _Row) -> list[Step]:
    """From the formula `7+2=9`."""
    expression, _, result = str(row["raw"]["formula"]).partition("=")
    if "=" in result or row["raw"].get("solution_type") in _NO_ARITHMETIC:
        raise NoTwin("a step is no plain arithmetic")
    return [Step(_expression(expression), number_of(result))]


def _numbers(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(_NUMBER, text))


def _expression(text: str) -> str:
    """Arithmetic as Python writes it.

    >>> _expression("$1,200 x 50%")
    '1200 * (50/100)'
    """
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("$", "")).replace("×", "*").replace("÷", "/")
    plain = re.sub(r"(?<=[\d)\s])[xX](?=[\d(\s])", "*", plain)
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    return re.sub(r"(\d+(?:\.\d+)?|\.\d+)\s*%", r"(\1/100)", plain)


_STEPS: dict[str, Callable[[_Row], list[Step]]] = {"gsm8k": _gsm8k_steps, "asdiv": _asdiv_steps}
assert tuple(_STEPS) == TWINNED, "configs/names.py and this file name the same sets"
