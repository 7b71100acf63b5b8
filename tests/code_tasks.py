"""HumanEval and MBPP as tasks of the code verifier, with their references and a model's published completions.

All is read from the data mirror (`$DERIVE_DATA`); `tests/unit/test_verifiers_code.py` and
`tests/benchmarks/bench_verifiers.py` judge it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from verifiers.api import Task
from verifiers.sandbox.problem import called_names

Pair = tuple[Task, str]
HUMANEVAL_TIME_S = 5
MBPP_TIME_S = 60
"""One reference of MBPP needs many seconds."""


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def humaneval_rows(mirror: Path) -> list[dict[str, Any]]:
    """The 164 problems."""
    with gzip.open(mirror / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def humaneval_task(row: dict[str, Any]) -> Task:
    """A problem as a task; completions go on from its prompt."""
    metadata = {
        "kind": "script",
        "entry_point": row["entry_point"],
        "prompt": row["prompt"],
        "test": row["test"],
        "time_s": HUMANEVAL_TIME_S,
    }
    return Task(row["task_id"], row["prompt"], "", "code", metadata)


def humaneval_references(mirror: Path) -> list[Pair]:
    """Each problem with its canonical solution."""
    return [(humaneval_task(row), row["canonical_solution"]) for row in humaneval_rows(mirror)]


def published_completions(mirror: Path) -> tuple[list[Pair], dict[str, bool]]:
    """Qwen2.5-Coder-7B's completions of HumanEval, and the verdict that was published for each."""
    folder = mirror / "qwen2.5-coder-7b-base"
    completions = {row["task_id"]: row["completion"] for row in json_lines(folder / "humaneval_completions.jsonl")}
    verdicts = {row["task_id"]: bool(row["base_pass"]) for row in json_lines(folder / "humaneval_expected.jsonl")}
    return [(humaneval_task(row), completions[row["task_id"]]) for row in humaneval_rows(mirror)], verdicts


def mbpp_references(mirror: Path) -> list[Pair]:
    """Each problem of the sanitized part with its reference."""
    pairs = []
    for row in json_lines(mirror / "mbpp" / "mbpp_sanitized.jsonl"):
        metadata = {
            "kind": "script",
            "entry_point": called_names(row["test_list"]),
            "test": row["test_list"],
            "setup": "\n".join(["import math, sys", *row["test_imports"]]),
            "time_s": MBPP_TIME_S,
        }
        pairs.append((Task(str(row["task_id"]), "", "", "code", metadata), f"```python\n{row['code']}\n```"))
    return pairs
