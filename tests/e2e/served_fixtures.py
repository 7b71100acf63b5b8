"""`derive up` over `tests.e2e.fake_stage`, with a Prefect server of its own or of the test's, for tests to hurt."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.runs import all_runs
from flows.server import free_port, healthy
from flows.store import Store
from flows.supervisor import descendants
from tests.e2e.flow_fixtures import ROOT, runs, until

PRESET = "math/smoke"
FAKES = """
import os
if os.environ.get("FAKE_STAGE_STARTS"):
    import flows.plan
    from tests.e2e.flow_fixtures import MODULES
    flows.plan.STAGE_MODULES.update(MODULES)
"""
"""Becomes sitecustomize of every process: flow processes are Prefect's own, and import the project by themselves."""
LIMIT_S = 120.0
UP = "from flows.cli import entry; entry()"


class Up:
    """`derive up` in a process, and what the UI would ask of its server. Use it as a context."""

    def __init__(
        self, folder: Path, fake_stage: str, url: str = "", words: tuple[str, ...] = (), port: str = ""
    ) -> None:
        self.port = port
        self.folder, self.store = folder, Store(folder / "store")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        (folder / "site").mkdir(exist_ok=True)
        (folder / "site" / "sitecustomize.py").write_text(FAKES)
        self.environment |= {
            "FAKE_STAGE": fake_stage,
            "FAKE_STAGE_STARTS": str(folder / "starts"),
            "DERIVE_MACHINE": "cpu",
            "DERIVE_DEVICES": str(folder / "devices"),
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]),
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        }
        if url:
            self.environment["PREFECT_API_URL"] = url
        self.url, self._words, self.log = url, words, folder / "up.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-u", "-c", UP, "up", "--store", str(self.store.root), *self._words]
        self.port = self.url.split(":")[-1].split("/")[0] if self.url else self.port or str(free_port())
        command += ["--port", self.port]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Up:
        assert until(lambda: "Prefect: " in self.said() or self.process.poll() is not None, LIMIT_S), self.said()
        found = re.findall(r"Prefect: (http://127\.0\.0\.1:\d+)", self.said())
        assert found, self.said()
        self.url = f"{found[0]}/api"
        return self

    def __exit__(self, *_: object) -> None:
        family = [self.process.pid, *descendants(self.process.pid)]
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in family:
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in self.stage_pids():
            if runs(pid):
                os.kill(pid, signal.SIGKILL)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ask(self, path: str, body: Any = None, method: str = "") -> Any:
        """The JSON that the server answers with; a body makes it a POST. A busy SQLite is asked again."""
        data = None if body is None else json.dumps(body).encode()
        header = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, header, method=method or None)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for attempt in range(20):
            try:
                with opener.open(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 19:
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def submit(self, parameters: Mapping[str, Any] | None = None) -> str:
        """Start the preset's deployment, as the UI's *Run* does; the flow run's id."""
        name = PRESET.replace("/", "-")
        assert until(lambda: bool(self.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})), 60)
        (found,) = self.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        given = {**found["parameters"], **(parameters or {})}
        given["overrides"] = [*given.get("overrides", []), "rl.allow_uncertified=true"]  # cards are no matter here
        body = {"parameters": given, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> dict[str, Any]:
        return dict(self.ask(f"/flow_runs/{flow_run}")["state"])

    def reaches(self, flow_run: str, *names: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """The flow run's state once it has one of these names."""

        def is_there() -> bool:
            try:
                return self.state(flow_run)["name"] in names
            except OSError:  # the server is away, as some tests want it
                return False

        until(is_there, limit_s)
        state = self.state(flow_run)
        assert state["name"] in names, (state, self.said()[-4000:])
        return state

    def tasks(self, flow_run: str) -> dict[str, list[str]]:
        """Names of the states of a flow run's task runs, by the stage's id, oldest first."""
        found = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
        states: dict[str, list[str]] = {}
        for one in sorted(found, key=lambda each: each["created"]):
            states.setdefault(one["name"], []).append(one["state_name"])
        return states

    def set_state(self, flow_run: str, force: bool = True, **state: Any) -> None:
        self.ask(f"/flow_runs/{flow_run}/set_state", {"state": state, "force": force})

    def press_pause(self, flow_run: str, timeout_s: float = 300.0) -> None:
        """What the UI's pause button sends."""
        until_then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + timeout_s))
        details = {"pause_timeout": until_then, "pause_reschedule": True}
        self.set_state(flow_run, type="PAUSED", name="Suspended", state_details=details)

    def press_cancel(self, flow_run: str, force: bool = True) -> None:
        """What the UI's cancel button sends; without force as `prefect flow-run cancel` does."""
        self.set_state(flow_run, force, type="CANCELLING", name="Cancelling", message="Cancelled by UI")

    def press_resume(self, flow_run: str) -> None:
        assert self.ask(f"/flow_runs/{flow_run}/resume", {})["status"] == "ACCEPT"

    def press_retry(self, flow_run: str) -> None:
        self.set_state(flow_run, type="SCHEDULED", name="AwaitingRetry", message="Retry from the UI")

    def kill_all_but(self, flow: int | None) -> None:
        """SIGKILL for `derive up`, its server and all below it at one moment, but for a flow process and its stage."""
        spared = set() if flow is None else {flow, *descendants(flow)}
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            if pid not in spared and runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stage_pids(self) -> list[int]:
        path = self.folder / "starts"
        return [int(line.split()[1]) for line in path.read_text().splitlines()] if path.exists() else []

    def flow_pid(self) -> int:
        """The process of the newest run."""
        return int(self.record()["process"]["pid"])

    def record(self) -> dict[str, Any]:
        return all_runs(self.store)[-1]

    def steps(self) -> int:
        """Lines of the newest progress log."""
        logs = list(self.store.root.glob("*/*/progress.jsonl"))
        return len(max(logs, key=lambda path: path.stat().st_mtime).read_text().splitlines()) if logs else 0

    def taken(self) -> list[int]:
        """The steps that went into the product of the fake training."""
        (path,) = self.store.root.glob("*/*/model/taken")
        return list(json.loads(path.read_text()))


class OwnServer:
    """A Prefect server that belongs to nobody else, to be killed and started again. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same database each time, and wait for it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        environment |= {"PREFECT_HOME": str(self.folder / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        assert until(lambda: healthy(self.url), LIMIT_S), (self.folder / "server.log").read_text()[-2000:]

    def kill(self) -> None:
        assert self.process is not None
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> OwnServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
