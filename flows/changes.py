"""What `derive verifiers diff` and `rescore` share: pairs of verdicts, and how they are shown, written and kept.

Completions are hostile text: what goes to a terminal has its control characters written out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from configs.errors import UserError
from verifiers.api import Outcome, Task, Verdict

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 160
PLAIN_EVERY_S = 15.0
"""Seconds between lines of progress where stderr is no terminal."""
SHOWN_REASONS = 12
SHOWN_CHARACTERS = 110
OUTCOMES = ("correct", "incorrect", "no_verdict")
BOOKKEEPING = frozenset(("step", "group", "sample", "finish_reason", "reward", "trained", "more", "audit", "programs",
                         "token_ids", "log_probs", "fed", "model", "task", "format", "num_tokens", "truncated"))
"""Keys that our own exports put beside a completion, which no verifier reads: no part of a case."""
One = TypeVar("One")


@dataclass(frozen=True)
class Pair:
    """One completion and what two verifiers say of it.

    Attributes:
        task: As the first verifier reads it.
        row: The line that it was read from, or that a store has of it.
        where: What names it, such as a step and a place in it.
    """

    task: Task
    completion: str
    first: Verdict
    second: Verdict
    row: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def changed(self) -> bool:
        """Whether the outcomes differ."""
        return self.first.outcome is not self.second.outcome


def judge_both(first: str, second: str, source: Path, num_workers: int) -> Iterator[Pair]:
    """Every line of a file judged by both verifiers, in order, all workers busy with both.

    Raises:
        UserError: A line cannot be read, or lacks what one of them needs; names the file and the line.
    """
    from verifiers.judging import read_lines
    from verifiers.pool import VerifierPool

    waiting: dict[int, tuple[Mapping[str, Any], Task, str]] = {}
    found: dict[int, Verdict] = {}

    def tasks() -> Iterator[tuple[Task, str]]:
        lines = zip(read_lines(source, first), read_lines(source, second), strict=True)
        for number, ((row, task, completion), (_, other, _)) in enumerate(lines):
            waiting[number] = row, task, completion
            yield task, completion
            yield other, completion

    following = 0
    with VerifierPool(num_workers) as pool:
        for place, verdict in pool.stream(tasks()):
            found[place] = verdict
            while 2 * following in found and 2 * following + 1 in found:
                row, task, completion = waiting.pop(following)
                one, other = found.pop(2 * following), found.pop(2 * following + 1)
                yield Pair(task, completion, one, other, row, task.id)
                following += 1


class Kept:
    """Takes in pairs as they come: writes those whose label changed, keeps them as cases, holds the first few.

    Use it as a context manager: the written file takes its name when all are there.

    Args:
        names: Of both verifiers.
        out: New file for the changed ones; None writes none.
        cases: File of cases that the disagreements are appended to; None appends none.
        truth: 0 where the first verifier is taken to be right, 1 where the second is.
        shown: Changed ones that are held to be shown.
    """

    def __init__(
        self, names: tuple[str, str], out: Path | None, cases: Path | None, truth: int = 0, shown: int = 0
    ) -> None:
        self.names, self.out, self.cases, self.truth, self.num_shown = names, out, cases, truth, shown
        self.shown: list[Pair] = []
        self._file: IO[str] | None = None
        self.added, self.known, self.without_truth, self.contradicted = 0, 0, 0, 0
        self.seconds = [0.0, 0.0]
        self.other_scores = 0
        if out is not None and out.exists():
            raise UserError(f"--out: {out} exists; give another file, or remove it")
        for flag, path in (("--out", out), ("--cases", cases)):
            if path is not None and not path.parent.is_dir():
                raise UserError(f"{flag}: {path}: no such folder; make {path.parent}, or give another file")
        if cases is not None and cases.exists():
            from verifiers.cases import read_cases

            read_cases(cases)  # a broken one is told before anything is judged

    def __enter__(self) -> Kept:
        if self.out is not None:
            self._file = self._partial(self.out).open("w", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.out is None or self._file is None:
            return
        self._file.close()
        if kind is None:
            self._partial(self.out).rename(self.out)
        else:
            self._partial(self.out).unlink(missing_ok=True)

    def note(self, pair: Pair) -> None:
        """One pair."""
        self.seconds[0] += pair.first.seconds
        self.seconds[1] += pair.second.seconds
        self.other_scores += not pair.changed and pair.first.score != pair.second.score
        if not pair.changed:
            return
        if len(self.shown) < self.num_shown:
            self.shown.append(pair)
        if self._file is not None:
            told = {name: told_of(verdict) for name, verdict in zip(self.names, (pair.first, pair.second), strict=True)}
            self._file.write(json.dumps({**pair.row, **told}, ensure_ascii=False) + "\n")
        if self.cases is not None:
            self._keep(pair, self.cases)

    def told(self) -> dict[str, Any]:
        """What became of them, for JSON."""
        kept = {"file": str(self.cases), "truth": self.names[self.truth], "added": self.added, "already": self.known,
                "without_truth": self.without_truth, "contradicted": self.contradicted}  # fmt: skip
        return {"out": str(self.out) if self.out else None, "cases": kept if self.cases is not None else None}

    @staticmethod
    def _partial(out: Path) -> Path:
        return out.with_name(f"{out.name}.partial")

    def _keep(self, pair: Pair, path: Path) -> None:
        from verifiers.cases import Case, append_case

        truth = (pair.first, pair.second)[self.truth]
        if truth.outcome is Outcome.NO_VERDICT:
            self.without_truth += 1
            return
        given = pair.row.get("metadata")
        own = {key: value for key, value in pair.task.metadata.items()
               if key not in BOOKKEEPING or (isinstance(given, Mapping) and key in given)}  # fmt: skip
        said = (f"{name} {v.outcome.value}{f' ({v.reason})' if v.reason else ''}"
                for name, v in zip(self.names, (pair.first, pair.second), strict=True))  # fmt: skip
        task = replace(pair.task, metadata=own)
        try:
            added = append_case(path, Case(task, pair.completion, truth.outcome, "; ".join(said)))
        except UserError:  # the file can be read: it has the other expectation, which a person has to settle
            self.contradicted += 1
            return
        self.added += added
        self.known += not added


def told_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict for a line of JSON."""
    return {"outcome": verdict.outcome.value, "score": verdict.score, "extracted": verdict.extracted,
            "reason": verdict.reason}  # fmt: skip


