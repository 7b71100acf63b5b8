"""`derive up`: the Prefect UI on this machine, with one deployment (a form) per preset and the automations of `up.py`.

Starts a server on the loopback interface with its database in the store, unless PREFECT_API_URL names one, and
waits for runs; each runs in a process of its own. One at a time computes unless told otherwise; further ones wait for
their turn (`flows/device.py`) and say behind whom. The database is SQLite's, unless
PREFECT_API_DATABASE_CONNECTION_URL names a PostgreSQL. A server that ends is started again, and states of runs are set
true by the store (`flows/up.py`). A run started from a terminal on the same store shows up here too. Every minute it
is looked whether a verifier was installed, a preset changed or something released; then forms and pages are made again
(a new preset needs a restart).

Not covered: other machines. For those, run a Prefect server of your own, set PREFECT_API_URL, and use
`prefect.yaml` with a process worker.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.errors import UserError
from flows import up
from flows.server import START_LIMIT_S, configure, free_port, healthy, lock_database, record_server, recorded
from flows.source import ROOT
from flows.store import Store
from flows.supervisor import Supervised

STOP_GRACE_S = 8.0
ENDING_S = STOP_GRACE_S + 7.0
RENEW_EVERY_S = 60.0
LOOK_FOR_RUNS_S = 3
"""Between two looks for runs that were asked for; Prefect's own 10 s are most of what a click would wait."""


def serve_presets(store: Store, port: int, limit: int = 1, automations: Sequence[str] = ()) -> int:
    """Serve until Ctrl-C, so many runs at once, with these templates of automations. Returns the exit code.

    Raises:
        UserError: the port is taken, the store is served already, or no server comes up.
    """
    home = store.root / "prefect"
    given = os.environ.get("PREFECT_API_URL")
    if given and not healthy(given):
        raise UserError(f"PREFECT_API_URL: no Prefect server answers at {given}; start it, or unset the variable")
    port = port if given else free_port(port)
    url = given or f"http://127.0.0.1:{port}/api"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DERIVE_STORE"] = str(store.root)  # for the runs, which are processes of their own
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *_paths()]))
    # Runs are processes without a terminal of ours: their log lines go to the server and to this console.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", str(LOOK_FOR_RUNS_S))
    configure(home)
    os.environ["PREFECT_API_URL"] = url
    page = url.removesuffix("/api")
    if given:
        _serve_deployments(page, limit, store, automations)
        return 0
    lock = _own_database(home)
    with up.KeptServer(lambda: _start_server(home, port, lock), lambda server: _wait(url, server, home)):
        record_server(home, url)
        try:
            _serve_deployments(f"{page}/v2/deployments", limit, store, automations)
        finally:
            record_server(home, None)
    return 0


def _own_database(home: Path) -> int:
    """The right to the store's database. The server of a process that was killed takes a moment to end: wait for it.

    Raises:
        UserError: a run or a server that lives has it.
    """
    deadline = time.monotonic() + ENDING_S
    told = False
    while (lock := lock_database(home)) < 0:
        if time.monotonic() > deadline or recorded(home):
            raise UserError(f"--store: {home} is in use by another server or run; stop that one, or wait for its end")
        if not told:
            print("waiting for the end of the server before ...", flush=True)
            told = True
        time.sleep(0.2)
    return lock


def server_environment() -> dict[str, str]:
    """The server's environment: it is no client, and its page asks whichever address it was opened at."""
    given = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    # Prefect's default is the configured port, 4200, wherever the server really is.
    return {"PREFECT_UI_API_URL": "/api", **given}


def _serve_deployments(page: str, limit: int, store: Store, automations: Sequence[str]) -> None:
    from prefect import serve

    from flows import catalogue

    try:
        for name in up.ensure_automations():
            print(f"made the automation {name!r}", flush=True)
    except Exception as error:  # a server of another version; runs do not need it
        print(f"note: no automation was made: {type(error).__name__}: {str(error)[:200]}", flush=True)
    offered = catalogue.fingerprint(store)
    made = catalogue.deployments(store)
    threading.Thread(target=_renew, args=(store, offered), daemon=True, name="catalogue").start()
    print(f"Prefect: {page}  (Ctrl-C ends it)", flush=True)
    up.keep_states_true(store)
    up.add_automations(automations)
    # Prefect would pause the deployments at the end, and with them the schedules of `weekly`, for good.
    serve(*made, limit=up.configure_slots(limit), pause_on_shutdown=False, print_starting_message=False)


def _renew(store: Store, offered: tuple[Any, ...]) -> None:
    """Make the deployments again whenever what they offer has changed; for as long as the process lives.

    Runs do not depend on it, so whatever fails here (a server that is away, a preset in the middle of an edit) is told
    once and tried again.
    """
    from flows import catalogue

    told = ""
    while True:
        time.sleep(RENEW_EVERY_S)
        try:
            now = catalogue.fingerprint(store)
            if now == offered:
                continue
            for deployment in catalogue.deployments(store):
                deployment.apply()
            offered, told = now, ""
            print("forms and pages were made again: verifiers, presets or releases have changed", flush=True)
        except Exception as error:
            if str(error) != told:
                told = str(error)
                print(f"note: forms were not made again: {type(error).__name__}: {told[:200]}", flush=True)


def _start_server(home: Path, port: int, lock: int) -> Supervised:
    assert find_spec("prefect") is not None, "prefect is a dependency of this project"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("ab") as log:
        return Supervised(command, log, home, server_environment(), [lock], STOP_GRACE_S)


def _wait(url: str, server: Supervised, home: Path) -> None:
    print("starting the Prefect server ...", flush=True)
    deadline = time.monotonic() + START_LIMIT_S
    while not healthy(url):
        if server.wait(0.2) is not None or time.monotonic() > deadline:
            raise UserError(f"--port: the Prefect server did not come up at {url}; see {home / 'server.log'}")


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
