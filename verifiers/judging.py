"""Judging a file: each line of a JSONL file holds a completion and what a verifier needs; each gets its verdict.

A line in:

    {"completion": "...", "gold": "42"}                             math, choice, table, think_math (or "answer")
    {"completion": "...", "schema": {...}, "gold": "{...}"}                json_schema, with one of the two or both
    {"completion": "...", "tests": "...", "entry_point": "f", "prompt": "..."}                       code, a script
    {"completion": "...", "entry_point": "f", "calls": [{"args": [3], "expected": 9}]}                code, calls
    {"completion": "...", "cases": [{"stdin": "...", "stdout": "..."}]}                        code, whole programs
    {"completion": "...", "instruction_id_list": [...], "kwargs": [...]}                              instructions
    {"completion": "...", "gold": "...", "metadata": {"family": "..."}}                     puzzles, think_puzzles

The problem's text is `question`, else `prompt` (for choice, which reads the options in it, the other way round); the
math verifier judges better with it. Any other key goes to the verifier as metadata; a null is as good as no key. A line
out is the line in with `outcome`, `score`, `extracted`, `reason` and `seconds`; old values of these are replaced, so
that a judged file can be judged anew.

Lines keep their order. They grow in `OUT.partial`, one write each, and become `OUT` when all are there. A judge that
was killed, or whose disk was full, goes on from there: `OUT.partial.json` says what the verdicts were made with, and
other settings are refused. Empty lines are skipped.

What this does not do: it draws no conclusion. A missing verdict is counted apart, never as a score.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import write_text_atomic
from verifiers import registry
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

_VERDICT_KEYS = ("outcome", "score", "extracted", "reason", "seconds")
_OWN_KEYS = frozenset(
    ("completion", "gold", "answer", "id", "verifier", "task_verifier", "metadata", "source", *_VERDICT_KEYS)
)
_NEED_GOLD = frozenset(("math", "choice", "exact", "table", "think_math"))
_NEED_FAMILY = frozenset(("puzzles", "think_puzzles"))
_NEED_TESTS = frozenset(("code", "code_hidden"))
_BY_TASK = frozenset(("think_own", "counterpart"))
"""They go by the verifier that a task names: a line's `task_verifier`, else its `verifier`, else `math`."""
_NEED_INSTRUCTIONS = frozenset(("instructions", "instructions_loose"))
_ASKED = {"choice": ("prompt", "question")}
"""Keys of the problem's text, best first, where it is not the question."""
_CODE_KEYS = ("kind", "entry_point", "calls", "hidden_calls", "types", "tolerance", "cases", "output", "setup",
              "isolation", "time_s", "memory_mb", "reward")  # fmt: skip
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")
"""How gzip, zstandard, bzip2, xz and zip files begin."""
MAX_SHOWN_KEYS = 12
"""Keys of a line that a message names."""


