"""`derive corpus PRESET`: the corpus stages of a preset alone, and what became of every document.

The stages get the digests that they have in the whole run, so that a later `derive run` on the same store takes them
over, and the other way round. What is printed stands in each artifact's `data/report.json`, and is drawn in its
`report.html`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from configs.schema import Recipe

HELP = """Builds the corpora of a preset and nothing else: sources to packed tokens, examples or problems, every dropped
document with its reason. Prints the funnel of each source and the path of the report, a page for any browser.

What is finished stays in the store under the digest of the whole recipe's stage: `derive run PRESET` on the same store
goes on from there. An interrupted corpus is resumed by the same command. A base from the hub is fetched first, as its
tokenizer counts the tokens."""
EXAMPLE = """examples:
  derive corpus coder/tiny                               the standard library, file by file and package by package
  derive corpus coder/tiny --stage corpus --set corpus.sources[0].filters=[origin,python_syntax]
  derive corpus coder/tiny-packages                      all packages that are installed beside this project
  derive corpus math/tiny-gsm8k --store /data/derive     with DERIVE_DATA naming a mirror, or from the hub
  derive corpus recipe.yaml --json                       your own sources: docs/corpora/sources.md"""
TOLD_OF_SOURCES = ("read", "read_whole", "dropped", "clean", "documents", "tokens", "licence")
OUTPUTS = {"tokens": "tokens.bin", "examples": "examples.jsonl", "problems": "problems.jsonl"}


def add_command(add: Callable[..., argparse.ArgumentParser], *parents: argparse.ArgumentParser) -> None:
    """The parser of `derive corpus`."""
    made = add("corpus", "build only the corpora of a preset, with what was dropped and why", *parents)
    made.description, made.epilog = HELP, EXAMPLE
    made.add_argument("preset", metavar="PRESET", help="preset name (`derive presets`) or path of a .yaml file")
    made.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="ID",
        help="build only this corpus stage; may be repeated (default: all of them)",
    )


def run(given: argparse.Namespace) -> int:
    """The command. Raises UserError."""
    from configs.load import load_recipe
    from flows.launch import launch
    from flows.session import Request, prepare

    recipe = load_recipe(given.preset, given.overrides, given.base or None)
    stages = chosen(recipe, given.stage)
    asked = Request(given.preset, given.base, tuple(given.overrides), given.machine, given.store, until=stages)
    session = prepare(asked)
    session.record["command"] = asked.command
    code = launch(session, with_prefect=not given.no_prefect)
    figures = {
        entry["id"]: figures_of(Path(entry["folder"]), bool(entry["reused"]))
        for entry in session.record["stages"]
        if entry["id"] in stages and entry["status"] == "completed"
    }
    if given.json:
        print(json.dumps({"run": session.record["id"], "stages": figures}, indent=2, ensure_ascii=False))
    else:
        _print(figures)
    return code


def chosen(recipe: Recipe, wanted: list[str]) -> tuple[str, ...]:
    """Ids of the corpus stages to build, in the recipe's order. Raises UserError for an id that is none."""
    from configs.names import unknown
    from configs.settings.corpus import CorpusStage

    corpora = [stage.id for stage in recipe.stages if isinstance(stage, CorpusStage)]
    if not corpora:
        raise UserError(f"PRESET: {recipe.name!r} has no corpus stage; allowed: a recipe with one; name another preset")
    for name in wanted:
        if name not in corpora:
            raise unknown("--stage", name, f"corpus stage of {recipe.name}", corpora)
    return tuple(name for name in corpora if name in wanted or not wanted)


def figures_of(folder: Path, reused: bool) -> dict[str, Any]:
    """What a finished corpus stage says of itself: the funnel of each source, sizes, speed, and where it all lies."""
    report = json.loads((folder / "data" / "report.json").read_text(encoding="utf-8"))
    timings = json.loads((folder / "timings.json").read_text(encoding="utf-8"))
    seconds = timings.get("seconds") or 0.0
    return {
        "folder": str(folder),
        "product": str(folder / "data" / OUTPUTS[report["output"]]),
        "report": str(folder / "report.html"),
        "reused": reused,
        "documents": report["documents"],
        "tokens": report["tokens"],
        "seconds": seconds,
        "megabytes_per_second": round(timings["bytes_read"] / 1e6 / seconds, 3) if seconds else None,
        "licence": report["licence_of_data"]["name"],
        "shortfalls": report["shortfalls"],
        "sources": {
            name: {key: one[key] for key in TOLD_OF_SOURCES} for name, one in report["sources"].items()
        },
    }


def _print(figures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from flows.terminal import duration

    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for stage, one in figures.items():
        console.print(_table(stage, one))
        speed = f", {one['megabytes_per_second']:.2f} MB/s read" if one["megabytes_per_second"] else ""
        lines = [f"{one['documents']:,} documents, {one['tokens']:,} tokens; built in {duration(one['seconds'])}{speed}"
                 + ("; reused" if one["reused"] else ""), f"licence of the data: {one['licence']}"]
        lines += [f"short of {missing:,} tokens: {name}" for name, missing in one["shortfalls"].items()]
        lines += [f"data: {one['product']}", f"report: {one['report']}", ""]
        for line in lines:
            console.print(Text(line), soft_wrap=True)


def _table(stage: str, one: Mapping[str, Any]) -> RenderableType:
    """A line for each source, and one below it for each reason, most frequent first."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{stage}", title_justify="left")
    for heading in ("source", "read", "dropped", "kept", "written", "tokens"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for name, source in one["sources"].items():
        whole = "" if source["read_whole"] else " (until there was enough)"
        table.add_row(escape(name) + whole, f"{source['read']:,}", f"{sum(source['dropped'].values()):,}",
                      f"{source['clean']:,}", f"{source['documents']:,}", f"{source['tokens']:,}")
        for reason, count in sorted(source["dropped"].items(), key=lambda item: (-item[1], item[0])):
            table.add_row(f"[dim]  {escape(reason)}[/dim]", "", f"[dim]{count:,}[/dim]", "", "", "")
    return table
