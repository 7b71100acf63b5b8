"""`derive up --check`: what it says of a store, a port and a server."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from flows import serve, server, up
from flows.cli import main
from flows.doctor import recorded_server
from flows.server import lock_database, record_server
from flows.store import Store


@pytest.fixture(autouse=True)
def no_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def states(store: Store, port: int = 0) -> list[tuple[str, str]]:
    return [(one.topic, one.state) for one in up.check_server(store, port)]


def test_a_free_port_and_database_are_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert states(Store(tmp_path)) == [("server", "ok")]
    assert main(["up", "--check", "--port", "0", "--store", str(tmp_path)]) == 0
    assert "each a form" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert states(Store(tmp_path), port) == [("port", "fail")]
        assert main(["up", "--check", "--port", str(port), "--store", str(tmp_path)]) == 2
    assert "give another with --port" in capsys.readouterr().out


def test_a_database_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    lock = lock_database(tmp_path / "prefect")
    assert states(Store(tmp_path)) == [("database", "fail")]
    os.close(lock)
    assert states(Store(tmp_path)) == [("server", "ok")]


def test_a_server_that_is_ending_is_waited_for_and_one_that_serves_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_database(tmp_path)
    threading.Timer(0.5, os.close, [lock]).start()
    ours = serve._own_database(tmp_path)
    assert ours >= 0 and "waiting for the end of the server before" in capsys.readouterr().out
    record_server(tmp_path, "http://127.0.0.1:9/api")  # of this process, which lives
    began = time.monotonic()
    with pytest.raises(UserError, match="in use by another server"):
        serve._own_database(tmp_path)
    assert time.monotonic() - began < serve.ENDING_S / 2
    os.close(ours)


def test_a_named_or_recorded_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect").mkdir()
    record_server(tmp_path / "prefect", "http://127.0.0.1:9/api")
    assert states(Store(tmp_path)) == [("server", "ok")]  # what was recorded is gone
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert states(Store(tmp_path)) == [("server", "fail")]


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


def test_another_stores_server_at_the_port_of_one_that_was_killed_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    monkeypatch.setattr(server, "configure", lambda home: None)
    other = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{other.server_port}/api"
        record_server(home, url)
        assert server.healthy(url) and states(Store(tmp_path)) == [("server", "fail")]
        assert recorded_server(home) == url
        record = json.loads((home / "server.json").read_text())
        for gone in ({**record, "pid": 2**22 + 1}, {**record, "started": 1}, {**record, "host": "elsewhere"}):
            (home / "server.json").write_text(json.dumps(gone))  # as after kill -9, or a power cut
            assert states(Store(tmp_path)) == [("server", "ok")]
            assert recorded_server(home) is None
            ours = server.Server(tmp_path)
            ours.start(may_start=False)
            assert ours.url is None
    finally:
        other.shutdown()
        other.server_close()


def test_the_automation_waits_for_several_heartbeats_and_for_every_way_to_end() -> None:
    made = up.zombie_automation()
    trigger = made.model_dump(mode="json")["trigger"]
    assert trigger["within"] == server.HEARTBEAT_S * up.MISSED_HEARTBEATS and trigger["posture"] == "Proactive"
    assert trigger["after"] == [up.HEARTBEAT_EVENT] and up.HEARTBEAT_EVENT in trigger["expect"]
    assert {f"prefect.flow-run.{ending}" for ending in ("Completed", "Failed", "Cancelled", "Crashed")} <= set(
        trigger["expect"]
    )