@dataclass
class Summary:
    """What became of a file's lines.

    Attributes:
        total: Lines with a completion.
        resumed: Lines that an earlier, interrupted judge had done.
        reasons: How often each reason was given, by outcome.
        score: Sum of the scores of lines with a verdict.
    """

    total: int = 0
    resumed: int = 0
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {outcome.value: Counter() for outcome in Outcome})
    score: float = 0.0

    @property
    def outcomes(self) -> dict[str, int]:
        """Lines by outcome."""
        return {outcome: counted.total() for outcome, counted in self.reasons.items()}

    @property
    def done(self) -> int:
        """Lines that are judged."""
        return sum(self.outcomes.values())

    def note(self, outcome: str, reason: str, score: float) -> None:
        """Count one line."""
        self.reasons[outcome][reason] += 1
        self.score += score if outcome != Outcome.NO_VERDICT.value else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `mean_score` is over lines with a verdict, null where there is none."""
        known = self.done - self.outcomes[Outcome.NO_VERDICT.value]
        return {
            "lines": self.total,
            "resumed": self.resumed,
            "outcomes": self.outcomes,
            "reasons": {outcome: dict(counted.most_common()) for outcome, counted in self.reasons.items()},
            "mean_score": self.score / known if known else None,
        }


def judge_file(
    name: str,
    source: Path,
    out: Path,
    num_workers: int = 2,
    deadline_s: float | None = None,
    on_line: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Judge every line of `source` with the verifier `name` and write `out`.

    Args:
        name: Registry name of the verifier.
        source: JSONL file, read twice: once to check it, once to judge it.
        out: File to make; its `.partial` is gone on from.
        num_workers: Worker processes.
        deadline_s: Seconds for one judgement; the verifier's own by default.
        on_line: Called before the first line and after each.

    Raises:
        UserError: for an unknown verifier, a line that cannot be read (file and line are named), or an `out` that is
            there or was begun otherwise.
    """
    registry.check_name(name)
    if out.exists():
        raise UserError(f"OUT: {out} exists; give another file, or remove it")
    if not out.parent.is_dir():
        raise UserError(f"OUT: {out}: no such folder; make {out.parent}, or give another file")
    if source.exists() and not source.is_file() and not source.is_dir():
        raise UserError(f"IN: {source} is a pipe or a device, and a file is read twice; write it to a file first")
    summary = Summary(total=sum(1 for _ in read_lines(source, name)))
    if not summary.total:
        raise UserError(f'IN: {source} has no line; write one {{"completion": ..., "gold": ...}} a line')
    read_at = _stamp(source)
    with VerifierPool(num_workers, deadline_s, verifier=name) as pool:
        partial = _Partial(
            out, {"verifier": registry.identity(name), "input": _digest(source), "deadline_s": deadline_s}
        )
        try:
            partial.resume(summary)
            on_line(summary)
            for row, verdict in _in_order(pool, source, name, summary.resumed):
                partial.write(row, verdict, summary)
                summary.note(verdict.outcome.value, verdict.reason, verdict.score)
                on_line(summary)
            if _stamp(source) != read_at or summary.done != summary.total:
                raise UserError(
                    f"IN: {source} was changed while it was judged; when it is whole, remove {partial.path} and "
                    f"{partial.header.name}, and judge it again"
                )
            partial.publish(summary)
        finally:
            partial.close()
    return summary


def read_lines(source: Path, verifier: str) -> Iterator[tuple[dict[str, Any], Task, str]]:
    """Each line's object, task and completion. Raises UserError that names file, line, field and remedy."""
    try:
        with source.open("rb") as file:
            for number, data in enumerate(file, 1):
                line = _text(data, f"{source}:{number}", number == 1).strip()
                if line:
                    yield _read_line(line, f"{source}:{number}", verifier)
    except OSError as error:
        raise UserError(f"IN: {source}: {error.strerror}; give the path of a JSONL file") from error


def _text(data: bytes, where: str, is_first: bool) -> str:
    if is_first and data.startswith(_COMPRESSED):
        raise UserError(f"{where}: the file is compressed; unpack it first")
    try:
        return data.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start + 1} of the line); convert the file to UTF-8"
        ) from error


