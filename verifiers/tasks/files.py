"""Problems from the catalogue's data sets and from the user's own JSONL files.

A line of a file is `{"prompt": ..., "answer": ...}`, with `id`, `verifier` and `metadata` where wanted, or
`{"prefix": ..., "middle": ..., "suffix": ...}` for a gap that is to be filled (`verifiers/tasks/fim.py`). A file has no
splits of its own: `train` and `heldout` divide it by the hash of the question (as procedural sets), `test` and `all`
take every line. A catalogue set has the splits that its entry names.

A seed draws `count` rows, kept in the source's order. Rows of a data set without a question or a gold answer are left
out and counted in the log; a set that brings tests instead is read by `benchmarks`.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.catalogue import dataset, open_rows
from configs.errors import UserError, is_unicode
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks import benchmarks, fim
from verifiers.tasks.split import split_of

_log = logging.getLogger(__name__)
_KEYS = ("prompt", "answer", "id", "verifier", "metadata", "source")


def from_catalogue(source: TaskSource) -> list[Task]:
    """Problems of a named data set. Raises UserError for a split that it does not have."""
    _no_params(source)
    layout = dataset(source.name).tests
    if layout is not None:
        rows = open_rows(source.name, source.split)
        return _sample([benchmarks.task_of(layout, row, source.name) for row in rows], source)
    tasks: list[Task] = []
    num_empty = 0
    for row in open_rows(source.name, source.split):
        question, answer = str(row.get("question") or "").strip(), str(row.get("answer") or "").strip()
        if not question or not answer:
            num_empty += 1
            continue
        tasks.append(Task(id=row["id"], prompt=question, answer=answer, source=source.name))
    if num_empty:
        _log.warning("%s/%s: %d rows left out: no_question_or_answer", source.name, source.split, num_empty)
    return _sample(tasks, source)


def from_jsonl(source: TaskSource) -> list[Task]:
    """Problems of a JSONL file. Raises UserError that names file and line of what does not fit."""
    _no_params(source)
    path = Path(source.name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); give the path of a JSONL file") from error
    tasks = [_from_line(line, path, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not tasks:
        raise UserError(f'{path}: no line; write one {{"prompt": ..., "answer": ...}} a line')
    if source.split in ("train", "heldout"):
        tasks = [task for task in tasks if split_of(task.prompt) == source.split]
    return _sample(tasks, source)


def _from_line(line: str, path: Path, number: int) -> Task:
    where = f"{path}:{number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not whole JSON ({error.msg} at column {error.colno}); "
                        "is the file cut off? mend or delete the line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        raise UserError(f"{where}: cannot be read ({str(error)[:100]}); mend or delete the line") from error
    if not isinstance(row, dict):
        raise UserError(f'{where}: a {type(row).__name__}; allowed: an object {{"prompt": ..., "answer": ...}}')
    if "middle" in row and "prompt" not in row:
        _whole_characters(where, {name: row.get(name) for name in ("prefix", "suffix", "middle")})
        identity = str(row.get("id", f"{path.name}:{number}"))
        return fim.from_row(row, where, identity, str(row.get("source", path.name)))
    prompt, answer = row.get("prompt"), row.get("answer")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: prompt: {prompt!r}; allowed: a text that is not empty")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise UserError(f"{where}: answer: {answer!r}; allowed: a text or a number")
    _whole_characters(where, {"prompt": prompt, "answer": str(answer)})
    metadata = row.get("metadata", {})
    if not isinstance(metadata, dict):
        raise UserError(f"{where}: metadata: a {type(metadata).__name__}; allowed: an object")
    extra: dict[str, Any] = {key: value for key, value in row.items() if key not in _KEYS}
    return Task(
        id=str(row.get("id", f"{path.name}:{number}")),
        prompt=prompt,
        answer=str(answer),
        verifier=str(row.get("verifier", "math")),
        metadata={**extra, **metadata},
        source=str(row.get("source", path.name)),
    )


def _whole_characters(where: str, texts: Mapping[str, Any]) -> None:
    for field, value in texts.items():
        if isinstance(value, str) and not is_unicode(value):
            raise UserError(f"{where}: {field}: {value[:40]!a} holds half of a surrogate pair, which is no character; "
                            "mend or delete the line")


def _sample(tasks: list[Task], source: TaskSource) -> list[Task]:
    if source.count is None:
        return tasks
    if source.count > len(tasks):
        raise UserError(f"count: {source.count} for {source.name} (split {source.split}), which has only {len(tasks)}; "
                        "lower it, or leave it empty to take all")
    rng = random.Random(f"{Path(source.name).name}:{source.split}:{source.seed}")
    return [tasks[index] for index in sorted(rng.sample(range(len(tasks)), source.count))]


def _no_params(source: TaskSource) -> None:
    if source.params:
        raise UserError(f"params: {sorted(source.params)} for {source.name}; only procedural sets have settings, "
                        "leave it empty")
