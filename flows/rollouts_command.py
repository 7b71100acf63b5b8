"""`derive rollouts export RUN OUT.jsonl` and `derive rollouts rescore RUN VERIFIER`.

RUN is a run's id, or its beginning or end, or a stage's folder. What is stored: `derivatives/rollout/store.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import UserError

EXAMPLE = "derive rollouts rescore 7f3a exact --out changed.jsonl"
KINDS = ("rl", "sample")
"""Stages that leave rollouts."""


def add_commands(
    add: Callable[..., argparse.ArgumentParser],
    store: argparse.ArgumentParser,
    json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:
    """The parsers of `derive rollouts ...`."""
    top = add("rollouts", "every completion that reinforcement learning drew: export them, judge them again",
              example=EXAMPLE)  # fmt: skip
    actions = top.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = actions.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=[store, *parents],
            allow_abbrev=False,
        )  # fmt: skip
        made.add_argument("run_id", metavar="RUN", help="run id, or its beginning or end, or a stage's folder")
        made.add_argument("--stage", default="", metavar="ID", help="stage of the run (default: the last that has any)")
        made.add_argument(
            "--steps", type=steps_given, default=(1, None), metavar="FIRST:LAST", help="only these steps (default: all)"
        )
        return made

    made = action("export", "write the completions as JSON lines, with prompts, verdicts and rewards")
    made.add_argument("out", metavar="OUT.jsonl", type=Path, help="file to make")
    made.add_argument("--tokens", action="store_true", help="also token ids and log-probabilities")
    made = action("rescore", "judge the completions by another verifier and count the changed labels", json_output)
    made.add_argument("verifier", metavar="VERIFIER", help="`derive verifiers list`")
    made.add_argument("--out", metavar="OUT.jsonl", type=Path, help="write those whose label changed to this new file")
    made.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)"
    )


def run(given: argparse.Namespace) -> int:
    """The command. Raises UserError."""
    if given.out is not None and given.out.exists():
        raise UserError(f"OUT: {given.out} exists; give another file, or remove it")
    return export(given) if given.action == "export" else rescore(given)


def export(given: argparse.Namespace) -> int:
    """`derive rollouts export`."""
    from derivatives.rollout.stored import StoredRollouts

    stored = StoredRollouts(stage_folder(given))
    rows = (one.row(given.tokens) for one in stored.completions(*given.steps))
    print(f"{_write(given.out, rows)} completions of {len(stored.steps)} steps: {given.out}")
    return 0


def rescore(given: argparse.Namespace) -> int:
    """`derive rollouts rescore`."""
    from derivatives.rollout import stored as reading

    stored = reading.StoredRollouts(stage_folder(given))
    counts: Counter[tuple[str, str]] = Counter()

    def changed() -> Any:
        for one, verdict in reading.rescore(stored, given.verifier, int(given.workers), *given.steps):
            was, now = one.judged.verdict.outcome.value, verdict.outcome.value
            counts[was, now] += 1
            if was != now:
                told = {"outcome": now, "score": verdict.score, "extracted": verdict.extracted,
                        "reason": verdict.reason}  # fmt: skip
                yield {**one.row(), given.verifier: told}

    if given.out is not None:
        _write(given.out, changed())
    else:
        for _ in changed():
            pass
    first = next(iter(stored.step(stored.steps[0]))).verifiers[0] if stored.steps else ""
    total, num_changed = counts.total(), sum(count for (was, now), count in counts.items() if was != now)
    found = {
        "verifier": given.verifier,
        "was": first,
        "completions": total,
        "changed": num_changed,
        "labels": [{"was": was, "is": now, "count": count} for (was, now), count in sorted(counts.items())],
        "out": str(given.out) if given.out else None,
    }
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{total} completions", title_justify="left")
    for heading, side in ((first, "left"), (given.verifier, "left"), ("completions", "right"), ("share", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for (was, now), count in sorted(counts.items()):
        table.add_row(was, now, str(count), f"{count / total:.1%}", style="" if was == now else "bold")
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    print(f"{num_changed} labels changed" + (f": {given.out}" if given.out else ""))
    return 0


def stage_folder(
    given: argparse.Namespace, kinds: tuple[str, ...] = KINDS, chosen_first: tuple[str, ...] = ()
) -> Path:
    """The folder of the stage that is asked for.

    Args:
        given: `run_id`, `stage` and `store` of the command line.
        kinds: Kinds of stages that will do.
        chosen_first: Which kind is taken where no stage is named and the run has several; the last of all if empty.

    Raises:
        UserError: There is none.
    """
    from flows import runs
    from flows.store import Store

    if Path(given.run_id).is_dir():
        return Path(given.run_id)
    record = runs.find_run(Store(given.store or None), given.run_id)
    entries = {entry["id"]: entry for entry in record["stages"] if entry["kind"] in kinds and entry.get("folder")}
    if given.stage and given.stage not in entries:
        raise UserError(
            f"--stage: {given.stage!r} has no rollouts in run {record['id']}; allowed: {', '.join(entries) or 'none'}"
        )
    if not entries:
        raise UserError(f"RUN: {record['id']} has no stage of kind {' or '.join(kinds)}; name another run")
    found = list(entries.values())
    kind = next((kind for kind in chosen_first if any(entry["kind"] == kind for entry in found)), None)
    last = [entry for entry in found if kind in (None, entry["kind"])][-1]
    return Path((entries[given.stage] if given.stage else last)["folder"])


def _write(path: Path, rows: Any) -> int:
    """Write JSON lines under another name first, so that OUT is whole or not there; returns their number."""
    partial = path.with_name(f"{path.name}.partial")
    num = 0
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                num += 1
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.rename(path)
    return num


def steps_given(text: str) -> tuple[int, int | None]:
    """`FIRST:LAST`, either of which may be left out, or one step."""
    first, colon, last = text.partition(":")
    try:
        low = int(first) if first else 1
        high = int(last) if last else (None if colon else low)
    except ValueError:
        low, high = 0, None
    if low < 1 or (high is not None and high < low):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: FIRST:LAST, counted from 1, such as 10:20")
    return low, high
