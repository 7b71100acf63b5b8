"""A release in `derive up` sets off what was asked for: a call to a webhook, the next family's run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.automations import DEFAULT_CRON
from tests.e2e.flow_fixtures import ROOT, until
from tests.e2e.served_fixtures import Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BLOCK = """
import sys
from prefect.blocks.webhook import Webhook
Webhook(method="POST", url=sys.argv[1], allow_private_urls=True).save("team")
"""


@pytest.fixture
def heard() -> Iterator[tuple[str, list[str]]]:
    """The address of a web server of our own, and the bodies that were posted to it."""
    bodies: list[str] = []

    class Listening(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Listening)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    server.shutdown()
    server.server_close()


def test_a_release_calls_the_webhook_and_starts_the_next_family_from_its_folder(
    tmp_path: Path, heard: tuple[str, list[str]]
) -> None:
    address, bodies = heard
    with Up(tmp_path, "", words=("--automations", "next:math=reasoning/tiny,weekly:math/smoke")) as up:
        assert until(lambda: "made 'derive: reasoning/tiny after math'" in up.said(), 120), up.said()
        assert until(lambda: f"math/smoke is evaluated at {DEFAULT_CRON}" in up.said(), 60), up.said()
        environment = {**up.environment, "PREFECT_API_URL": up.url}
        subprocess.run([sys.executable, "-c", BLOCK, address], env=environment, check=True, timeout=120)
        words = [sys.executable, "-m", "flows.cli", "automations", "on-release:webhook/team"]
        said = [subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=120).stdout
                for _ in range(2)]  # fmt: skip
        assert said[0].strip() == "made 'derive: tell webhook/team of releases'"
        assert said[1].strip() == "'derive: tell webhook/team of releases' is there already"

        run = up.submit()
        up.reaches(run, "Completed")
        released = up.record()["release"]
        assert until(lambda: bodies != [], 60)
        assert f"was released by run {up.record()['id']} to {released}" in json.loads(bodies[0])["text"]

        wanted = {"deployments": {"name": {"any_": ["reasoning-tiny"]}}}
        assert until(lambda: len(up.ask("/flow_runs/filter", wanted)) == 1, 60)
        (following,) = up.ask("/flow_runs/filter", wanted)
        assert following["parameters"]["base"] == released
        assert following["parameters"]["preset"] == "reasoning/tiny"
        up.reaches(following["id"], "Running", "Waiting", "Completed", "Failed")

        (smoke,) = up.ask("/deployments/filter", {"deployments": {"name": {"any_": ["math-smoke"]}}})
        (schedule,) = up.ask(f"/deployments/{smoke['id']}/schedules")
        assert schedule["active"] and schedule["parameters"] == {"stages": ["evaluate"]}
