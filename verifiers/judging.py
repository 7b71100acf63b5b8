"""Judging a file: each line of a JSONL file holds a completion and what a verifier needs; each gets its verdict.

A line in:

    {"completion": "...", "gold": "42"}                                    math, choice, think_math (or "answer")
    {"completion": "...", "tests": "...", "entry_point": "f", "prompt": "..."}                       code, a script
    {"completion": "...", "entry_point": "f", "calls": [{"args": [3], "expected": 9}]}                code, calls
    {"completion": "...", "cases": [{"stdin": "...", "stdout": "..."}]}                        code, whole programs
    {"completion": "...", "instruction_id_list": [...], "kwargs": [...]}                              instructions
    {"completion": "...", "gold": "...", "metadata": {"family": "..."}}                     puzzles, think_puzzles

Any other key goes to the verifier as metadata. A line out is the line in with `outcome`, `score`, `extracted`, `reason`
and `seconds`; old values of these are replaced, so that a judged file can be judged anew.

Lines keep their order. They grow in `OUT.partial`, one write each, and become `OUT` when all are there. A judge that
was killed goes on from there: `OUT.partial.json` says what the verdicts were made with, and other settings are refused.
Empty lines are skipped.

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
from verifiers import registry
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

_VERDICT_KEYS = ("outcome", "score", "extracted", "reason", "seconds")
_OWN_KEYS = frozenset(
    ("completion", "gold", "answer", "prompt", "id", "verifier", "metadata", "source", *_VERDICT_KEYS)
)
_NEED_GOLD = frozenset(("math", "choice", "exact", "think_math"))
_NEED_FAMILY = frozenset(("puzzles", "think_puzzles"))
_NEED_TESTS = frozenset(("code", "code_hidden"))
_NEED_INSTRUCTIONS = frozenset(("instructions", "instructions_loose"))
_CODE_KEYS = ("kind", "entry_point", "calls", "hidden_calls", "types", "tolerance", "cases", "output", "setup",
              "isolation", "time_s", "memory_mb", "reward")  # fmt: skip


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
    summary = Summary(total=sum(1 for _ in read_lines(source, name)))
    if not summary.total:
        raise UserError(f'IN: {source} has no line; write one {{"completion": ..., "gold": ...}} a line')
    with VerifierPool(num_workers, deadline_s, verifier=name) as pool:
        partial = _Partial(
            out, {"verifier": registry.identity(name), "input": _digest(source), "deadline_s": deadline_s}
        )
        try:
            partial.resume(summary)
            on_line(summary)
            for row, verdict in _in_order(pool, source, name, summary.resumed):
                partial.write(row, verdict)
                summary.note(verdict.outcome.value, verdict.reason, verdict.score)
                on_line(summary)
        finally:
            partial.close()
    partial.publish()
    return summary


def read_lines(source: Path, verifier: str) -> Iterator[tuple[dict[str, Any], Task, str]]:
    """Each line's object, task and completion. Raises UserError that names file, line, field and remedy."""
    try:
        with source.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _read_line(line, f"{source}:{number}", verifier)
    except UnicodeDecodeError as error:
        raise UserError(f"IN: {source}: not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    except OSError as error:
        raise UserError(f"IN: {source}: {error.strerror}; give the path of a JSONL file") from error


def _read_line(line: str, where: str, verifier: str) -> tuple[dict[str, Any], Task, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not whole JSON ({error.msg} at column {error.colno}); "
            "is the file cut off? mend or delete the line"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        raise UserError(f"{where}: cannot be read ({str(error)[:100]}); mend or delete the line") from error
    if not isinstance(row, dict):
        raise UserError(f'{where}: a {type(row).__name__}; allowed: an object {{"completion": ..., "gold": ...}}')
    if not isinstance(row.get("completion"), str):
        raise UserError(f"{where}: completion: {_shown(row.get('completion'))}; allowed: a text")
    gold, answer = (_gold(row, key, where) for key in ("gold", "answer"))
    if gold and answer and gold != answer:
        raise UserError(f"{where}: gold: {_shown(gold)} beside answer {_shown(answer)}; give one of them")
    prompt = row.get("prompt", row.get("question", ""))
    if not isinstance(prompt, str):
        raise UserError(f"{where}: prompt: {_shown(prompt)}; allowed: a text")
    given = row.get("metadata", {})
    if not isinstance(given, dict):
        raise UserError(f"{where}: metadata: {_shown(given)}; allowed: an object")
    extra = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    metadata = {**(_code(row) if verifier in _NEED_TESTS and "kind" not in given else extra), **given}
    _check_needs(verifier, gold or answer, metadata, where)
    name = str(row.get("id", where))
    return row, Task(name, prompt, gold or answer, verifier, metadata, str(row.get("source", ""))), row["completion"]


def _gold(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key, "")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{where}: {key}: {_shown(value)}; allowed: a text or a number")
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


def _check_needs(verifier: str, gold: str, metadata: Mapping[str, Any], where: str) -> None:
    """Whether a line has what our own verifiers need: better told at once than as a missing verdict for each line."""
    if verifier in _NEED_GOLD and not gold.strip():
        raise UserError(f"{where}: gold: empty; verifier {verifier!r} needs the gold answer as `gold` or `answer`")
    if verifier in _NEED_FAMILY and not isinstance(metadata.get("family"), str):
        raise UserError(f"{where}: metadata.family: missing; verifier {verifier!r} needs the problem's metadata")
    if verifier in _NEED_INSTRUCTIONS and not (metadata.get("instruction_id_list") and "kwargs" in metadata):
        raise UserError(f"{where}: instruction_id_list, kwargs: missing; verifier {verifier!r} needs both")
    if verifier in _NEED_TESTS and not any(metadata.get(key) for key in ("test", "calls", "cases")):
        raise UserError(f"{where}: tests: missing; verifier {verifier!r} needs `tests` (a script), `calls` or `cases`")
    if verifier in _NEED_TESTS and metadata.get("kind") != "stdio" and not metadata.get("entry_point"):
        raise UserError(f"{where}: entry_point: missing; give the name of the function that the tests call")


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


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
                self.header.write_text(json.dumps(self.made_with) + "\n", encoding="utf-8")
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

    def write(self, row: Mapping[str, Any], verdict: Verdict) -> None:
        """One line, in one write."""
        told = [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason, round(verdict.seconds, 6)]
        full = {**row, **dict(zip(_VERDICT_KEYS, told, strict=True))}
        try:
            data = f"{json.dumps(full, ensure_ascii=False)}\n".encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold and an escape can
            data = f"{json.dumps(full)}\n".encode()
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def close(self) -> None:
        """Let go of the file; what is written stays."""
        if self.fd >= 0:
            os.fsync(self.fd)
            os.close(self.fd)
            self.fd = -1

    def publish(self) -> None:
        """All is there: it becomes OUT."""
        self.path.rename(self.out)
        with suppress(FileNotFoundError):
            self.header.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
