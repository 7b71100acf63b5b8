"""`derive compare A B` and `derive lineage RELEASE`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from configs.errors import UserError

MOST_SETTINGS = 40
NARROW = 160
"""Columns where stdout is no terminal."""


def add_commands(
    add: Callable[..., argparse.ArgumentParser], store: argparse.ArgumentParser, json_output: argparse.ArgumentParser
) -> None:
    """The parsers of both commands."""
    made = add(
        "compare",
        "two runs or releases side by side: settings, shared stages, paired differences",
        store,
        json_output,
        example="derive compare 7f3a b21c",
    )
    for name in ("first", "second"):
        made.add_argument(name, metavar=name[0].upper() + name[1:], help="run id, or its end; or a release folder")
    made = add(
        "lineage",
        "what a release or a run was made of, back to its base",
        store,
        json_output,
        example="derive lineage RELEASE --svg line.svg",
    )
    made.add_argument("release", metavar="RELEASE", help="release folder, or run id, or its end")
    made.add_argument("--svg", type=Path, metavar="FILE", help="also draw it")


def compare(given: argparse.Namespace) -> int:
    """`derive compare A B`. Raises UserError."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from flows import compare as comparing
    from flows.store import Store

    found = comparing.compare(Store(given.store or None), given.first, given.second)
    if given.json:
        print(json.dumps(comparing.as_dict(found), indent=2, ensure_ascii=False))
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=NARROW)
    sides = (found.first, found.second)
    for place, side in zip("AB", sides, strict=True):
        console.print(f"{place}  {side.line.where}: {side.line.about.get('recipe')}, model {side.model or 'none'}",
                      markup=False, soft_wrap=True)  # fmt: skip
    table = Table("", "A", "B", "B less A (paired)")
    for row in comparing.rows(found):
        table.add_row(*map(escape, row))
    if table.row_count:
        console.print(table)
    else:
        console.print("no evaluation on either side")
    num = found.gains.get("all", {}).get("num")
    if num is None and table.row_count:
        console.print("no problem was asked of both, or the answers are not there: no paired difference")
    elif num is not None:
        console.print(f"paired over {int(num)} problems that both were asked")
    same = [name for name, state, _ in found.stages if state == "same"]
    console.print(f"same to the digest: {', '.join(same) or 'nothing'}", soft_wrap=True, markup=False)
    table = Table("stage", "", "built in, A / B")
    for name, state, seconds in found.stages:
        if state != "same":
            table.add_row(escape(name), state, seconds)
    if table.row_count:
        console.print(table)
    table = Table("set otherwise", "A", "B")
    for path, a, b in found.settings[:MOST_SETTINGS]:
        table.add_row(escape(path), escape(_short(a)), escape(_short(b)))
    if table.row_count:
        console.print(table)
    if len(found.settings) > MOST_SETTINGS:
        console.print(f"and {len(found.settings) - MOST_SETTINGS} more settings; --json has them all")
    return 0


def lineage(given: argparse.Namespace) -> int:
    """`derive lineage RELEASE`. Raises UserError."""
    from configs.stage import write_text_atomic
    from flows import lineage as line_of
    from flows.store import Store

    line = line_of.find(Store(given.store or None), given.release)
    if given.svg is not None:
        if not given.svg.parent.is_dir():
            raise UserError(f"--svg: {given.svg.parent} is no folder; make it, or give another path")
        if given.svg.is_dir():
            raise UserError(f"--svg: {given.svg} is a folder; give the path of a file")
        write_text_atomic(given.svg, line_of.picture(line))
    if given.json:
        plain = {**line.about, "where": line.where, "stages": list(line.stages), "reads": dict(line.reads)}
        print(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        print(line_of.tree(line))
    return 0


def _short(value: object) -> str:
    text = "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