def counted(each: Iterable[One], total: int | None, what: str) -> Iterator[One]:
    """The same ones, with a bar on stderr, or a line now and then where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.monotonic()
        for number, one in enumerate(each, 1):
            yield one
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                console.print(f"{number} of {total} {what}" if total else f"{number} {what}", soft_wrap=True)
        return
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task("", total=total)
        for one in each:
            yield one
            bar.advance(line)


def print_agreement(found: Mapping[str, Any], names: tuple[str, str], what: str) -> None:
    """The table of labels, the figures under it, and the reasons of what changed. `found` is `Agreement.as_dict`."""
    from rich.table import Table
    from rich.text import Text

    first, second = names
    counts = {(one["first"], one["second"]): one["count"] for one in found["labels"]}
    table = Table(title=f"{found['completions']} {what}: {first} (rows) and {second} (columns)", title_justify="left")
    table.add_column(Text(first))
    for outcome in (*OUTCOMES, "all"):
        table.add_column(outcome.replace("_", " "), justify="right")
    for row in (*OUTCOMES, "all"):
        cells = [
            sum(count for (one, other), count in counts.items() if row in (one, "all") and column in (other, "all"))
            for column in (*OUTCOMES, "all")
        ]
        texts = [
            Text(str(cell), style="bold" if cell and "all" not in (row, column) and row != column else "")
            for cell, column in zip(cells, (*OUTCOMES, "all"), strict=True)
        ]
        table.add_row(row.replace("_", " "), *texts, end_section=row == OUTCOMES[-1])
    console = terminal()
    console.print(table)
    level = f"{found['confidence']:.0%}"
    if found["agreement"] is not None:
        kappa = "not defined" if found["kappa"] is None else f"{found['kappa']:.3f}"
        say(console, f"agreement {percent(found['agreement'])} of {found['judged']} with two verdicts ({level} "
                     f"interval); Cohen's kappa {kappa}")  # fmt: skip
        say(console, f"{first} calls {percent(found['gap'], sign=True)} more of them correct than {second}")
    changed = [one for one in found["reasons"] if one["first"] != one["second"]]
    if changed:
        reasons = Table(title=f"{found['changed']} labels differ", title_justify="left")
        for heading in (first, "reason", second, "reason"):
            reasons.add_column(Text(heading))
        reasons.add_column("completions", justify="right")
        for one in changed[:SHOWN_REASONS]:
            told = (one["first"], one["first_reason"] or "-", one["second"], one["second_reason"] or "-")
            reasons.add_row(*(Text(shown(text, 40)) for text in told), str(one["count"]))
        if len(changed) > SHOWN_REASONS:
            rest = sum(one["count"] for one in changed[SHOWN_REASONS:])
            reasons.add_row(f"{len(changed) - SHOWN_REASONS} other pairs", "", "", "", str(rest))
        console.print(reasons)


def print_changes(pairs: Sequence[Pair], names: tuple[str, str], total: int) -> None:
    """The first completions whose label changed."""
    console = terminal()
    for pair in pairs:
        told = (f"{name} {v.outcome.value}{f' ({v.reason})' if v.reason else ''}"
                f"{'' if v.extracted is None else f', read {shown(v.extracted, 30)}'}"
                for name, v in zip(names, (pair.first, pair.second), strict=True))  # fmt: skip
        say(console, f"{shown(pair.where, 60)}: {'; '.join(told)}")
        gold = f"  gold {shown(pair.task.answer, 40)}" if pair.task.answer else " "
        say(console, f"{gold}  ...{shown(pair.completion[-SHOWN_CHARACTERS:], SHOWN_CHARACTERS)}")
    if total > len(pairs) > 0:
        say(console, f"{total - len(pairs)} more; --out FILE.jsonl has all")


def print_kept(kept: Mapping[str, Any]) -> None:
    """Where the changes and the cases are."""
    console = terminal()
    if kept["cases"]:
        one = kept["cases"]
        without = f", {one['without_truth']} without a verdict of {one['truth']}" if one["without_truth"] else ""
        other = f", {one['contradicted']} expected otherwise there" if one["contradicted"] else ""
        say(console, f"cases: {one['added']} added, {one['already']} there already{without}{other}: {one['file']} "
                     f"(what {one['truth']} says is expected)")  # fmt: skip
    if kept["out"]:
        say(console, f"written: {kept['out']}")


def say(console: Console, text: str) -> None:
    """One line, as it is."""
    from rich.text import Text

    console.print(Text(text), soft_wrap=True)


def percent(interval: Mapping[str, float], sign: bool = False) -> str:
    """A share with its interval."""
    form = "+.1f" if sign else ".1f"
    return f"{100 * interval['value']:{form}}% [{100 * interval['low']:{form}}, {100 * interval['high']:{form}}]"


def shown(text: str, limit: int) -> str:
    """A text on one line, cut, its control characters written out."""
    from flows.report import visible

    flat = visible(" ".join(str(text).split()))
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."


def terminal() -> Console:
    """Where the answer goes; a width that is kept in pipes."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=NARROW)
