"""Suites: several task sets under one name, `suite/NAME`, as `suites.yaml` lists them.

A recipe names a suite where it names task sets (`evaluate.tasks`, `kept_tasks`, `few_shot_tasks`, `probe_tasks`,
`decontaminate`); it stands for its members from the moment the recipe is read, so that lineage, plans and reports know
the sets alone. `count` then is the number of problems of each member at most, and `seed` the seed of their draws.

What this does not do: a suite has no figure of its own. Tables show its sets.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, ValidationError

from configs.errors import UserError, printable
from configs.settings.common import Frozen, TaskSource
from configs.strict_yaml import read_mapping

PREFIX = "suite/"
FILE = Path(__file__).with_name("suites.yaml")


class Suite(Frozen):
    """One suite.

    Attributes:
        title: What it is, in one line.
        defaults: Fields of TaskSource that all members take which do not set them.
        members: Fields of TaskSource for each set, and `problems`: how many the set has, where it has an end.
    """

    title: str
    defaults: dict[str, Any] = Field(default_factory=dict)
    members: tuple[dict[str, Any], ...] = Field(min_length=1)


class Member(TaskSource):
    """A set of a suite.

    Attributes:
        problems: Problems that the set has in that split; a suite's `count` beyond it takes them all.
    """

    problems: PositiveInt | None = None


@functools.cache
def _suites() -> dict[str, tuple[str, tuple[Member, ...]]]:
    found = {}
    for name, raw in read_mapping(FILE).items():
        suite = Suite.model_validate_json(json.dumps(raw), strict=True)
        try:
            members = tuple(
                Member.model_validate_json(json.dumps({**suite.defaults, **one}), strict=True) for one in suite.members
            )
        except ValidationError as error:
            raise UserError(f"{FILE.name}: {name}: {error}") from error
        found[name] = suite.title, members
    return found


def suite_names() -> tuple[str, ...]:
    """Names of all suites, with the `suite/` before them, sorted."""
    return tuple(sorted(PREFIX + name for name in _suites()))


def suite_title(name: str) -> str:
    """What a suite is, in one line. Raises UserError for an unknown one."""
    return _suite(name)[0]


def members_of(source: TaskSource) -> tuple[TaskSource, ...]:
    """The sets that a source stands for: a suite's, with its `count` and `seed`; any other source is its own.

    Raises:
        UserError: There is no such suite, or the source has a field that only single sets take.
    """
    if not source.name.startswith(PREFIX):
        return (source,)
    _, members = _suite(source.name)
    given = source.model_fields_set - {"name", "count", "seed"}
    if given := {field for field in given if getattr(source, field) != TaskSource.model_fields[field].get_default()}:
        field = sorted(given)[0]
        raise UserError(
            f"{source.name}: {field}: {getattr(source, field)!r} was given to a suite, whose sets have their own; "
            f"allowed: count, seed; remove {field}, or list the sets themselves"
        )
    return tuple(_member(one, source) for one in members)


def expand(sources: Sequence[TaskSource]) -> tuple[TaskSource, ...]:
    """The sources with every suite replaced by its sets, in order, less those that were named before it.

    Raises:
        UserError: As `members_of`.
    """
    if not any(source.name.startswith(PREFIX) for source in sources):
        return tuple(sources)
    found: list[TaskSource] = []
    for source in sources:
        if not source.name.startswith(PREFIX):
            found.append(source)
            continue
        before = [(one.name, one.split, one.params) for one in found]
        found += [one for one in members_of(source) if (one.name, one.split, one.params) not in before]
    return tuple(found)


def _member(member: Member, source: TaskSource) -> TaskSource:
    fields = member.model_dump(exclude={"problems"}, exclude_defaults=True)
    if source.count is not None:
        most = member.count or member.problems
        fields["count"] = source.count if most is None else min(source.count, most)
    if "seed" in source.model_fields_set:
        fields["seed"] = source.seed
    return TaskSource(**fields)


def _suite(name: str) -> tuple[str, tuple[Member, ...]]:
    short = name.removeprefix(PREFIX)
    if short not in _suites():
        import difflib

        near = difflib.get_close_matches(name, suite_names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"suite: {printable(name)!r} is not known{hint}; allowed: {', '.join(suite_names())}")
    return _suites()[short]
