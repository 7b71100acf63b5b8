"""`derive evaluate` and `derive chat`: one checkpoint, no recipe, in this process, which loads torch for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import UserError, is_unicode
from configs.load import default_machine_name, load_machine
from configs.names import check_source, check_verifier, is_generated
from configs.settings.common import Sampling, TaskSource
from configs.settings.evaluation import EvaluateStage
from flows.base import resolve_base
from flows.store import Store

NUM_PROCEDURAL = 200
"""Problems of a procedural set when no --limit is given: an interval of about 7 points to each side."""


def evaluate_checkpoint(given: argparse.Namespace) -> dict[str, Any]:
    """Judge one checkpoint; the result has the shape of an evaluation's results.json, with the samples.

    Raises:
        UserError: for a model, task set or verifier that does not exist.
    """
    sources = [task_source(name, given.limit) for name in given.tasks]
    for source in sources:
        check_source("--tasks", source)
    if given.verifier:
        check_verifier("--verifier", given.verifier)
    folder = _checkpoint(given.model)
    machine = load_machine(given.machine or default_machine_name())

    from verifiers.tasks import load_tasks

    tasks = [task for source in sources for task in load_tasks(source)]  # what is wrong with them is told at once

    from derivatives.evaluate import Protocol, evaluate_model
    from derivatives.evaluation.formats import gather_examples

    sampling = Sampling(max_new_tokens=given.max_new_tokens)
    protocol = Protocol(tasks, sampling, num_samples=given.samples, few_shot=given.few_shot)
    examples: Mapping[str, Any] = {}
    if given.few_shot:
        stage = EvaluateStage(id="evaluate", models=("base",), tasks=tuple(sources), few_shot=given.few_shot)
        examples = gather_examples(stage, tasks, protocol.seed)
    found = evaluate_model(folder, protocol, given.verifier, machine, examples)
    return {
        "models": {given.model: found["model"]},
        "floor": found["floor"],
        "confidence": protocol.confidence,
        "judge": given.verifier or "each set's own",
        "samples": found["samples"],
    }


def task_source(name: str, limit: int | None) -> TaskSource:
    """The held-out part of a task set: all of a file, the test split of a data set, held-out draws of a generator."""
    if name.endswith(".jsonl"):
        return TaskSource(name=str(Path(name).expanduser().resolve()), split="all", count=limit)
    if is_generated(name):
        return TaskSource(name=name, split="heldout", count=limit or NUM_PROCEDURAL)
    from configs.catalogue import dataset, dataset_names

    has_test = name in dataset_names() and "test" in dataset(name).splits
    return TaskSource(name=name, split="test" if has_test else "all", count=limit)


def chat_with(given: argparse.Namespace) -> int:
    """One answer, or a conversation until end of file."""
    if given.prompt is not None and not given.prompt.strip():
        raise UserError("--prompt: empty; write a question")
    if given.prompt is not None and not is_unicode(given.prompt):
        raise UserError(f"--prompt: {given.prompt[:40]!a} is not UTF-8 text; write it in UTF-8")
    folder = _checkpoint(given.model)
    machine = load_machine(given.machine or default_machine_name())

    from derivatives.rollout.chat import reply
    from derivatives.training.model import load_model

    sampling = Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens)
    model, tokenizer = load_model(folder, "bf16", machine.device)
    messages: list[dict[str, str]] = []
    for question in [given.prompt] if given.prompt is not None else _questions():
        messages.append({"role": "user", "content": question})
        answer = reply(model, tokenizer, messages, sampling)
        messages.append({"role": "assistant", "content": answer})
        print(answer, flush=True)
    return 0


def _questions() -> Any:
    """Lines that a person types; an end of file ends the conversation."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise UserError("standard input: not UTF-8 text; write questions in UTF-8") from error
        if line and not is_unicode(line):
            raise UserError(f"standard input: {line[:40]!a} is not UTF-8 text; write questions in UTF-8")
        if line:
            yield line


def _checkpoint(name: str) -> Path:
    base = resolve_base(name, None, Store(None), download=True)
    assert base.path is not None, "a downloaded base has a path"
    return base.path
