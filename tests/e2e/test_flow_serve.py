"""`derive up`: a page that finds its server, a deployment per preset, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.load import preset_names
from flows.runs import all_runs
from flows.server import Server
from flows.store import Store
from flows.supervisor import descendants
from flows.up import ZOMBIES
from tests.e2e.flow_fixtures import COMMAND, ROOT, runs, starts, until, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment_comes_back() -> Iterator[None]:
    """`Server` sets Prefect's settings in this process's environment."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("PREFECT")]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def ask(url: str, body: Any = None) -> Any:
    """The JSON that the server answers with; a body makes it a POST.

    A server on SQLite answers 503 while another writer holds the database; like Prefect's own client, ask again.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in range(20):
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 19:
                raise
            time.sleep(1)
    raise AssertionError("unreachable")


def test_a_served_page_asks_its_own_port_lists_every_preset_and_ends_without_leftovers(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    log = tmp_path / "log"
    with log.open("wb") as file:
        serving = subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, "up", "--port", "0", "--store", str(tmp_path / "store")],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        assert until(lambda: "Prefect: " in log.read_text(), 90), log.read_text()
        (page,) = re.findall(r"Prefect: (http://127\.0\.0\.1:[1-9]\d*)/", log.read_text())
        assert ask(f"{page}/ui-settings")["api_url"] == "/api"
        assert until(lambda: len(ask(f"{page}/api/deployments/filter", {})) == len(preset_names()) + 1, 60)
        made = ask(f"{page}/api/automations/filter", {})
        assert [(one["name"], one["enabled"]) for one in made] == [(ZOMBIES, True)]
        assert made[0]["trigger"]["within"] == 120 and made[0]["actions"][0]["state"] == "CRASHED"
        deployed = ask(f"{page}/api/deployments/filter", {})
        (certify,) = [each for each in deployed if each["name"] == "certify-verifier"]
        assert certify["parameter_openapi_schema"]["required"] == ["verifier"]
        assert sorted(each["parameters"]["preset"] for each in deployed if each != certify) == preset_names()
        smoke = next(each for each in deployed if each["name"] == "math-smoke")
        assert set(smoke["tags"]) == {"math", "smoke", "preset released"}
        assert "| data | licence |" in smoke["description"]
        family = descendants(serving.pid)
        serving.send_signal(signal.SIGINT)
        serving.wait(60)
        assert until(lambda: not any(runs(pid) for pid in family), 5)
        assert not (tmp_path / "store" / "prefect" / "server.json").exists()
    finally:
        serving.kill()


APPROVING = """
import os, sys
import flows.plan
from tests.e2e.flow_fixtures import MODULES
flows.plan.STAGE_MODULES.update(MODULES)
from flows import approval
approval.POLL_S = 1
from flows.derive import derive
state = derive(preset=sys.argv[1], machine="cpu", mode="ask before release", return_state=True)
print(state.name, state.message)
"""


@pytest.mark.parametrize(("release", "ending"), [(True, "Completed"), (False, "Failed")])
def test_a_release_waits_for_a_yes_and_goes_as_it_is_answered(tmp_path: Path, release: bool, ending: str) -> None:
    store = tmp_path / "store"
    server = Server(store)
    server.start()
    flow: subprocess.Popen[str] | None = None
    try:
        assert server.ready() and server.url is not None
        environment = {**os.environ, "FAKE_STAGE": "", "FAKE_STAGE_STARTS": str(tmp_path / "starts"),
                       "DERIVE_STORE": str(store), "PREFECT_API_URL": server.url}  # fmt: skip
        words = [sys.executable, "-c", APPROVING, str(write_recipe(tmp_path))]
        flow = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        found: list[dict[str, Any]] = []

        def paused() -> bool:
            found[:] = ask(f"{server.url}/flow_runs/filter", {})
            return bool(found) and found[0]["state_type"] == "PAUSED"

        assert until(paused, 90), flow.communicate()[0]
        assert starts(tmp_path)[-1] == "evaluate"
        keyset = found[0]["state"]["state_details"]["run_input_keyset"]
        asked: list[dict[str, Any]] = []

        def described() -> bool:  # Prefect stores what it asks after the run has paused
            where = f"{server.url}/flow_runs/{found[0]['id']}/input/filter"
            asked[:] = ask(where, {"prefix": keyset["description"]})
            return bool(asked) and bool(ask(where, {"prefix": keyset["schema"]}))

        assert until(described, 30)
        assert "| rl | 50.0% [40.0, 60.0] |" in json.loads(asked[0]["value"])
        answer = {"run_input": {"release": release, "note": "looked at the samples"}}
        assert ask(f"{server.url}/flow_runs/{found[0]['id']}/resume", answer)["status"] == "ACCEPT"
        said = flow.communicate(timeout=90)[0]
    finally:
        if flow is not None:
            flow.kill()
            flow.communicate()
        server.close()
    assert said.startswith(ending)
    record = all_runs(Store(store))[-1]
    assert record["approval"] == {"released": release, "note": "looked at the samples"}
    assert ("release" in starts(tmp_path)) == release
    if not release:
        assert "the release was declined: looked at the samples; the stages before it are kept" in said
