"""`derive verifiers list`, `derive verifiers new NAME` and `derive verifiers judge NAME IN.jsonl OUT.jsonl`.

What a line of IN must hold is at the top of `verifiers/judging.py`. Progress and errors go to stderr, the summary to
stdout.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from flows import certify_command, changes_actions

if TYPE_CHECKING:
    from rich.console import Console

    from verifiers.judging import Summary

PLAIN_EVERY_S = 15.0
"""Seconds between lines of progress where stderr is no terminal."""
SHOWN_REASONS = 5
"""Reasons of each outcome in the table; `--json` has all."""
NARROW = 160


def add_commands(
    add: Callable[..., argparse.ArgumentParser],
    json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:
    """The parsers of `derive verifiers ...`; each says in `perform` what it does."""
    top = add("verifiers", "list, write and try verifiers, or judge a file with one", example=EXAMPLE)
    actions = top.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = actions.add_parser(
        "list", help="names, versions, where from, and what each judges", parents=[json_output], allow_abbrev=False
    )
    made.set_defaults(perform=list_verifiers)
    made.add_argument("--store", default="", metavar="DIR", help="folder of the cards (default: the factory's store)")
    made = actions.add_parser(
        "new",
        help="write the package of a new verifier",
        description="Write an installable package: a verifier, its cases, a test and what to do next.",
        epilog="example:\n  derive verifiers new even",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(perform=new)
    made.add_argument("name", metavar="NAME", help="name of the verifier, a Python identifier in small letters")
    made.add_argument("--folder", type=Path, metavar="DIR", help="new folder of the package (default: NAME)")
    made = actions.add_parser(
        "judge",
        help="judge each line of a file",
        description="Judge each line of a JSONL file; a judge that was killed goes on with the same command.",
        parents=[json_output],
        epilog=f"{LINES}\nexample:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(perform=judge)
    made.add_argument("name", metavar="NAME", help="verifier (`derive verifiers list`)")
    made.add_argument("source", metavar="IN.jsonl", type=Path, help="lines with completion, and gold or tests")
    made.add_argument("out", metavar="OUT.jsonl", type=Path, help="the same lines with their verdicts")
    made.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)"
    )
    made.add_argument(
        "--deadline", type=at_least(0.001), metavar="SECONDS", help="for one judgement (default: the verifier's own)"
    )
    certify_command.add_actions(actions, json_output)
    changes_actions.add_actions(actions, json_output, at_least)


EXAMPLE = "derive verifiers judge math answers.jsonl judged.jsonl"
LINES = """lines of IN.jsonl, with what each verifier reads (docs/verifiers/README.md has all):
  {"completion": "...", "gold": "42", "question": "..."}                 math, exact, choice, think_math
  {"completion": "...", "tests": "assert f(1) == 2", "entry_point": "f"} code; also with calls, or cases
  {"completion": "...", "gold": "7", "metadata": {"family": "..."}}      puzzles, think_puzzles
  {"completion": "...", "instruction_id_list": [...], "kwargs": [...]}   instructions, instructions_loose
  {"completion": "...", "verifier": "code", ...}                         think_own, counterpart: as for that one
  {"completion": "..."}                                                  format
