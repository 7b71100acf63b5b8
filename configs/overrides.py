"""Dotted overrides of a preset's plain mapping (`rl.steps=8`, `evaluate.tasks[0].count=50`, `seed=3`) and `same_as`.

A path starts with a stage id or a field of the recipe. `[2]` takes one item of a list, `[*]` all of them. A field
that the preset leaves at its default can be set too. Names that no field has are found out afterwards, when the
whole recipe is checked.

`{same_as: evaluate.tasks}` in a preset stands for a copy of what lies at that path. It is filled in after all
overrides, so that a corpus goes on being cleaned of the very questions that evaluation asks, whatever is set.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from configs.errors import UserError, printable
from configs.names import unknown
from configs.schema import Recipe
from configs.strict_yaml import parse_yaml

_SEGMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[(?:\d{1,6}|\*)\])*)")
_INDEX = re.compile(r"\[(\d+|\*)\]")
EXAMPLE = "write STAGE.field=value or field=value, e.g. rl.steps=8, evaluate.tasks[0].count=50, seed=3"

SAME_AS = "same_as"

Step = str | int
"""A key, an index, or `*` for every item of a list."""


def parse_override(text: str) -> tuple[str, Any]:
    """`rl.steps=8` -> (`rl.steps`, 8); the value is YAML. Raises UserError when there is no `=` or no path."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set: {text[:80]!r} is no override; {EXAMPLE}")
    path = path.strip()
    _parse_path(path)
    return path, parse_yaml(value, f"--set {path[:80]}")


def apply_override(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value in a preset's mapping, in place.

    Raises:
        UserError: The path cannot be read, or leads to no stage or no item.
    """
    steps = _parse_path(dotted)
    if steps[0] == "stages" and len(steps) > 1:
        steps = steps[1:]
    first = str(steps[0])
    target: Any = raw
    if first not in Recipe.model_fields:
        target = _stage(raw, first, dotted)
        steps = steps[1:]
        if not steps:
            raise UserError(f"{dotted}: names a whole stage; allowed: one of its fields; {EXAMPLE}")
        if not _is_name(steps[0]):
            raise UserError(f"{dotted}: a stage is no list, so [{steps[0]}] takes nothing; {EXAMPLE}")
    for holder, last in _holders(target, steps, dotted):
        holder[last] = copy.deepcopy(value)


def _parse_path(dotted: str) -> list[Step]:
    steps: list[Step] = []
    for segment in dotted.split("."):
        match = _SEGMENT.fullmatch(segment)
        if match is None:
            raise UserError(f"{dotted[:80]!r} is no path: {segment[:40]!r} is neither a name nor name[0]; {EXAMPLE}")
        steps.append(match[1])
        steps += [index if index == "*" else int(index) for index in _INDEX.findall(match[2])]
    return steps


def _is_name(step: Step) -> bool:
    return isinstance(step, str) and step != "*"


def _stage(raw: dict[str, Any], stage_id: str, dotted: str) -> dict[str, Any]:
    stages = raw.get("stages")
    by_id = {stage["id"]: stage for stage in stages if isinstance(stage, dict) and isinstance(stage.get("id"), str)} \
        if isinstance(stages, list) else {}
    if stage_id not in by_id:
        fields = [name for name in Recipe.model_fields if name != "stages"]
        raise unknown(dotted, stage_id, "stage of this preset, nor a field of the recipe", [*by_id, *fields])
    return by_id[stage_id]


def _holders(target: Any, steps: list[Step], dotted: str) -> list[tuple[Any, Any]]:
    """Containers that hold the last step, with its key or index, for every way that `[*]` opens."""
    found: list[tuple[Any, Any]] = [(target, steps[0])]
    for step in steps[1:]:
        opened: list[tuple[Any, Any]] = []
        for holder, key in found:
            child = _child(holder, key, step, dotted)
            keys = list(range(len(child))) if step == "*" else [step]
            opened += [(child, item) for item in keys]
        found = opened
    return found


def _child(holder: Any, key: Any, step: Step, dotted: str) -> Any:
    """What lies under `key`, ready to be entered by `step`."""
    wants_list = not _is_name(step)
    child = holder[key] if isinstance(holder, list) else holder.get(key)
    if child is None and not wants_list:  # a block that the preset leaves at its defaults
        child = holder[key] = {}
    if wants_list:
        if not isinstance(child, list):
            raise UserError(f"{dotted}: {key} is not a list in this preset, so [{step}] takes nothing; "
                            f"allowed: {key} itself; give the whole list, e.g. {key}=[...]")
        if not child:
            raise UserError(f"{dotted}: {key} is empty; allowed: {key} itself; give the whole list, e.g. {key}=[...]")
        if isinstance(step, int) and step >= len(child):
            raise UserError(f"{dotted}: [{step}] is past the end of {key}; allowed: [0] to [{len(child) - 1}], or [*]")
    elif not isinstance(child, dict):
        raise UserError(f"{dotted}: {key} holds {str(child)[:40]!r}, which has no field {step!r}; "
                        f"allowed: {key} itself; set {key}=value")
    return child


def fill_same_as(raw: dict[str, Any]) -> tuple[str, ...]:
    """Replace every `{same_as: PATH}` of a preset's mapping by a copy of what lies at PATH, in place.

    The items of a list that is asked for inside a list are put into that one.

    Returns:
        Dotted paths of the copies. What is wrong with a copy is wrong with its original, which is to be named.

    Raises:
        UserError: A path leads nowhere, or to something that itself holds a `same_as`.
    """
    filled: list[tuple[Any, Any, Any]] = []
    copies: list[str] = []
    for holder, key, where in _references(raw):
        dotted = holder[key][SAME_AS]
        if not isinstance(dotted, str):
            raise UserError(f"{where}.{SAME_AS}: {str(dotted)[:40]!r} is no path; allowed: text such as evaluate.tasks")
        value = _value_at(raw, dotted, f"{where}.{SAME_AS}")
        if next(_references({"value": value}), None) is not None:
            raise UserError(f"{where}.{SAME_AS}: {dotted!r} holds a {SAME_AS} itself; give what that one names")
        filled.append((holder, key, copy.deepcopy(value)))
        copies.append(where)
    for holder, key, value in reversed(filled):  # from behind: a list inside a list takes more places than one
        if isinstance(holder, list) and isinstance(value, list):
            holder[key : key + 1] = value
        else:
            holder[key] = value
    return tuple(copies)


def _references(node: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Container, key and dotted path of every `{same_as: ...}` below a node."""
    items: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    for key, child in items:
        stage_id = child.get("id") if where == "stages" and isinstance(child, dict) else None
        step = f"[{key}]" if isinstance(key, int) else f".{printable(key)}" if where else printable(key)
        below = printable(stage_id) if isinstance(stage_id, str) else f"{where}{step}"
        if isinstance(child, dict) and set(child) == {SAME_AS}:
            yield node, key, below
        else:
            yield from _references(child, below)


def _value_at(raw: dict[str, Any], dotted: str, where: str) -> Any:
    steps = _parse_path(dotted)
    value: Any = raw if steps[0] in raw else _stage(raw, str(steps[0]), where)
    for step in steps if steps[0] in raw else steps[1:]:
        inside = value.get(step) if isinstance(value, dict) else \
            value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
        if inside is None:
            raise UserError(f"{where}: {dotted!r} leads nowhere ({step!r} is not set in this preset); "
                            "allowed: the path of something that the preset sets")
        value = inside
    return value
