"""What the commands of `derive` do, one function each. `flows/cli.py` has their options."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.errors import UserError
from flows import (
    compare_command,
    corpus_command,
    evaluate_command,
    export_command,
    fork_command,
    judge_command,
    lifecycle_command,
    plan_command,
    push_command,
    rollouts_command,
    runs,
    space_command,
    table_command,
)
from flows.session import Request, prepare, results, write_report
from flows.stages import Session
from flows.store import Store
from flows.terminal import duration, interval, result_table

NARROW = 160
"""Columns assumed when stdout is no terminal, so that tables in logs are not cut to 80."""


def run_preset(given: argparse.Namespace) -> int:
    """`derive math`, `derive run PRESET`."""
    asked = Request(given.preset, given.base, tuple(given.overrides), given.machine, given.store)
    asked = replace(asked, until=tuple(given.until), verifier=given.verifier, budget=given.budget)
    return _run(given, asked)


def run_single(given: argparse.Namespace) -> int:
    """`derive pretrain|sft|sample|dpo|rl DATA.jsonl`."""
    from flows.single import single_stage

    if given.out is not None and given.out.exists():
        raise UserError(f"--out: {given.out} exists; give a new folder, or remove it")
    base = given.base or "seedling"
    recipe = single_stage(given.command, given.data, base, given.overrides)
    asked = f"{given.command} {given.data}"
    request = Request(asked, base, tuple(given.overrides), given.machine, given.store, recipe=recipe)
    from flows.launch import launch

    session = prepare(request)
    code = conclude(given, session, launch(session, with_prefect=not given.no_prefect))
    if code == 0 and given.out is not None:
        product = "data" if given.command == "sample" else "model"
        folder = Path(session.record["stages"][-1]["folder"])  # this run's, whatever else has run meanwhile
        shutil.copytree(folder / product, given.out)
        print(f"{product}: {given.out}", file=sys.stderr)
    return code


def presets(given: argparse.Namespace) -> int:
    """`derive presets`."""
    from configs.load import preset_names, preset_summary

    found = [preset_summary(name) for name in preset_names()]
    if given.json:
        return _print_json(found)
    table = Table()
    for heading in ("preset", "what it builds", "base", "status", "stages"):
        table.add_column(heading)
    for each in found:
        table.add_row(
            each["name"], each["title"], each["base"], each["status"], " ".join(stage["id"] for stage in each["stages"])
        )
    _stdout().print(table)
    return 0


def show(given: argparse.Namespace) -> int:
    """`derive show PRESET`."""
    from configs.describe import field_table, recipe_as_yaml
    from configs.load import load_recipe

    recipe = load_recipe(given.preset, given.overrides, given.base or None)
    if given.fields is None:
        print(recipe_as_yaml(recipe), end="")
        return 0
    used = list(dict.fromkeys(stage.kind for stage in recipe.stages))
    for kind in ["recipe", *used] if given.fields == "all" else [given.fields]:
        table = Table(title=kind, title_justify="left")
        for heading in ("field", "type", "default", "description"):
            table.add_column(heading)
        for row in field_table(kind):
            table.add_row(*(Text(str(cell)) for cell in row))
        _stdout().print(table)
    return 0


def list_runs(given: argparse.Namespace) -> int:
    """`derive runs`."""
    records = runs.all_runs(Store(given.store or None))
    if given.json:
        return _print_json(records)
    table = Table()
    for heading in ("run", "recipe", "status", "time", "stages", "result", "release"):
        table.add_column(heading)
    for record in records:
        done = sum(entry["status"] == "completed" for entry in record["stages"])
        reused = sum(bool(entry["reused"]) for entry in record["stages"])
        gains = list((record["metrics"].get("gains") or {}).items())
        result = f"{gains[-1][0]} {interval((gains[-1][1] or {}).get('pass@1'), sign=True)}" if gains else ""
        table.add_row(
            record["id"],
            record["recipe"],
            record["status"],
            duration(record["seconds"]),
            f"{done} done, {reused} reused",
            Text(result),
            Text(record["release"] or ""),
        )
    _stdout().print(table)
    return 0


def report(given: argparse.Namespace) -> int:
    """`derive report [RUN]`."""
    store = Store(given.store or None)
    record = runs.find_run(store, given.run_id)
    print(write_report(store, record))
    return 0


def adopt(given: argparse.Namespace) -> int:
    """`derive adopt STAGE --why TEXT`."""
    from flows.adopt import adopt_stage

    print(adopt_stage(Store(given.store or None), given.stage, given.why, _adopted_request(given)))
    return 0


def verify(given: argparse.Namespace) -> int:
    """`derive verify`."""
    store = Store(given.store or None)
    folders = sorted(
        path.parent for path in store.root.glob("[0-9a-f][0-9a-f]/*/manifest.json") if "." not in path.parent.name
    )
    found = [problem for folder in folders for problem in store.problems(folder, full=True)]
    if given.json:
        _print_json({"artifacts": len(folders), "problems": found})
    else:
        print("\n".join([*found, f"{len(folders)} artifacts, {len(found)} problems"]))
    return 1 if found else 0


def serve(given: argparse.Namespace) -> int:
    """`derive up`, also called `derive serve`."""
    from flows import automations, up
    from flows.serve import serve_presets

    store = Store(given.store or None)
    if given.check:
        return up.check(store, given.port)
    entries = [text for text in given.automations.split(",") if text.strip()]
    for entry in entries:
        automations.parse(entry)
    return serve_presets(store, given.port, int(given.runs), entries)


def doctor(given: argparse.Namespace) -> int:
    """`derive doctor`."""
    from flows import doctor as checks

    return int(checks.main(json=given.json, store=given.store))


def chat(given: argparse.Namespace) -> int:
    """`derive chat FOLDER`."""
    from flows.ask import chat_with

    return chat_with(given)


def _run(given: argparse.Namespace, request: Request) -> int:
    from flows.launch import launch

    session = prepare(request)
    return conclude(given, session, launch(session, with_prefect=not given.no_prefect))


def conclude(given: argparse.Namespace, session: Session, code: int) -> int:
    """Print what a run came to; returns its exit code."""
    if given.json:
        _print_json(session.record)
    else:
        _conclusion(session.record)
    return code


def _conclusion(record: dict[str, Any]) -> None:
    console = _stdout()
    found = results(record)
    if found is not None:
        console.print(result_table(found))
    if record["release"]:
        console.print(Text(f"released: {record['release']}"), soft_wrap=True)
    if record["report"]:
        console.print(Text(f"report: {record['report']}"), soft_wrap=True)
    console.print(Text(f"{record['status']} in {duration(record['seconds'])}; run {record['id']}"), soft_wrap=True)


def _adopted_request(given: argparse.Namespace) -> Request:
    store = Store(given.store or None)
    if given.preset:
        return Request(given.preset, given.base, tuple(given.overrides), store=given.store)
    record = runs.find_run(store, None)
    return Request(str(runs.recipe_path(store, record["id"])), given.base, tuple(given.overrides), store=given.store)


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


def _stdout() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=NARROW)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run_preset,
    "pretrain": run_single,
    "sft": run_single,
    "sample": run_single,
    "dpo": run_single,
    "rl": run_single,
    "corpus": corpus_command.run,
    "plan": plan_command.run,
    "presets": presets,
    "show": show,
    "runs": list_runs,
    "report": report,
    "evaluate": evaluate_command.run,
    "chat": chat,
    "serve": serve,
    "up": serve,
    "adopt": adopt,
    "verify": verify,
    "verifiers": judge_command.run,
    "rollouts": rollouts_command.run,
    "compare": compare_command.compare,
    "table": table_command.run,
    "export": export_command.run,
    "formats": export_command.formats,
    "release": push_command.run,
    "lineage": compare_command.lineage,
    "fork": fork_command.run,
    "gc": space_command.gc,
    "pin": space_command.pin,
    "pause": lifecycle_command.pause,
    "resume": lifecycle_command.resume,
    "automations": lifecycle_command.automations,
    "doctor": doctor,
}
