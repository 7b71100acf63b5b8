"""Fill-in-the-middle tasks: source code with a gap, to be filled as it was. `fim/NAME`, and rows of a user's file.

    load_tasks(TaskSource(name="fim/python_stdlib", split="heldout", count=500))
    {"prefix": "def twice(n):\\n", "middle": "    return 2 * n", "suffix": "\\n\\nprint(twice(3))\\n"}  # a file's line

Files are the standard library's (`verifiers/tasks/library.py`), of which one in twenty is held out. Where the gap lies
follows the three settings of HumanEval Infilling (Bavarian et al. 2022, arXiv:2207.14255, section 3):

| set | the gap |
|---|---|
| `fim/python_stdlib` | one line (`single-line`) |
| `fim/python_stdlib_lines` | two to `MAX_LINES` lines on end (`multi-line`) |
| `fim/python_stdlib_span` | from one character to another within so many lines (`random span`) |

Lines are lines of code: no comments, no docstrings, nothing of fewer than `MIN_CHARACTERS`, and no empty line between.
Departures: whole files instead of single functions, so that there is far more context and no docstring that tells what
to write; the verifier `fim` compares texts (as Qwen2.5-Coder's report does for single lines, arXiv:2409.12186), where
HumanEval Infilling runs tests, which a text that differs may pass.

The codecs of `encodings/` are left out, as they are alike.

A task's metadata hold `form: fim`, `prefix`, `suffix` and `cut` (`line`: only the first line of a completion counts;
`span`: all of it). Its prompt is what a model with Qwen's tokens is asked, in the order prefix, suffix, middle.

| params | |
|---|---|
| `max_prefix`, `max_suffix` | characters of the file before and after the gap, in whole lines |

What this does not do: it cuts to no number of tokens; who asks does that. Files differ with the version of Python.
"""

from __future__ import annotations

import functools
import io
import sysconfig
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from configs.errors import UserError
from configs.names import FIM, FIM_SETTINGS, FIM_SPANS, unknown
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.library import in_split, source_files
from verifiers.tasks.split import question_digest

PREFIX = f"{FIM}/"
VERIFIER = "fim"
FORM = "fim"
"""What `metadata["form"]` says of these tasks."""
MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
"""Qwen2.5's tokens, in the order of a prompt."""
SPELLINGS = (*MARKS, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>")
"""What no part of a task may spell out: a tokenizer would read a token."""
MIN_CHARACTERS = 8
MAX_LINES = 8
MAX_MIDDLE = 600
"""Characters of a gap at most."""
MAX_CONTEXT = {"max_prefix": 6000, "max_suffix": 2000}
"""About the 1,472 and 512 tokens of Qwen2.5-Coder's script."""
MAX_ALLOWED = 200_000
ALIKE = ("encodings/",)
"""Folders whose files are copies of each other but for their tables: held out or not, their lines are known."""
MAX_REMEMBERED = 128
"""Files that are kept in memory between draws."""
PATIENCE = 30
"""Rounds through all files without a new gap before the source counts as exhausted."""


@dataclass(frozen=True)
class _File:
    """A file's text, where its lines begin, and runs of lines of code: first line and number of lines."""

    text: str
    starts: list[int]
    runs: list[tuple[int, int]]


def draw(source: TaskSource) -> list[Task]:
    """`source.count` distinct gaps in files of the asked split. Deterministic on one version of Python.

    Raises:
        UserError: Unknown set or setting, no count, split `test`, or fewer gaps than asked for.
    """
    span = source.name.removeprefix(PREFIX)
    if span not in FIM_SPANS:
        raise unknown("task set", source.name, "task set", [PREFIX + name for name in FIM_SPANS])
    if source.count is None:
        raise UserError(f"count: empty for {source.name}; files can be cut in many places, so say how many to draw")
    if source.split == "test":
        raise UserError(f"split: 'test' for {source.name}; allowed: train, heldout, all (use heldout to measure)")
    limits = read_limits(source)
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in _listed(root) if in_split(path, source.split) and not path.startswith(ALIKE)]
    Random(f"{source.name}:{source.seed}").shuffle(paths)
    tasks: dict[str, Task] = {}
    idle = turn = 0
    while len(tasks) < source.count:
        before = len(tasks)
        for path in paths:
            if len(tasks) == source.count:
                break
            file = _read(root / path)
            made = _cut(file, span, Random(f"{source.name}:{source.seed}:{turn}:{path}"))
            if file is not None and made is not None:
                task = _task(source.name, path, file, made, limits)
                tasks.setdefault(task.id, task)
        turn += 1
        idle = 0 if len(tasks) > before else idle + 1
        if idle > PATIENCE or not paths:
            raise UserError(
                f"count: {source.count} for {source.name} (split {source.split}), but only {len(tasks)} gaps were "
                "found in the standard library; lower the count"
            )
    return list(tasks.values())


