"""`derive serve`: a page that finds its server, a deployment per preset, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from configs.load import preset_names
from flows.supervisor import descendants
from tests.e2e.flow_fixtures import COMMAND, ROOT, runs, until

pytestmark = pytest.mark.slow


def ask(url: str, body: Any = None) -> Any:
    """The JSON that the server answers with; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def test_a_served_page_asks_its_own_port_lists_every_preset_and_ends_without_leftovers(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    log = tmp_path / "log"
    with log.open("wb") as file:
        serving = subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, "serve", "--port", "0", "--store", str(tmp_path / "store")],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        assert until(lambda: "Prefect: " in log.read_text(), 90), log.read_text()
        (page,) = re.findall(r"Prefect: (http://127\.0\.0\.1:[1-9]\d*)/", log.read_text())
        assert ask(f"{page}/ui-settings")["api_url"] == "/api"
        assert until(lambda: len(ask(f"{page}/api/deployments/filter", {})) == len(preset_names()), 60)
        deployed = ask(f"{page}/api/deployments/filter", {})
        assert sorted(each["parameters"]["preset"] for each in deployed) == preset_names()
        family = descendants(serving.pid)
        serving.send_signal(signal.SIGINT)
        serving.wait(60)
        assert until(lambda: not any(runs(pid) for pid in family), 5)
        assert not (tmp_path / "store" / "prefect" / "server.json").exists()
    finally:
        serving.kill()
