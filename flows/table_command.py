"""`derive table`: the all-against-all page of stores, and the evaluation that fills it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import UserError
from flows import evaluate_command

if TYPE_CHECKING:  # a command's parser is built for every other command's --help
    from configs.stage import StageInput
    from flows.store import Store

DESCRIPTION = """Draw every evaluation that some stores, evaluation folders and releases hold as one HTML page: models
against task sets, with intervals, paired gains, thinking budgets, bits per byte, lengths, contamination and twins.

Only what was taken under one protocol stands in one column. With --models the cells are taken first: every model is
asked every task set by one evaluation, the first model being the base that the others are compared with. It lies in
the store under tables/, and the same command finds it there or goes on with it."""
EXAMPLES = """examples:
  derive table .derive other-store --out page.html
  derive table --models base=seedling math=release-math coder=release-coder \\
    --tasks gsm8k --tasks twins/gsm8k --tasks suite/code --few-shot 4 --samples 4 --probe"""
DEFAULT_OUT = "table.html"
_STDERR = 2
"""Descriptor of standard error: standard output is the page's own, for --json."""
_NAME = re.compile(r"[A-Za-z][\w.-]{0,39}")


def add_command(
    add: Callable[..., argparse.ArgumentParser], store: argparse.ArgumentParser, json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:  # fmt: skip
    """The parser of `derive table`."""
    made = add("table", "all models against all task sets, as one HTML page", store, json_output)
    made.description, made.epilog = DESCRIPTION, EXAMPLES
    made.add_argument("places", nargs="*", type=Path, metavar="STORE",
                      help="store, evaluation folder or release (default: the store, or the new evaluation alone)")
    made.add_argument("--out", type=Path, default=Path(DEFAULT_OUT), metavar="PAGE.html",
                      help="what to write (default: %(default)s)")  # fmt: skip
    made.add_argument("--models", nargs="+", default=[], metavar="NAME=FOLDER",
                      help="evaluate these first: checkpoint folders, `seedling` or hub ids; the first is the base")
    evaluate_command.add_options(made, at_least, tasks_required=False)


def run(given: argparse.Namespace) -> int:
    """`derive table`. Raises UserError."""
    if given.out.suffix not in (".html", ".htm"):
        raise UserError(f"--out: {given.out} is no .html file; give a path such as {DEFAULT_OUT}")
    if not given.out.absolute().parent.is_dir():
        raise UserError(f"--out: {given.out.absolute().parent} is no folder; make it, or give another path")
    if bool(given.models) != bool(given.tasks):
        option, other = ("--tasks", "--models") if given.models else ("--models", "--tasks")
        raise UserError(f"{option}: empty with {other}; an evaluation needs both, a page of stores neither")
    places = list(given.places)
    if given.models:
        folder, code = evaluate(given)
        if code:
            return code
        places.append(folder)
    from configs.stage import write_text_atomic
    from flows.store import Store
    from flows.table import all_against_all
    from flows.table_page import draw

    table = all_against_all(places or [Store(given.store or None).root])
    write_text_atomic(given.out, draw(table))
    if given.json:
        found = {
            "page": str(given.out), "protocols": table.protocols,
            "models": [asdict(one) for one in table.models], "columns": [asdict(one) for one in table.columns],
            "cells": [{"model": model, "column": column, **asdict(cell)}
                      for (model, column), cell in table.cells.items()],
        }  # fmt: skip
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(f"{len(table.models)} models, {len(table.columns)} task sets, {len(table.evaluations)} evaluations: "
              f"{given.out}")  # fmt: skip
    return 0


def evaluate(given: argparse.Namespace) -> tuple[Path, int]:
    """Ask all models everything; the folder of the evaluation and the command's exit code.

    Raises:
        UserError: A model, task set, source or verifier does not exist, or settings do not fit.
    """
    from configs.load import default_machine_name, load_machine
    from configs.names import check_source, check_verifier
    from configs.stage import StageFile, write_json_atomic
    from flows.inputs import outside_data
    from flows.plan import verifiers_of
    from flows.source import closure
    from flows.store import Store
    from flows.table import TABLE, TABLES
    from verifiers.registry import identity

    store = Store(given.store or None)
    stage = evaluate_command.stage_of(argparse.Namespace(**{**vars(given), "model": "base"}))
    for option, sources in (("--tasks", stage.tasks), ("--kept", stage.kept_tasks), ("--text", stage.heldout_text)):
        for source in sources:
            check_source(option, source)
    if given.verifier:
        check_verifier("--verifier", given.verifier)
    inputs = _inputs(given.models, store)
    stage = stage.model_copy(update={"models": tuple(inputs)})
    machine = load_machine(given.machine or default_machine_name())
    asked = {
        "stage": stage.model_dump(mode="json"), "models": {name: one.digest for name, one in inputs.items()},
        "outside": outside_data(stage), "verifiers": {name: dict(identity(name)) for name in verifiers_of(stage)},
        "source": closure("derivatives.evaluate"),
    }  # fmt: skip
    folder = store.root / TABLES / store.digest(asked)[:16]
    stage_file = StageFile(recipe=TABLE, stage=stage, inputs=inputs, machine=machine)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(folder.name + ".json")
    write_json_atomic(path, stage_file.model_dump(mode="json"))
    words = [word.replace("{python}", sys.executable) for word in machine.for_kind(stage.kind).launcher]
    command = [*words, sys.executable, "-m", "derivatives.evaluate", str(path), str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    root = str(Path(__file__).resolve().parent.parent)
    if "site-packages" not in root:  # an installed tree is found anyway
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    if machine.num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(machine.num_threads)
    code = subprocess.run(command, env=environment, stdout=_STDERR, check=False).returncode
    return folder, code if code >= 0 else 128 - code


def _inputs(models: list[str], store: Store) -> dict[str, StageInput]:
    """Model name -> checkpoint; the first is the base, which is also asked plainly."""
    from configs.stage import StageInput
    from flows.base import resolve_base

    found: dict[str, StageInput] = {}
    for text in models:
        name, equals, folder = text.partition("=")
        if not equals or not folder or not _NAME.fullmatch(name):
            raise UserError(f"--models: {text!r}; allowed: NAME=FOLDER with a name of letters, digits, . _ and -, such "
                            "as math=release-math; correct it")
        if name in found:
            raise UserError(f"--models: {name!r} is given twice; name each model once")
        base = resolve_base(folder, None, store, download=True)
        assert base.path is not None, "a downloaded base has a path"
        found[name] = StageInput(
            kind="release" if found else "base", path=str(base.path), digest=store.digest(base.identity)
        )
    if len(found) < 2:
        raise UserError(f"--models: {models[0]!r} alone; allowed: a base and at least one other; add one, or run "
                        "`derive evaluate`")
    return found
