"""Which Prefect API a run reports to: the one in PREFECT_API_URL, the store's own server, or one for this run alone.

Prefect's own ephemeral server outlives a killed flow and shares its database with every other process. Here a
run's server stands under our supervisor (it dies with the run, kill -9 included), and its database is locked:
a second run beside it gets a scratch one. The database lies in ROOT/prefect, where `derive up` finds the
history. If no server comes up in time, the run goes on without Prefect.

The settings are environment variables and must be set before prefect is imported.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows.runs import lives, this_process
from flows.supervisor import Supervised

START_LIMIT_S = 240.0
STOP_GRACE_S = 3.0
HEARTBEAT_S = 30
"""How often a run tells a server that it lives."""
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_CLI_PROMPT": "false",
    # Our own display speaks on the terminal; Prefect's log lines still go to its server.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}


class Server:
    """A Prefect API for as long as it is open. `url` is None when there is none and the run goes on without."""

    def __init__(self, root: Path) -> None:
        self.root = root / "prefect"
        self.url: str | None = None
        self.expected = "PREFECT_API_URL" in os.environ
        """Whether the user named a server; its absence is worth a word."""
        self._supervised: Supervised | None = None
        self._lock = -1
        self._scratch: Path | None = None

    def start(self, may_start: bool = True) -> None:
        """Find a running server, or begin to start one if that is allowed; `ready` waits for it."""
        configure(self.root)
        given = os.environ.get("PREFECT_API_URL")
        known = given or recorded(self.root)
        if known and healthy(known):
            self.url = known
        elif (
            may_start and not given
        ):  # a server that was asked for by name and is away is not replaced behind the user's back
            home = self._own_home()
            port = free_port()
            self.url = f"http://127.0.0.1:{port}/api"
            self._supervised = _start_api(home, port, self._lock)
            # A server of our own that is gone stays gone; the default retries would hold the run up for minutes.
            os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")
        if self.url is not None:
            os.environ["PREFECT_API_URL"] = self.url  # before prefect is imported: it reads its settings once

    def ready(self) -> bool:
        """Wait until the API answers. False: do without."""
        if self.url is None:
            return False
        if self._supervised is not None and not _wait_healthy(self.url, self._supervised):
            self.close()
            self.url = None
            return False
        return True

    def alive(self) -> bool:
        """False once a server of our own has ended; somebody else's is taken to come back."""
        return self._supervised is None or self._supervised.wait(0) is None

    def close(self) -> None:
        """End the server if it is this run's own."""
        if self._supervised is not None:
            self._supervised.close()
            self._supervised = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _own_home(self) -> Path:
        """The store's database if it is free, else a scratch one."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = lock_database(self.root)
        if self._lock >= 0:
            return self.root
        self._scratch = Path(tempfile.mkdtemp(prefix="derive-prefect-"))
        os.environ["PREFECT_HOME"] = str(self._scratch)
        return self._scratch


def configure(home: Path) -> None:
    """Prefect's settings for this process and its children, except those that the user has made."""
    # Also of a run in a terminal, which a server of `derive up` would else take for dead (`flows/up.py`).
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_HOME"] = str(home)
    # A proxy for the outside must not be asked for the loopback interface.
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))


def lock_database(home: Path) -> int:
    """File descriptor that holds the right to this Prefect database, or -1 when another process has it."""
    descriptor = os.open(home / "database.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    return descriptor


def record_server(home: Path, url: str | None) -> None:
    """Tell later runs on this store where its long-lived server is; None: it is gone."""
    if url is None:
        (home / "server.json").unlink(missing_ok=True)
    else:
        write_json_atomic(home / "server.json", {"url": url, **this_process()})


def recorded(home: Path) -> str | None:
    """URL of the long-lived server on this database; None once the process that recorded it is gone.

    After a kill the record stays, and its port may be that of another store's server by now.
    """
    try:
        found = json.loads((home / "server.json").read_text(encoding="utf-8"))
        url, is_here = str(found["url"]), found["host"] == socket.gethostname()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if is_here and lives(found) else None


def healthy(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a Prefect API answers at this URL."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if "127.0.0.1" in url else None))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def free_port(wanted: int = 0) -> int:
    """A free loopback port; the wanted one, or any. Raises UserError when the wanted one is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--port: {wanted} cannot be used ({error}); give another between 1024 and 65535"
            ) from error
        return int(probe.getsockname()[1])


def _start_api(home: Path, port: int, lock: int) -> Supervised:
    spec = find_spec("prefect")
    assert spec is not None and spec.origin is not None, "prefect is a dependency of this project"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(Path(spec.origin).parent.parent),
        "--factory",
        "prefect.server.api.server:create_app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "error",
        "--lifespan",
        "on",
    ]
    # The last two are how Prefect starts its own ephemeral server: no background services, no user interface.
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    environment.pop("PREFECT_API_URL", None)
    with (home / "server.log").open("ab") as log:
        return Supervised(command, log, home, environment, [lock] if lock >= 0 else [], STOP_GRACE_S)


def _wait_healthy(url: str, process: Supervised) -> bool:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if healthy(url):
            return True
        if process.wait(0.1) is not None:
            return False
    return False
