"""Named task sets: problems, each with its gold answer and the verifier that judges it.

    load_tasks(TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=100, params={"max_terms": 3}))
    load_tasks(TaskSource(name="functions/lists", split="heldout", count=100))
    load_tasks(TaskSource(name="structured/orders", split="heldout", count=100))
    load_tasks(TaskSource(name="gsm8k", split="test"))
    load_tasks(TaskSource(name="humaneval", split="test", style="published"))
    load_tasks(TaskSource(name="fim/python_stdlib", split="heldout", count=100))
    load_tasks(TaskSource(name="suite/math", count=100))
    load_tasks(TaskSource(name="my_problems.jsonl", split="all"))

`procedural` draws from reasoning-gym's generators, `functions` makes programming tasks, `structured` tasks whose answer
is a JSON document or a table, `instructions` sentences that follow checkable rules, `fim` cuts gaps into source files,
`files` reads the catalogue's data sets and JSONL files, `benchmarks` those that are judged by tests or constraints,
`twins` makes problems that nobody has seen, `split` says which questions are held out, `worked` writes out short
solutions for the families that have one. A suite is loaded as its sets, one after the other.

A prompt is the question as it is; chat formatting and instructions belong to whoever asks a model. `metadata["form"]`
is `fim` where it is no question but a text with a gap; `metadata["protocol"]` names the published protocol that was
asked for (`derivatives/evaluation/styles.py`).
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from configs.catalogue import dataset, dataset_names
from configs.errors import UserError
from configs.names import FIM_SPANS, FUNCTION_FAMILIES, INSTRUCTION_FAMILIES, STRUCTURED_FAMILIES, TWINNED
from configs.settings.common import TaskSource
from configs.suites import PREFIX as SUITE
from configs.suites import members_of
from verifiers.api import Task
from verifiers.tasks import files, fim, functions, instructions, procedural, structured, twins
from verifiers.tasks.split import normalise_question, split_of
from verifiers.tasks.worked import worked_solution

__all__ = ["load_tasks", "normalise_question", "split_of", "task_set_names", "worked_solution"]


def load_tasks(source: TaskSource) -> list[Task]:
    """The problems of a source, deterministic in all its fields. Raises UserError for whatever does not fit."""
    if source.name.startswith(SUITE):
        return [task for member in members_of(source) for task in load_tasks(member)]
    tasks = _drawn(source)
    if source.style == "published":
        style = source.name.removeprefix(twins.PREFIX)
        tasks = [replace(task, metadata={**task.metadata, "protocol": style}) for task in tasks]
    if source.verifier is not None:
        tasks = [replace(task, verifier=source.verifier) for task in tasks]
    return tasks


def _drawn(source: TaskSource) -> list[Task]:
    if source.name.endswith(".jsonl"):
        return files.from_jsonl(source)
    if source.name.startswith(twins.PREFIX):
        return twins.draw(source, load_tasks)
    if source.name.startswith(procedural.PREFIX):
        return procedural.draw(source)
    if source.name.startswith(functions.PREFIX):
        return functions.draw(source)
    if source.name.startswith(structured.PREFIX):
        return structured.draw(source)
    if source.name.startswith(instructions.PREFIX):
        return instructions.draw(source)
    if source.name.startswith(fim.PREFIX):
        return fim.draw(source)
    if source.name in dataset_names() and dataset(source.name).is_task_set:
        return files.from_catalogue(source)
    near = difflib.get_close_matches(source.name, task_set_names(), 3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UserError(f"task set: {source.name!r} is not known{hint}; allowed: a catalogue set with gold answers or "
                    f"tests, {procedural.PREFIX}FAMILY, {functions.PREFIX}FAMILY, {structured.PREFIX}FAMILY, "
                    f"{instructions.PREFIX}FAMILY, {fim.PREFIX}NAME, {SUITE}NAME, or a path that ends in .jsonl")


def task_set_names() -> list[str]:
    """All named task sets, sorted; JSONL files come on top."""
    named = [name for name in dataset_names() if dataset(name).is_task_set]
    made = [functions.PREFIX + family for family in FUNCTION_FAMILIES]
    made += [structured.PREFIX + family for family in STRUCTURED_FAMILIES]
    made += [instructions.PREFIX + family for family in INSTRUCTION_FAMILIES]
    made += [fim.PREFIX + span for span in FIM_SPANS]
    made += [twins.PREFIX + name for name in TWINNED]
    return sorted([*named, *made, *(procedural.PREFIX + family for family in procedural.families())])
