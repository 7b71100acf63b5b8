"""`derive gc` and `derive pin`: what the store's folders are kept for, and which may go (`flows/space.py`)."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:
    from flows.space import Folder, SpacePlan
    from flows.store import Store

GC_HELP = """What may go from the store, and why; with --yes it goes. Kept are what is pinned (`derive pin`), what a run
that goes on needs, every release, and the products of the newest completed runs of each recipe (--keep). Half-built and
damaged folders, and products of runs that did not finish, go once nobody has touched them for --days. With --quota the
products of kept runs go too, least recently used first, until the store is that small. What is gone is built again when
a run asks for it."""
GC_EXAMPLE = """examples:
  derive gc                                 what would go, nothing is removed
  derive gc --keep 1 --yes                  of each recipe the newest completed run stays
  derive gc --quota 200GB --yes             and no more than 200e9 bytes in all"""
PIN_EXAMPLE = """examples:
  derive pin 20261101-120000-math-tiny-ab12 --why "in the paper"
  derive pin 3f2a --off                     a folder's digest, or its beginning"""
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def add_commands(
    add: Callable[..., argparse.ArgumentParser],
    store: argparse.ArgumentParser,
    json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:
    """The options of both commands."""
    made = add("gc", "what may go from the store, and why; --yes removes it", store, json_output)
    made.description, made.epilog = GC_HELP, GC_EXAMPLE
    made.add_argument("--keep", type=at_least(0), default=3, metavar="N",
                      help="completed runs of each recipe whose products stay (default: %(default)s)")  # fmt: skip
    made.add_argument("--days", type=at_least(0.0), default=7.0, metavar="N",
                      help="age from which half-built and damaged folders, and what unfinished runs made, go "
                           "(default: %(default)g)")  # fmt: skip
    made.add_argument("--quota", type=_bytes, metavar="SIZE", help="what the store may take, such as 200GB")
    made.add_argument("--yes", action="store_true", help="remove; without it nothing is touched")
    made = add("pin", "keep a run's products, or one folder, whatever `derive gc` is asked", store)
    made.epilog = PIN_EXAMPLE
    made.add_argument("name", metavar="RUN_OR_DIGEST", help="run id or digest, or enough of it")
    made.add_argument("--why", default="", metavar="TEXT", help="reason, shown by `derive gc`")
    made.add_argument("--off", action="store_true", help="take the pin away")


def gc(given: argparse.Namespace) -> int:
    """`derive gc`."""
    from flows import space
    from flows.store import Store

    store = Store(given.store or None)
    plan = space.plan_space(store, int(given.keep), given.days, given.quota)
    stayed: list[Folder] = []
    if given.yes:
        stayed = space.carry_out(store, plan, lambda folder: print(f"removed {folder.path.name}", file=sys.stderr))
    if given.json:
        print(json.dumps(_as_json(plan, stayed, given.yes), indent=2, ensure_ascii=False))
    else:
        _show(store, plan, stayed, given.yes)
    return 0


def pin(given: argparse.Namespace) -> int:
    """`derive pin`."""
    from flows import space
    from flows.store import Store

    store = Store(given.store or None)
    now = space.pins(store)
    if given.off:
        fitting = [name for name in now if name.startswith(given.name) or name.endswith(given.name)]
        if len(fitting) != 1:
            raise UserError(f"RUN_OR_DIGEST: {given.name!r} fits {len(fitting)} of the pins {sorted(now)}")
        space.pin(store, fitting[0], None)
        print(f"no longer pinned: {fitting[0]}")
        return 0
    name = _named(store, given.name)
    space.pin(store, name, given.why or time.strftime("on %Y-%m-%d"))
    print(f"pinned: {name}")
    return 0


def _named(store: Store, given: str) -> str:
    """The one run or folder that this names."""
    from flows import runs

    digests = [path.name for path in store.root.glob("[0-9a-f][0-9a-f]/*") if path.is_dir() and "." not in path.name]
    fitting = [digest for digest in digests if digest.startswith(given)]
    fitting += [record["id"] for record in runs.all_runs(store) if record["id"].startswith(given)
                or record["id"].endswith(given)]  # fmt: skip
    if len(fitting) != 1:
        raise UserError(f"RUN_OR_DIGEST: {given!r} fits {len(fitting)} runs and folders of {store.root}; `derive runs` "
                        "lists the runs, `derive gc` the folders: give more of it")  # fmt: skip
    return fitting[0]


def _show(store: Store, plan: SpacePlan, stayed: list[Folder], removed: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading, side in (("folder", "left"), ("what", "left"), ("size", "right"), ("", "left"), ("why", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    kept_after_all = {folder.path: folder for folder in stayed}
    for folder in sorted(plan.folders, key=lambda one: (not one.goes, -one.bytes)):
        after_all = kept_after_all.get(folder.path)
        goes = bool(folder.goes) and after_all is None
        why = folder.goes if goes else (after_all or folder).keep
        table.add_row(folder.path.name.partition(".")[0][:12], Text(folder.what), size(folder.bytes),
                      ("gone" if removed else "goes") if goes else "stays", Text(why))  # fmt: skip
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table)
    then = plan.bytes_then + sum(folder.bytes for folder in stayed)
    remedy = "" if removed or not plan.going else "; --yes removes what goes"
    now = f"{size(plan.bytes_now)}, {'now' if removed else 'then'} {size(then)}"
    console.print(Text(f"{store.root}: {now}{remedy}"), soft_wrap=True)
    if plan.quota is not None and then > plan.quota:
        console.print(Text(f"the quota of {size(plan.quota)} is not met: pins, releases and runs that go on hold the "
                           "rest; take a pin away with `derive pin NAME --off`"), soft_wrap=True)  # fmt: skip


def _as_json(plan: SpacePlan, stayed: list[Folder], removed: bool) -> dict[str, Any]:
    after_all = {folder.path for folder in stayed}
    return {
        "bytes": plan.bytes_now,
        "bytes_then": plan.bytes_then + sum(folder.bytes for folder in stayed),
        "removed": removed,
        "folders": [
            {"path": str(one.path), "what": one.what, "bytes": one.bytes, "kept_for": one.keep or None,
             "goes": (one.goes or None) if one.path not in after_all else None}
            for one in plan.folders
        ],
    }  # fmt: skip


def size(num_bytes: int) -> str:
    """Bytes for people, in powers of ten: 3.2 GB."""
    value, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b)?", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give a number of bytes, or one such as 200GB")
    return int(float(found[1]) * UNITS[(found[2] or "").upper() if found[2] != "b" else ""])
