"""Named task sets: problems, each with its gold answer and the verifier that judges it.

    load_tasks(TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=100, params={"max_terms": 3}))
    load_tasks(TaskSource(name="functions/lists", split="heldout", count=100))
    load_tasks(TaskSource(name="structured/orders", split="heldout", count=100))
    load_tasks(TaskSource(name="gsm8k", split="test"))
    load_tasks(TaskSource(name="my_problems.jsonl", split="all"))

`procedural` draws from reasoning-gym's generators, `functions` makes programming tasks, `structured` tasks whose answer
is a JSON document or a table, `files` reads the catalogue's data sets and JSONL files, `split` says which questions are
held out, `worked` writes out short solutions for the families that have one.

A prompt is the question as it is; chat formatting and instructions belong to whoever asks a model.
"""

from __future__ import annotations

import difflib

from configs.catalogue import dataset, dataset_names
from configs.errors import UserError
from configs.names import FUNCTION_FAMILIES, STRUCTURED_FAMILIES
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks import files, functions, procedural, structured
from verifiers.tasks.split import normalise_question, split_of
from verifiers.tasks.worked import worked_solution

__all__ = ["load_tasks", "normalise_question", "split_of", "task_set_names", "worked_solution"]


def load_tasks(source: TaskSource) -> list[Task]:
    """The problems of a source, deterministic in all its fields. Raises UserError for whatever does not fit."""
    if source.name.endswith(".jsonl"):
        return files.from_jsonl(source)
    if source.name.startswith(procedural.PREFIX):
        return procedural.draw(source)
    if source.name.startswith(functions.PREFIX):
        return functions.draw(source)
    if source.name.startswith(structured.PREFIX):
        return structured.draw(source)
    if source.name in dataset_names() and dataset(source.name).has_answers:
        return files.from_catalogue(source)
    near = difflib.get_close_matches(source.name, task_set_names(), 3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UserError(f"task set: {source.name!r} is not known{hint}; allowed: a catalogue set with gold answers, "
                    f"{procedural.PREFIX}FAMILY, {functions.PREFIX}FAMILY, {structured.PREFIX}FAMILY, or a path that "
                    "ends in .jsonl")


def task_set_names() -> list[str]:
    """All named task sets, sorted; JSONL files come on top."""
    named = [name for name in dataset_names() if dataset(name).has_answers]
    made = [functions.PREFIX + family for family in FUNCTION_FAMILIES]
    made += [structured.PREFIX + family for family in STRUCTURED_FAMILIES]
    return sorted([*named, *made, *(procedural.PREFIX + family for family in procedural.families())])
