"""`derive pause`, `derive resume`, `derive automations`: what an operator does to runs without Prefect's UI."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from configs.errors import UserError

PAUSE_HELP = """Stop a running run at a checkpoint and free its devices; it waits until `derive resume`. A training
stage ends its step first, any other stage just ends and goes on from what it has kept. Works with and without
Prefect."""
AUTOMATIONS_HELP = """Put automations on the Prefect server of this store (or of PREFECT_API_URL), or list them.
on-release:TYPE/NAME tells a notification or webhook block of every release; next:FAMILY=PRESET starts PRESET from what
FAMILY has released; weekly:PRESET=CRON evaluates a preset each week, and reuses what did not change. Each is made once;
change them, or switch them off, in the UI."""
TEMPLATES_HELP = "on-release:BLOCK, next:FAMILY=PRESET or weekly:PRESET=CRON"
AUTOMATIONS_EXAMPLE = """examples:
  derive automations                                        what is there
  derive automations next:math=reasoning/tiny weekly:math/tiny
  derive automations on-release:slack-webhook/team          the block is the server's, with its address"""


def add_commands(add: Callable[..., argparse.ArgumentParser], store: argparse.ArgumentParser) -> None:
    """The options of the three."""
    words = {"pause": "stop a run at a checkpoint and free its devices", "resume": "let a paused run go on"}
    for name, what in words.items():
        made = add(name, what, store)
        made.add_argument("run_id", nargs="?", metavar="RUN",
                          help="run id, or its beginning or end (default: the newest)")  # fmt: skip
        if name == "pause":
            made.description = PAUSE_HELP
    made = add("automations", "automations of the Prefect server: list them, or make some", store)
    made.description, made.epilog = AUTOMATIONS_HELP, AUTOMATIONS_EXAMPLE
    made.add_argument("entries", nargs="*", metavar="TEMPLATE", help=TEMPLATES_HELP)


def pause(given: argparse.Namespace) -> int:
    """`derive pause [RUN]`."""
    from flows.pause import pause_run
    from flows.store import Store

    print(pause_run(Store(given.store or None), given.run_id))
    return 0


def resume(given: argparse.Namespace) -> int:
    """`derive resume [RUN]`."""
    from flows import server
    from flows.doctor import recorded_server
    from flows.pause import resume_run
    from flows.store import Store

    store = Store(given.store or None)
    serving = recorded_server(store.root / "prefect")
    print(resume_run(store, given.run_id, serving if serving and server.healthy(serving) else None))
    return 0


def automations(given: argparse.Namespace) -> int:
    """`derive automations [TEMPLATE ...]`."""
    from flows import server
    from flows.automations import install, installed, parse
    from flows.doctor import recorded_server
    from flows.store import Store

    for entry in given.entries:
        parse(entry)
    home = Store(given.store or None).root / "prefect"
    url = os.environ.get("PREFECT_API_URL") or recorded_server(home)
    if not url or not server.healthy(url):
        raise UserError("--store: no Prefect server runs on it; start `derive up`, or name yours in PREFECT_API_URL")
    server.configure(home)
    os.environ["PREFECT_API_URL"] = url
    for said in install(given.entries):
        print(said)
    if not given.entries:
        for name, is_on in installed():
            print(f"{name}{'' if is_on else ' (off)'}")
    return 0
