"""Problems from reasoning-gym's generators (https://github.com/open-thought/reasoning-gym), as `reasoning_gym/FAMILY`.

A draw walks one running index from a start that the seed fixes, and keeps each question that is new and on the asked
side of the split, until there are as many as asked. Problems are judged by `verifiers.puzzles`, which needs the
generator's own metadata; these are passed through JSON once, so that a problem is the same before and after storage.

Entries of `basic_arithmetic` whose gold answer is not the value of their expression are passed over.

What this does not do: `composite`, a mixture of families, has no problems of its own and is left out.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
from typing import Any

from configs.errors import UserError
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.split import normalise_question, question_digest, split_of
from verifiers.tasks.worked import exact_value

PREFIX = "reasoning_gym/"
MIN_PATIENCE = 2_000
"""Draws without a new question of the asked side before a family counts as exhausted; grows with what was found."""
WINDOW = 2_000
"""Entries of one generator."""
NOT_SETTINGS = ("seed", "size")
"""Fields of a generator's configuration that a task source has its own words for."""


@functools.cache
def families() -> tuple[str, ...]:
    """All families of the installed reasoning-gym, sorted."""
    return tuple(sorted(name for name in _registry() if name != "composite"))


def draw(source: TaskSource) -> list[Task]:
    """`source.count` distinct problems of the asked split. Deterministic.

    Raises:
        UserError: Unknown family or setting, no count, split `test`, or fewer questions than asked for.
    """
    family = source.name.removeprefix(PREFIX)
    if source.count is None:
        raise UserError(f"count: empty for {source.name}; a procedural set has no end, so say how many to draw")
    if source.split == "test":
        raise UserError(f"split: 'test' for {source.name}; allowed: train, heldout, all (use heldout to measure)")
    walk = _Walk(family, source)
    tasks: list[Task] = []
    seen: set[str] = set()
    last_new = 0
    index = 0
    while len(tasks) < source.count:
        entry = walk.entry(index)
        index += 1
        key = normalise_question(entry["question"])
        wanted = source.split in ("all", split_of(entry["question"])) and _gold_holds(family, entry)
        if wanted and key not in seen:
            seen.add(key)
            tasks.append(_task(source, family, entry))
            last_new = index
        if index - last_new > MIN_PATIENCE + 10 * len(tasks):
            raise UserError(f"count: {source.count} for {source.name} (split {source.split}, params {source.params}), "
                            f"but only {len(tasks)} distinct questions were found; lower the count or widen the params")
    return tasks


def open_family(family: str, params: dict[str, Any], seed: int) -> Any:
    """A generator of reasoning-gym with these settings. Raises UserError that names what does not fit."""
    if family not in families():
        near = difflib.get_close_matches(family, families(), 3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UserError(f"task set: {PREFIX + family!r} is not known{hint}; `task_set_names()` lists all")
    dataset_class, config_class = _registry()[family]
    allowed = [field.name for field in dataclasses.fields(config_class) if field.name not in NOT_SETTINGS]
    for name in params:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"params.{name}: not a setting of {PREFIX + family}{hint}; allowed: {', '.join(allowed)}")
    try:
        config = config_class(**params, seed=seed, size=WINDOW)
        if hasattr(config, "validate"):
            config.validate()
        return dataset_class(config=config)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"params: {params} for {PREFIX + family}: {error}; correct the setting") from error


def start_of(family: str, seed: int) -> int:
    """Where a seed's walk begins: generators draw from seed + index, so that near seeds would overlap."""
    digest = hashlib.blake2b(f"{family}:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


class _Walk:
    """Entries of a family along one running index.

    Some generators prepare as many entries as their `size` says and know no index beyond, so that the walk goes in
    windows, each a generator that begins where the last one ended.
    """

    def __init__(self, family: str, source: TaskSource) -> None:
        self.family, self.params = family, source.params
        self.start = start_of(family, source.seed)
        self.window = -1

    def entry(self, index: int) -> dict[str, Any]:
        window, position = divmod(index, WINDOW)
        if window != self.window:
            self.generator = open_family(self.family, self.params, self.start + window * WINDOW)
            self.window = window
        entry: dict[str, Any] = self.generator[position]
        return entry


def _task(source: TaskSource, family: str, entry: dict[str, Any]) -> Task:
    metadata = {**_plain(entry["metadata"]), "family": family}
    if source.params:
        metadata["params"] = dict(source.params)
    answer = entry["answer"]
    return Task(
        id=f"{source.name}/{question_digest(entry['question'])}",
        prompt=entry["question"],
        answer="" if answer is None else str(answer),
        verifier="puzzles",
        metadata=metadata,
        source=source.name,
    )


def _gold_holds(family: str, entry: dict[str, Any]) -> bool:
    """Whether the gold answer is what the question's own expression comes to, where we can tell.

    `basic_arithmetic` rounds inexact divisions down and, without parentheses, works from left to right.
    """
    return family != "basic_arithmetic" or exact_value(str(entry["metadata"]["expression"])) == int(entry["answer"])


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(metadata, default=str))
    return plain


@functools.cache
def _registry() -> dict[str, tuple[Any, Any]]:
    try:
        import reasoning_gym  # noqa: F401 - importing it registers the families
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UserError(f"reasoning_gym: cannot be imported ({error}); "
                        "install it with `pip install reasoning-gym`") from error
    registry: dict[str, tuple[Any, Any]] = DATASETS
    return registry
