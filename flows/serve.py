"""`derive up`: the Prefect UI on this machine, with one deployment (a form) per preset and the automations of `up.py`.

Starts a server on the loopback interface with its database in the store, unless PREFECT_API_URL names one, and
waits for runs; each runs in a process of its own, one at a time unless told otherwise (further ones wait, which the
UI calls late). The database is SQLite's, unless PREFECT_API_DATABASE_CONNECTION_URL names a PostgreSQL.
A run started from a terminal on the same store shows up here too. Presets are read at start: restart to see a
new one.

Not covered: other machines. For those, run a Prefect server of your own, set PREFECT_API_URL, and use
`prefect.yaml` with a process worker.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import load_recipe, preset_names
from configs.schema import Recipe
from flows import up
from flows.server import START_LIMIT_S, configure, free_port, healthy, lock_database, record_server
from flows.source import ROOT
from flows.store import Store
from flows.supervisor import Supervised

STOP_GRACE_S = 8.0


def serve_presets(store: Store, port: int, limit: int = 1) -> int:
    """Serve until Ctrl-C, so many runs at once. Returns the exit code.

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
    configure(home)
    up.configure_heartbeat()
    os.environ["PREFECT_API_URL"] = url
    page = url.removesuffix("/api")
    if given:
        _serve_deployments(page, limit)
        return 0
    lock = lock_database(home)
    if lock < 0:
        raise UserError(f"--store: {home} is in use by another server or run; stop that one, or wait for its end")
    with _start_server(home, port, lock) as server:
        _wait(url, server, home)
        record_server(home, url)
        try:
            _serve_deployments(f"{page}/v2/deployments", limit)
        finally:
            record_server(home, None)
    return 0


def describe(recipe: Recipe) -> str:
    """The Markdown page of a preset's deployment."""
    lines = [
        recipe.description.strip() or recipe.title,
        "",
        f"Base **{recipe.base}**; status: {recipe.status}.",
        "",
        "| stage | kind | reads | settings |",
        "|---|---|---|---|",
    ]
    for stage in recipe.stages:
        plain = stage.model_dump(mode="json", exclude_defaults=True)
        reads = (
            plain.pop("data", None)
            or plain.pop("models", None)
            or ([plain.pop("evaluation")] if "evaluation" in plain else [])
            or [source["name"] for source in plain.pop("sources", [])]
        )
        short = {
            name: value
            for name, value in plain.items()
            if name not in ("id", "kind") and isinstance(value, (int, float, str)) and len(str(value)) < 40
        }
        lines.append(
            f"| {stage.id} | {stage.kind} | {', '.join(dict.fromkeys(reads))} | "
            f"{', '.join(f'{name}={value}' for name, value in short.items())} |"
        )
    if recipe.expected:
        lines += ["", "| expected | value | source |", "|---|---|---|"]
        lines += [f"| {figure.metric} | {figure.value:g} | {figure.source} |" for figure in recipe.expected]
    lines += ["", f"The same in a terminal: `derive run {recipe.name}`."]
    return "\n".join(lines)


def deployments() -> list[Any]:
    """One Prefect deployment per preset. Prefect's settings must be made before this."""
    from prefect.types.entrypoint import EntrypointType

    from flows.derive import derive

    made = []
    for name in preset_names():
        recipe = load_recipe(name)
        made.append(
            derive.to_deployment(
                name=name.replace("/", "-"),
                parameters={"preset": name},
                description=describe(recipe),
                tags=[name.partition("/")[0], recipe.status],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return made


def server_environment() -> dict[str, str]:
    """The server's environment: it is no client, and its page asks whichever address it was opened at."""
    given = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    # Prefect's default is the configured port, 4200, wherever the server really is.
    return {"PREFECT_UI_API_URL": "/api", **given}


def _serve_deployments(page: str, limit: int) -> None:
    from prefect import serve

    try:
        for name in up.ensure_automations():
            print(f"made the automation {name!r}", flush=True)
    except Exception as error:  # a server of another version; runs do not need it
        print(f"note: no automation was made: {type(error).__name__}: {str(error)[:200]}", flush=True)
    print(f"Prefect: {page}  (Ctrl-C ends it)", flush=True)
    serve(*deployments(), limit=limit, print_starting_message=False)


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