def read_limits(source: TaskSource) -> dict[str, int]:
    """The params, checked. Raises UserError that names what does not fit."""
    for name, value in source.params.items():
        if name not in FIM_SETTINGS:
            raise unknown(f"params.{name}", name, f"setting of {source.name}", FIM_SETTINGS)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_ALLOWED:
            raise UserError(
                f"params.{name}: {value!r} for {source.name}; allowed: 0 to {MAX_ALLOWED} characters; correct it"
            )
    return {**MAX_CONTEXT, **source.params}


def from_row(row: Mapping[str, Any], where: str, identity: str, source: str) -> Task:
    """A task of a user's row with `prefix`, `suffix` and `middle`.

    Args:
        row: The row; `cut` may be `line` or `span` (default: line where the middle is a single one).
        where: File and line, for messages.
        identity: The task's id.
        source: The task set's name.

    Raises:
        UserError: A part is missing, no text, blank, or spells one of Qwen's tokens.
    """
    parts = {name: row.get(name, "") for name in ("prefix", "suffix", "middle")}
    for name, text in parts.items():
        if not isinstance(text, str) or (name == "middle" and not text.strip()):
            raise UserError(f"{where}: {name}: {text!r}; allowed: a text{' that is not blank' * (name == 'middle')}")
        spelt = next((mark for mark in SPELLINGS if mark in text), None)
        if spelt is not None:
            raise UserError(f"{where}: {name}: holds {spelt}, which would be read as a token; mend or delete the line")
    cut = row.get("cut", "span" if "\n" in parts["middle"].strip() else "line")
    if cut not in ("line", "span"):
        raise UserError(f"{where}: cut: {cut!r}; allowed: line, span")
    return make(identity, parts["prefix"], parts["middle"], parts["suffix"], str(cut), source)


def make(identity: str, prefix: str, middle: str, suffix: str, cut: str, source: str) -> Task:
    """A task from its parts; see the module's head."""
    marks = dict(zip(("prefix", "suffix", "middle"), MARKS, strict=True))
    prompt = f"{marks['prefix']}{prefix}{marks['suffix']}{suffix}{marks['middle']}"
    metadata = {"form": FORM, "prefix": prefix, "suffix": suffix, "cut": cut}
    return Task(identity, prompt, middle, VERIFIER, metadata, source)


@functools.cache
def _listed(root: Path) -> list[str]:
    return source_files(root)


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def _read(path: Path) -> _File | None:
    """A file with its runs of lines of code; None where it is not plain Python or spells a token."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
        lines = _code_lines(text)
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return None
    if any(mark in text for mark in SPELLINGS):
        return None
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    runs: list[tuple[int, int]] = []
    for line in sorted(lines):
        if runs and runs[-1][0] + runs[-1][1] == line:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((line, 1))
    return _File(text, starts, runs)


def _code_lines(text: str) -> set[int]:
    """Lines, counted from 0, on which a name begins, and which are not part of a text over several lines."""
    found: set[int] = set()
    inside: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first, last = token.start[0] - 1, token.end[0] - 1
        if token.type == tokenize.NAME and len(token.line.strip()) >= MIN_CHARACTERS:
            found.add(first)
        elif token.type == tokenize.STRING and last > first:
            inside |= set(range(first, last + 1))
    return found - inside


def _cut(file: _File | None, span: str, rng: Random) -> tuple[int, int] | None:
    """Where a gap begins and ends; None where this draw gives none."""
    if file is None or not file.runs:
        return None
    if span == "python_stdlib":
        first, number = rng.choices(file.runs, [length for _, length in file.runs])[0]
        line = first + rng.randrange(number)
        return _trimmed(file, file.starts[line], file.starts[line + 1])
    longer = [run for run in file.runs if run[1] >= 2]
    if not longer:
        return None
    first, number = rng.choices(longer, [length for _, length in longer])[0]
    size = rng.randint(2, min(MAX_LINES, number))
    line = first + rng.randint(0, number - size)
    start, end = file.starts[line], file.starts[line + size]
    if span == "python_stdlib_span":
        start, end = sorted(rng.sample(range(start, end + 1), 2))
        return (start, end) if file.text[start:end].strip() and end - start <= MAX_MIDDLE else None
    return _trimmed(file, start, end)


def _trimmed(file: _File, start: int, end: int) -> tuple[int, int] | None:
    """Whole lines without the last one's line feed, which stays in the suffix."""
    end -= file.text[start:end].endswith("\n")
    return (start, end) if MIN_CHARACTERS <= end - start <= MAX_MIDDLE else None


def _task(name: str, path: str, file: _File, gap: tuple[int, int], limits: Mapping[str, int]) -> Task:
    start, end = gap
    before, after = file.text[:start], file.text[end:]
    if len(before) > limits["max_prefix"]:
        before = before[len(before) - limits["max_prefix"] :]
        before = before[before.find("\n") + 1 :]
    if len(after) > limits["max_suffix"]:
        after = after[: limits["max_suffix"]]
        after = after[: after.rfind("\n") + 1]
    cut = "line" if name == f"{PREFIX}python_stdlib" else "span"
    identity = f"{name}/{question_digest(f'{path}:{start}:{end}')}"
    task = make(identity, before, file.text[start:end], after, cut, name)
    return Task(task.id, task.prompt, task.answer, task.verifier, {**task.metadata, "path": path}, name)
