"""Labelled data: completions of which it is known whether they are right, from a file or from the public data's mirror.

A line of a file is

    {"completion": "... 42", "answer": "42", "correct": true, "prompt": "...", "metadata": {}}

where `prompt` and `metadata` may be left out; `gold` and `question` are understood for `answer` and `prompt`. The
pinned data of the built-in verifiers lie in the mirror that DERIVE_DATA names: labelled answers for `math`, a model's
published completions of HumanEval with their published verdicts for `code`. Of them the card keeps the digest alone.

What this does not do: a label is taken as it is. Where labels are wrong, recall and false positives are off by that
much (docs/verifiers/accuracy.md reads those of the hard pairs).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from verifiers.api import Outcome, Task
from verifiers.cases import Case
from verifiers.certify.bench import Bench
from verifiers.certify.card import Labelled

HUMANEVAL_TIME_S = 5
THOUGHT = "<think>\nLet us see what is asked.\n</think>\n"
Example = tuple[Case, bool]
"""A completion with its task, and whether it is right."""


@dataclass(frozen=True)
class Source:
    """Where labelled examples come from.

    Attributes:
        data: What it is, for people.
        files: The files that hold it; the digest is of their bytes, one after another.
        read: The examples.
    """

    data: str
    files: tuple[Path, ...]
    read: Callable[[], list[Example]]

    @property
    def sha256(self) -> str:
        """Digest of the files."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def measure(bench: Bench, source: Source) -> Labelled:
    """How the verifier's verdicts compare with the labels."""
    examples = source.read()
    judged = bench.judge([case for case, _ in examples], max_faults=len(examples))
    counted = {(label, accepted): 0 for label in (True, False) for accepted in (True, False)}
    missing = 0
    for (_, label), one in zip(examples, judged, strict=True):
        outcome = Outcome.NO_VERDICT if one is None else one.verdict.outcome
        counted[label, outcome is Outcome.CORRECT] += 1
        missing += outcome is Outcome.NO_VERDICT
    return Labelled(
        source.data,
        source.sha256,
        right=counted[True, True] + counted[True, False],
        accepted=counted[True, True],
        wrong=counted[False, True] + counted[False, False],
        wrongly_accepted=counted[False, True],
        missing=missing,
    )


def from_file(path: Path, data: str = "") -> Source:
    """The examples of a JSONL file.

    Raises:
        UserError: There is no such file, it holds nothing, or a line lacks completion or correct.
    """
    examples = list(_lines(path))
    if not examples:
        raise UserError(f"--labelled: {path} has no line; write completion, answer and correct, one object a line")
    return Source(data or path.name, (path,), lambda: examples)


def pinned(name: str, mirror: Path | None) -> tuple[list[Source], str]:
    """The labelled data of a built-in verifier, and why there are none where there are none.

    Args:
        name: Registry name.
        mirror: Folder of the public data sets; None where there is none.
    """
    if name not in _PINNED:
        return [], ""
    if mirror is None:
        return [], "its pinned labelled data lie in the data mirror: set DERIVE_DATA to measure recall on them"
    sources = _PINNED[name](mirror)
    missing = [path for source in sources for path in source.files if not path.is_file()]
    if missing:
        return [], f"its pinned labelled data are not in the data mirror ({missing[0].relative_to(mirror)})"
    return sources, ""


def _math(mirror: Path, before: str = "") -> list[Source]:
    how = ", each behind a closed thought" if before else ""

    def reader(path: Path) -> Callable[[], list[Example]]:
        return lambda: [
            (Case(case.task, before + case.completion, case.expect), label) for case, label in _lines(path)
        ]

    return [
        Source(f"{title}{how}", (path,), reader(path))
        for title, path in (
            ("hard math pairs (HardVerify-Math, one half)", mirror / "verify" / "hard_math_pairs.jsonl"),
            ("GSM8K model solutions (one half)", mirror / "verify" / "gsm8k_model_solutions.jsonl"),
        )
    ]


def _humaneval(mirror: Path) -> list[Source]:
    problems = mirror / "humaneval" / "HumanEval.jsonl.gz"
    completions = mirror / "qwen2.5-coder-7b-base" / "humaneval_completions.jsonl"
    verdicts = mirror / "qwen2.5-coder-7b-base" / "humaneval_expected.jsonl"

    def read() -> list[Example]:
        written = {row["task_id"]: row["completion"] for row in _objects(completions)}
        passed = {row["task_id"]: bool(row["base_pass"]) for row in _objects(verdicts)}
        with gzip.open(problems, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [
            (
                _example(
                    Task(
                        row["task_id"], row["prompt"], "", "code",
                        {"kind": "script", "entry_point": row["entry_point"], "prompt": row["prompt"],
                         "test": row["test"], "time_s": HUMANEVAL_TIME_S},
                    ),
                    written[row["task_id"]],
                    passed[row["task_id"]],
                )
            )
            for row in rows
        ]  # fmt: skip

    return [Source("Qwen2.5-Coder-7B's HumanEval completions", (problems, completions, verdicts), read)]


_PINNED: dict[str, Callable[[Path], list[Source]]] = {
    "math": _math,
    "think_math": lambda mirror: _math(mirror, THOUGHT),
    "code": _humaneval,
}


def _example(task: Task, completion: str, label: bool) -> Example:
    return Case(task, completion, Outcome.CORRECT if label else Outcome.INCORRECT), label


def _objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _lines(path: Path) -> Iterator[Example]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"--labelled: {path}: {error.strerror}; give a JSONL file") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not whole JSON ({str(error)[:80]}); write one object a line") from error
        given = {key: value for key, value in row.items() if value is not None} if isinstance(row, dict) else {}
        texts = {
            key: given.get(key, given.get(alias, ""))
            for key, alias in (("answer", "gold"), ("prompt", "question"), ("completion", "completion"))
        }
        if "completion" not in given or not all(isinstance(text, str) for text in texts.values()):
            raise UserError(f"{where}: allowed: an object with the texts completion and answer, and prompt if needed")
        if not isinstance(given.get("correct"), bool):
            raise UserError(f"{where}: correct: {given.get('correct')!r}; allowed: true or false")
        metadata = given.get("metadata", {})
        if not isinstance(metadata, dict):
            raise UserError(f"{where}: metadata: {str(metadata)[:40]!r}; allowed: an object")
        task = Task(f"{path.name}:{number}", texts["prompt"], texts["answer"], metadata=metadata)
        yield _example(task, texts["completion"], given["correct"])
