"""The JSON verifier: the completion's document fits a schema, and is the expected value where the task has one.

    Task("1", "...", '{"name": "Ada", "age": 36}', "json_schema", {"schema": {"type": "object", ...}})

| of the task | |
|---|---|
| `metadata.schema` | JSON Schema, draft 2020-12 (`verifiers.structured.schemas`); may be absent beside an answer |
| `answer` | the expected document; empty where fitting the schema is enough |
| `metadata.order` | arrays whose elements may stand in any order: `free` (all), or paths such as `{"/items": "free"}` |

The document is read from what follows the last `</think>`: the last fenced block labelled `json`; without one, the last
fenced block without a label; without fences, the whole text. A block that is not closed is a document cut off, which is
incorrect. What counts as a document, and when two are equal, is in `verifiers.structured.json_values`.

A wrong document may earn at most `MAX_PARTIAL`: the share of the expected leaves that are right, else of the required
members that are there and fit.

What this does not do: it looks for no JSON in the midst of prose, and mends nothing (comments, single quotes, trailing
commas).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.structured.blocks import answer_part, fenced_blocks
from verifiers.structured.json_values import (
    Paths,
    Unreadable,
    Value,
    agreement,
    canonical,
    first_difference,
    read_json,
    read_order,
)
from verifiers.structured.schemas import broken_rule, make_validator, required_share, shown

LABELS = ("json",)
MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
MAX_PARTIAL = 0.9
"""The most that a wrong document earns."""
SHOWN = 200
"""Characters of the document that are kept in a verdict."""
NUM_KEPT = 64
"""Schemas, and tasks, that are kept ready; a group of rollouts shares one."""
_TOO_MUCH = ("too_long", "too_deep")


class JsonSchemaVerifier:
    """Correct if the completion's JSON document fits the schema and equals the expected value."""

    name = "json_schema"
    version = f"1+jsonschema-{version_of('jsonschema')}"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the document in it."""
        try:
            schema, order = json.dumps(task.metadata.get("schema")), json.dumps(task.metadata.get("order"))
            wanted = _wanted(schema, order, task.answer)
        except Unreadable as error:
            return no_verdict(error.reason)
        except RecursionError:
            return no_verdict("schema_unreadable: too deep")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        text = document(completion)
        if text is None:
            return incorrect("unclosed_block")
        extracted = text.strip()[:SHOWN]
        try:
            found = read_json(text)
        except Unreadable as error:
            return incorrect(OVER_BUDGET if error.reason in _TOO_MUCH else error.reason, extracted)
        try:
            return wanted.judged(found, extracted)
        except RecursionError:  # of a schema that refers to itself
            return incorrect(OVER_BUDGET, extracted)
        except Exception as error:  # all that a task could be at fault for was ruled out: the document brought it about
            if isinstance(error, MemoryError):
                raise
            return incorrect(f"validator_failed: {type(error).__name__}", extracted)

    def warm_up(self) -> None:
        """Import `jsonschema`, and make its first validator."""
        make_validator({"type": "object"})


def document(completion: str) -> str | None:
    """The text that should be the document; None where its block is not closed."""
    part = answer_part(completion)
    blocks = fenced_blocks(part)
    labelled = [block for block in blocks if block.label in LABELS] or [block for block in blocks if not block.label]
    if not labelled:
        return part
    return labelled[-1].text if labelled[-1].closed else None


@dataclass(frozen=True)
class _Wanted:
    """What a task asks for, made ready."""

    validator: Any
    has_value: bool
    value: Value
    free: Paths

    def judged(self, found: Value, extracted: str) -> Verdict:
        """The verdict of a document."""
        broken = None if self.validator is None else broken_rule(self.validator, found)
        if self.has_value:
            if canonical(self.value, self.free) == canonical(found, self.free) and broken is None:
                return correct(extracted, "same_value")
            share = agreement(self.value, found, self.free)
            where = shown(first_difference(self.value, found, self.free))
            return incorrect(broken or f"other_value: {where or '/'}", extracted, min(MAX_PARTIAL, share))
        if broken is None:
            return correct(extracted, "fits_schema")
        return incorrect(broken, extracted, min(MAX_PARTIAL, required_share(self.validator, found)))


@functools.lru_cache(maxsize=NUM_KEPT)
def _validator(schema: str) -> Any:
    """The validator of a schema as JSON, which a whole task set may share; None for `null`. Raises Unreadable."""
    return None if schema == "null" else make_validator(json.loads(schema))


@functools.lru_cache(maxsize=NUM_KEPT)
def _wanted(schema: str, order: str, answer: str) -> _Wanted:
    """A task's needs, from its schema and order as JSON, and its answer. Raises Unreadable with the reason."""
    if schema == "null" and not answer.strip():
        raise Unreadable("no_schema")
    validator = _validator(schema)
    try:
        free = read_order(json.loads(order))
    except Unreadable as error:
        raise Unreadable("order_unreadable") from error
    if not answer.strip():
        return _Wanted(validator, False, None, free)
    try:
        value = read_json(answer)
    except Unreadable as error:
        raise Unreadable(f"gold_unreadable: {error.reason}") from error
    if validator is not None and broken_rule(validator, value) is not None:
        raise Unreadable("gold_fails_schema")
    return _Wanted(validator, True, value, free)
