"""A verifier's cases: completions whose verdict is known, one JSON object a line.

    {"completion": "\\\\boxed{248}", "answer": "3", "expect": "correct"}
    {"completion": "\\\\boxed{247}", "answer": "3", "expect": "incorrect", "why": "odd"}

`expect` is `correct` (gold) or `incorrect` (a near miss); `prompt`, `metadata` (an object) and `why` may be left out,
and so may `answer` where only a rule judges. `verifier` is what the task names as its own (`math` unless given): some
verifiers go by it. They are kept beside the verifier's module, as `cases/NAME.jsonl` or,
where a package has one verifier, as `cases.jsonl`; a repaired disagreement is appended there.

What this does not do: it judges nothing. See `derive verifiers certify`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError, is_unicode
from verifiers import registry
from verifiers.api import Outcome, Task

KEYS = ("completion", "answer", "expect", "prompt", "metadata", "verifier", "why")
VERIFIER = "math"
"""What a task names as its own verifier where nothing is said, as in `Task`."""
EXPECTED = (Outcome.CORRECT, Outcome.INCORRECT)
"""No verdict cannot be expected: no completion may cause one."""


@dataclass(frozen=True)
class Case:
    """One completion with the verdict that it must get.

    Attributes:
        task: What the verifier reads; its id is the file's name and the line.
        completion: What is judged.
        expect: CORRECT or INCORRECT.
        why: What makes it worth keeping; empty where nothing was said.
    """

    task: Task
    completion: str
    expect: Outcome
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The case as a line of its file; what is empty is left out, but for the answer."""
        line = {"completion": self.completion, "answer": self.task.answer, "expect": self.expect.value}
        own = self.task.verifier if self.task.verifier != VERIFIER else ""
        more = {"prompt": self.task.prompt, "metadata": dict(self.task.metadata), "verifier": own, "why": self.why}
        return {**line, **{key: value for key, value in more.items() if value}}


def cases_path(name: str) -> Path | None:
    """The file of a verifier's cases; None where there is none. Imports nothing of a plug-in.

    Raises:
        UserError: for an unknown verifier.
    """
    folder = registry.module_folder(name)
    if folder is None:
        return None
    for path in (folder / "cases" / f"{name}.jsonl", folder / "cases.jsonl"):
        if path.is_file():
            return path
    return None


def read_cases(path: Path) -> list[Case]:
    """All cases of a file, in order; empty lines are passed over.

    Raises:
        UserError: no such file, or a line that is no case (file, line, field and value are named), or a completion
            that is listed twice for one task.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cases: {path}: {error.strerror}; give a JSONL file of cases") from error
    cases: list[Case] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        case = _case(line, where, f"{path.name}:{number}")
        first = seen.setdefault(_key(case), number)
        if first != number:
            raise UserError(f"{where}: the same completion and task as in line {first}; allowed: each once; remove one")
        cases.append(case)
    return cases


def append_case(path: Path, case: Case) -> bool:
    """Add a case to a file, which is made where it is missing. False if the file has it already.

    Raises:
        UserError: the file has the same completion and task with the other expectation, or has a broken line.
    """
    known = {_key(each): each for each in read_cases(path)} if path.exists() else {}
    twin = known.get(_key(case))
    if twin is not None:
        if twin.expect is not case.expect:
            raise UserError(f"{path}: {twin.task.id} expects {twin.expect.value} of the same completion and task, not "
                            f"{case.expect.value}; remove the line that is wrong")
        return False
    line = json.dumps(case.as_dict(), ensure_ascii=False)
    if not is_unicode(line):
        line = json.dumps(case.as_dict())  # half of a surrogate pair can only be escaped
    _case(line.encode(), str(path), "")  # what is written can be read
    whole = not path.exists() or path.stat().st_size == 0 or path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(("" if whole else "\n") + line + "\n")
    return True


def _key(case: Case) -> str:
    task = case.task
    return json.dumps([case.completion, task.answer, task.prompt, dict(task.metadata), task.verifier], sort_keys=True)


def _case(line: bytes, where: str, name: str) -> Case:
    try:
        given = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} of the line is not UTF-8; write the file as UTF-8") from error
    except ValueError as error:
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else f" ({error})"
        raise UserError(f"{where}: not JSON{column}; allowed: one whole JSON object a line") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; allowed: one JSON object a line") from error
    if not isinstance(given, dict):
        raise UserError(f"{where}: holds a {type(given).__name__}; allowed: one JSON object a line")
    if unknown := [key for key in given if key not in KEYS]:
        raise UserError(f"{where}: {unknown[0]!r} is no key of a case; allowed: {', '.join(KEYS)}; what else the "
                        "verifier reads belongs into metadata")
    for key, kind, empty in (("completion", str, None), ("expect", str, None), ("answer", str, ""), ("prompt", str, ""),
                             ("metadata", dict, {}), ("verifier", str, VERIFIER), ("why", str, "")):  # fmt: skip
        value = given.setdefault(key, empty)
        if not isinstance(value, kind):
            shown = "missing" if value is None else json.dumps(value)[:60]
            needed = "an object" if kind is dict else "a text"
            raise UserError(f"{where}: {key}: {shown}; allowed: {needed}")
    if given["expect"] not in EXPECTED:
        raise UserError(f"{where}: expect: {given['expect']!r}; allowed: correct, incorrect")
    task = Task(name, given["prompt"], given["answer"], given["verifier"], given["metadata"])
    return Case(task, given["completion"], Outcome(given["expect"]), given["why"])


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