def _read_line(line: str, where: str, verifier: str) -> tuple[dict[str, Any], Task, str]:
    each = (
        "write its elements one a line (`jq -c '.[]'`)"
        if line.startswith("[")
        else "is it cut off, or spread over several lines? write one whole object a line, or delete the line"
    )
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise UserError(f"{where}: not whole JSON ({problem}); {each}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        raise UserError(f"{where}: cannot be read ({str(error)[:100]}); mend or delete the line") from error
    if not isinstance(row, dict):
        hint = f"; {each}" if isinstance(row, list) else ""
        raise UserError(f'{where}: a {type(row).__name__}; allowed: an object {{"completion": ..., "gold": ...}}{hint}')
    return row, *as_task(row, where, verifier)


def as_task(row: Mapping[str, Any], where: str, verifier: str) -> tuple[Task, str]:
    """The task and the completion that a line's object holds for a verifier.

    Args:
        row: As at the top of this file.
        where: Where it stands, for messages; also the task's id, if it has none.
        verifier: Registry name.

    Raises:
        UserError: Something that the verifier needs is missing or of another type.
    """
    given = {key: value for key, value in row.items() if value is not None}
    if not isinstance(given.get("completion"), str):
        raise UserError(f"{where}: completion: {_shown(row, 'completion')}; allowed: a text{_instead(row)}")
    gold, answer = (_gold(given, key, where) for key in ("gold", "answer"))
    if gold and answer and gold != answer:
        raise UserError(f"{where}: gold: {_shown(row, 'gold')} beside answer {_shown(row, 'answer')}; give one of them")
    asked = next((key for key in _ASKED.get(verifier, ("question", "prompt")) if key in given), "prompt")
    prompt, about = given.get(asked, ""), given.get("metadata", {})
    if not isinstance(prompt, str):
        raise UserError(f"{where}: {asked}: {_shown(row, asked)}; allowed: a text")
    if not isinstance(about, dict):
        raise UserError(f"{where}: metadata: {_shown(row, 'metadata')}; allowed: an object")
    extra = {key: value for key, value in given.items() if key not in _OWN_KEYS and key != asked}
    metadata = {**(_code(given) if verifier in _NEED_TESTS and "kind" not in about else extra), **about}
    if verifier in _NEED_FAMILY and "source_dataset" in metadata:  # a line that reasoning-gym itself has written
        metadata.setdefault("family", metadata["source_dataset"])
    _check_needs(verifier, gold or answer, metadata, where, _instead(row))
    name = str(given.get("id", where))
    own = str(given.get("task_verifier") or given.get("verifier") or "math") if verifier in _BY_TASK else verifier
    task = Task(name, prompt, gold or answer, own, metadata, str(given.get("source", "")))
    return task, given["completion"]


def _gold(given: Mapping[str, Any], key: str, where: str) -> str:
    value = given.get(key, "")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: {key}: {_shown(given, key)}; allowed: a text or a number")
    return str(value)


def _code(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line's fields as the code verifier takes them; the names of HumanEval and MBPP are understood."""
    found = {key: row[key] for key in _CODE_KEYS if key in row}
    tests = next((row[key] for key in ("tests", "test", "test_list") if key in row), None)
    if tests is not None:
        found["test"] = tests
    if row.get("test_setup_code"):
        found.setdefault("setup", row["test_setup_code"])
    kind = "calls" if "calls" in found else "stdio" if "cases" in found else "script"
    found.setdefault("kind", kind)
    entry_point, prompt = found.get("entry_point"), row.get("prompt")
    if isinstance(prompt, str) and isinstance(entry_point, str) and f"def {entry_point}" in prompt:
        found["prompt"] = prompt  # the beginning of a program, which a completion may go on from
    return found


def _check_needs(verifier: str, gold: str, metadata: Mapping[str, Any], where: str, instead: str) -> None:
    """Whether a line has what our own verifiers need: better told at once than as a missing verdict for each line."""
    needs = f"verifier {verifier!r} needs"
    if verifier in _NEED_GOLD and not gold.strip():
        raise UserError(f"{where}: gold: empty; {needs} the gold answer as `gold` or `answer`{instead}")
    if verifier == "json_schema" and not gold.strip() and not isinstance(metadata.get("schema"), (dict, bool)):
        raise UserError(f"{where}: schema: missing; {needs} `schema`, or the expected document as `gold`{instead}")
    if verifier in _NEED_FAMILY and not isinstance(metadata.get("family"), str):
        raise UserError(f"{where}: metadata.family: missing; {needs} the problem's metadata, with its family{instead}")
    if verifier in _NEED_INSTRUCTIONS and not (metadata.get("instruction_id_list") and "kwargs" in metadata):
        raise UserError(f"{where}: instruction_id_list, kwargs: missing; {needs} both{instead}")
    if verifier in _NEED_TESTS and not any(metadata.get(key) for key in ("test", "calls", "cases")):
        raise UserError(f"{where}: tests: missing; {needs} `tests` (a script), `calls` or `cases`{instead}")
    if verifier in _NEED_TESTS and metadata.get("kind") != "stdio" and not metadata.get("entry_point"):
        raise UserError(f"{where}: entry_point: missing; give the name of the function that the tests call{instead}")
    if verifier == "code_hidden" and not (metadata.get("calls") and metadata.get("hidden_calls")):
        raise UserError(f"{where}: hidden_calls: missing; {needs} `calls` and `hidden_calls`{instead}")


def _shown(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "missing"
    text = "null" if row[key] is None else repr(row[key])
    return text if len(text) <= 40 else f"{text[:37]}..."


def _instead(row: Mapping[str, Any]) -> str:
    """What a line has, for a message that says what it has not."""
    keys = [key for key in row if len(key) <= 40][:MAX_SHOWN_KEYS]
    return f"; the line has {', '.join(keys)}" if keys else ""


def _in_order(pool: VerifierPool, source: Path, name: str, skip: int) -> Iterator[tuple[dict[str, Any], Verdict]]:
    """Lines from `skip` on with their verdicts, in the file's order, as soon as all before them are there."""
    rows: dict[int, dict[str, Any]] = {}
    verdicts: dict[int, Verdict] = {}

    def pairs() -> Iterator[tuple[Task, str]]:
        drawn = 0
        for index, (row, task, completion) in enumerate(read_lines(source, name)):
            if index >= skip:
                rows[drawn] = row
                drawn += 1
                yield task, completion

    following = 0
    for index, verdict in pool.stream(pairs()):
        verdicts[index] = verdict
        while following in verdicts:
            yield rows.pop(following), verdicts.pop(following)
            following += 1


class _Partial:
    """`OUT.partial`, and `OUT.partial.json` that says what its verdicts were made with."""

    def __init__(self, out: Path, made_with: Mapping[str, Any]) -> None:
        self.out, self.made_with = out, dict(made_with)
        self.path, self.header = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.partial.json")
        self.fd = -1

    def resume(self, summary: Summary) -> None:
        """Count the whole lines that are there, cut off a torn one, and go on behind them. Raises UserError."""
        if self.header.exists():
            try:
                before = json.loads(self.header.read_text(encoding="utf-8"))
            except ValueError:
                before = None
            if before != self.made_with:
                known = before if isinstance(before, dict) else {}
                differs = [key for key, value in self.made_with.items() if known.get(key) != value]
                raise UserError(
                    f"OUT: {self.path} was begun with another {', '.join(differs)}; remove it and "
                    f"{self.header.name} to begin anew, or give another file"
                )
        try:
            if not self.header.exists():
                self.path.unlink(missing_ok=True)
                write_text_atomic(self.header, json.dumps(self.made_with) + "\n")
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UserError(
                f"OUT: {self.path}: {error.strerror}; give a file in a folder that can be written"
            ) from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"OUT: {self.path} is being written by another judge; wait for it, or end it") from error
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                    summary.note(row["outcome"], row["reason"], row["score"])
                except (ValueError, KeyError, TypeError):
                    break
                whole += len(line)
                summary.resumed += 1
        os.ftruncate(self.fd, whole)

    def write(self, row: Mapping[str, Any], verdict: Verdict, summary: Summary) -> None:
        """One line, in one write. Raises UserError where the disk takes no more."""
        told = [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason, round(verdict.seconds, 6)]
        full = {**row, **dict(zip(_VERDICT_KEYS, told, strict=True))}
        try:
            data = f"{json.dumps(full, ensure_ascii=False)}\n".encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold and an escape can
            data = f"{json.dumps(full)}\n".encode()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as error:
            raise self._refused(error, summary) from error

    def publish(self, summary: Summary) -> None:
        """All is there: it becomes OUT. Raises UserError where the disk does not take it."""
        try:
            os.fsync(self.fd)
            self.path.rename(self.out)
        except OSError as error:
            raise self._refused(error, summary) from error
        with suppress(FileNotFoundError):
            self.header.unlink()

    def close(self) -> None:
        """Let go of the file; what is written stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _refused(self, error: OSError, summary: Summary) -> UserError:
        return UserError(
            f"OUT: {self.path}: {error.strerror}; {summary.done} of {summary.total} lines are judged: make room there, "
            "then run the same command again, which goes on"
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    """Another value, another content (or the same, written anew)."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