"""


def run(given: argparse.Namespace) -> int:
    """The command. Raises UserError."""
    perform: Callable[[argparse.Namespace], int] = given.perform
    return perform(given)


def list_verifiers(given: argparse.Namespace) -> int:
    """`derive verifiers list`."""
    from flows.certified import standing
    from flows.store import Store
    from verifiers import registry

    store = Store(given.store or None)
    rows: list[dict[str, Any]] = []
    for name in registry.names():
        row: dict[str, Any] = {"name": name, "version": "", "source": "", "origin": registry.origins(name)}
        row |= {"about": "", "fault": "", "certified": False, "card": ""}
        try:
            row |= registry.identity(name)
            row["about"] = _summary_of(registry.load_verifier(name))
            found = standing(name, store)
            row |= {"certified": not found.problem, "card": found.problem or "is current"}
        except UserError as error:  # the others must still be listed
            row["fault"] = str(error).removeprefix("verifier: ")
        rows.append(row)
    if given.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("verifier", "version", "from", "certified", "correct if"):
        table.add_column(heading, overflow="fold" if heading == "verifier" else "ellipsis")
    for row in rows:
        about = Text(f"cannot be used: {row['fault']}", style="red") if row["fault"] else Text(row["about"])
        certified = Text("yes" if row["certified"] else "no")
        table.add_row(Text(row["name"]), Text(row["version"]), Text(row["origin"]), certified, about)
    _console().print(table)
    return 0


def new(given: argparse.Namespace) -> int:
    """`derive verifiers new`."""
    from verifiers.new import write_package

    folder = write_package(given.name, given.folder)
    print(f"written: {folder}; {folder / 'README.md'} says what to do next")
    return 0


def judge(given: argparse.Namespace) -> int:
    """`derive verifiers judge`."""
    from rich.console import Console

    from verifiers.judging import judge_file

    console = Console(stderr=True)
    progress = _Bar(console) if console.is_terminal else _Lines(console)
    seen: list[Summary] = []
    began = time.monotonic()

    def on_line(summary: Summary) -> None:
        nonlocal began
        if not seen:  # the file is checked, judging begins
            seen.append(summary)
            began = time.monotonic()
        progress.note(summary)

    try:
        with progress.context:
            summary = judge_file(given.name, given.source, given.out, int(given.workers), given.deadline, on_line)
    except KeyboardInterrupt:
        if seen:
            print(f"{seen[0].done} of {seen[0].total} lines are judged; the same command goes on", file=sys.stderr)
        raise
    seconds = time.monotonic() - began
    found = {"verifier": given.name, "out": str(given.out), **summary.as_dict(), "seconds": round(seconds, 3)}
    found["per_second"] = round((summary.total - summary.resumed) / max(seconds, 1e-6), 1)
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print_summary(found)
    return 0


class _Bar:
    """A bar with counts and the time left, on a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = TextColumn("[green]{task.fields[correct]}[/] right  {task.fields[missing]} without verdict")
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}/s"), text, TimeRemainingColumn())
        self.context: Any = Progress(*columns, console=console)
        self._task = self.context.add_task("", total=None, correct=0, missing=0, pace="-")
        self._began = 0.0

    def note(self, summary: Summary) -> None:
        """One more line."""
        self._began = self._began or time.monotonic()  # the file is checked, judging begins
        outcomes = summary.outcomes
        pace = (summary.done - summary.resumed) / max(1e-6, time.monotonic() - self._began)
        self.context.update(
            self._task,
            total=summary.total,
            completed=summary.done,
            correct=outcomes["correct"],
            missing=outcomes["no_verdict"],
            pace=f"{pace:.0f}",
        )


class _Lines:
    """A line now and then, in a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self.context: Any = nullcontext()
        self._console, self._last = console, time.monotonic()

    def note(self, summary: Summary) -> None:
        """One more line."""
        if time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._console.print(f"{summary.done} of {summary.total} lines", soft_wrap=True)


def _print_summary(found: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    total, outcomes = found["lines"], found["outcomes"]
    table = Table(title=f"{found['verifier']}: {total} lines", title_justify="left")
    for heading, side in (("outcome", "left"), ("reason", "left"), ("lines", "right"), ("share", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for outcome, count in outcomes.items():
        reasons = list(found["reasons"][outcome].items())
        table.add_row(outcome, "", str(count), f"{count / total:.1%}", style="bold")
        for reason, number in reasons[:SHOWN_REASONS]:
            table.add_row("", Text(reason or "-"), str(number), f"{number / total:.1%}")
        if len(reasons) > SHOWN_REASONS:
            rest = sum(number for _, number in reasons[SHOWN_REASONS:])
            table.add_row("", f"{len(reasons) - SHOWN_REASONS} other reasons", str(rest), f"{rest / total:.1%}")
    console = _console()
    console.print(table)
    least = outcomes["correct"] / total
    bounds = f" (at most {least + outcomes['no_verdict'] / total:.1%}: lines without verdict count as wrong)"
    console.print(Text(f"correct: {least:.1%}{bounds if outcomes['no_verdict'] else ''}"), soft_wrap=True)
    known, mean = total - outcomes["no_verdict"], found["mean_score"]
    if mean is not None and abs(mean * known - outcomes["correct"]) > 1e-9:  # partial credit
        console.print(Text(f"mean score: {mean:.3f} over {known} lines with a verdict"), soft_wrap=True)
    resumed = f", {found['resumed']} were there already" if found["resumed"] else ""
    console.print(Text(f"{found['per_second']:.1f} lines/s in {found['seconds']:.1f} s{resumed}"), soft_wrap=True)
    console.print(Text(f"written: {found['out']}"), soft_wrap=True)


def _summary_of(verifier: object) -> str:
    """The first sentence of what is written about it, without `Correct if`; of a composite, about its module."""
    from verifiers.composite import Composite
    from verifiers.plain import PlainVerifier

    if isinstance(verifier, PlainVerifier):
        return _short_of(verifier.description)
    if isinstance(verifier, Composite):
        parts = " and ".join(part.name for part in (*verifier.gates, *verifier.decides))
        return f"{parts} say so"
    lines = (inspect.getdoc(type(verifier)) or "").split("\n\n")
    return _short_of(lines[0].replace("\n", " "))


def _short_of(sentence: str) -> str:
    return re.sub(r"^Correct if,? ", "", sentence).rstrip(".")


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=NARROW)
