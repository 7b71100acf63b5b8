"""What `derive up` sets right, against a server that is only a dictionary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flows import link, reconcile, runs
from flows.store import Store
from flows.up import NO_HEARTBEAT

GONE = {"host": "here", "pid": 2**22 + 1, "started": 1}


class Answer(Exception):
    def __init__(self, status_code: int) -> None:
        self.response = self
        self.status_code = status_code


class Server:
    """Flow runs' and task runs' states by their ids, and what was set."""

    def __init__(self) -> None:
        self.flows: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.history: list[dict[str, str]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append(path)
        if path == "/task_runs/filter":
            return [{"id": name, "name": name} for name, state in self.tasks.items() if state["type"] == "RUNNING"]
        if path.startswith("/flow_run_states/"):
            return self.history
        _, kind, name, *_ = path.split("/")
        known = self.flows if kind == "flow_runs" else self.tasks
        if name not in known:
            raise Answer(404)
        if method == "POST":
            assert body["force"]
            known[name] = body["state"]
        return {"state": known[name]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(link, "call", made.call)
    monkeypatch.setattr(reconcile, "call", made.call)
    return made


def save(store: Store, flow_run: str, status: str, **more: Any) -> str:
    stages = [
        {"id": "sft", "kind": "sft", "status": "completed", "reused": False, "digest": "a" * 64},
        {"id": "rl", "kind": "rl", "status": status, "reused": False, "digest": "b" * 64},
    ]
    record = {
        "id": f"run-{flow_run}", "recipe": "math/tiny", "created": flow_run, "status": status, "seconds": 1.0,
        "metrics": {}, "release": None, "report": None, "error": None, "stages": stages, "process": GONE,
        "flow_run": {"id": flow_run, "api": "", "has_deployment": True}, **more,
    }  # fmt: skip
    runs.save(store, record)
    return str(record["id"])


@pytest.mark.parametrize(
    ("status", "shown", "becomes"),
    [
        ("completed", "RUNNING", "COMPLETED"),
        ("completed", "CRASHED", "COMPLETED"),
        ("completed", "PAUSED", "COMPLETED"),
        ("failed", "RUNNING", "FAILED"),
        ("cancelled", "CANCELLING", "CANCELLED"),
        ("cancelled", "CRASHED", "CRASHED"),
        ("completed", "SCHEDULED", "SCHEDULED"),
        ("failed", "CRASHED", "CRASHED"),
        ("running", "RUNNING", "RUNNING"),
    ],
)
def test_the_records_word_counts_where_a_run_is_shown_as_open(
    tmp_path: Path, server: Server, status: str, shown: str, becomes: str
) -> None:
    store = Store(tmp_path)
    more = {"process": {"host": "elsewhere", "pid": 1, "started": 1}} if status == "running" else {}
    save(store, "1", status, **more)
    server.flows["1"] = {"type": shown, "name": shown.title()}
    said = reconcile.reconcile(store)
    assert server.flows["1"]["type"] == becomes
    assert bool(said) == (shown != becomes)


def test_a_run_whose_process_is_gone_is_crashed_and_its_open_stages_are_ended(tmp_path: Path, server: Server) -> None:
    import socket

    store = Store(tmp_path)
    save(store, "1", "running", process={**GONE, "host": socket.gethostname()})
    server.flows["1"], server.tasks = {"type": "RUNNING", "name": "Running"}, {
        "sft": {"type": "RUNNING"}, "rl": {"type": "RUNNING"}, "done": {"type": "COMPLETED"},
    }  # fmt: skip
    (said,) = reconcile.reconcile(store)
    assert said == "run run-1 was shown as Running; it is Crashed"
    assert "Retry" in server.flows["1"]["message"]
    assert server.tasks["sft"]["type"] == "COMPLETED" and server.tasks["rl"]["name"] == "Checkpointed"
    assert server.tasks["done"] == {"type": "COMPLETED"}


def test_a_run_that_still_says_its_last_word_is_left_alone(tmp_path: Path, server: Server) -> None:
    store = Store(tmp_path)
    save(store, "1", "completed", process={"pid": os.getpid(), "started": runs.process_start(os.getpid())})
    server.flows["1"] = {"type": "RUNNING", "name": "Running"}
    assert reconcile.reconcile(store) == [] and server.asked == []


def test_a_retry_that_the_automation_took_for_a_dead_run_is_scheduled_again(tmp_path: Path, server: Server) -> None:
    store = Store(tmp_path)
    save(store, "1", "failed")
    server.flows["1"] = {"type": "CRASHED", "name": "Crashed", "message": NO_HEARTBEAT}
    server.history = [{"type": kind, "timestamp": str(place)} for place, kind in enumerate(("RUNNING", "CRASHED"))]
    assert reconcile.reconcile(store) == []
    server.history[0]["type"] = "SCHEDULED"
    assert len(reconcile.reconcile(store)) == 1
    assert server.flows["1"]["type"] == "SCHEDULED" and server.flows["1"]["name"] == "AwaitingRetry"


def test_a_paused_run_is_left_alone_until_it_is_cancelled(tmp_path: Path, server: Server) -> None:
    store = Store(tmp_path)
    save(store, "1", "paused", paused={"stage": "rl", "step": 3, "in_place": False})
    server.flows["1"] = {"type": "PAUSED", "name": "Checkpointed"}
    assert reconcile.reconcile(store) == []
    server.flows["1"] = {"type": "CANCELLING", "name": "Cancelling"}
    assert reconcile.reconcile(store) == ["run run-1 was cancelled while it was paused"]
    assert server.flows["1"]["type"] == "CANCELLED" and runs.all_runs(store)[-1]["status"] == "cancelled"


def test_what_was_found_right_is_not_asked_again_and_runs_of_other_servers_are_passed_over(
    tmp_path: Path, server: Server
) -> None:
    store, settled = Store(tmp_path), set[str]()
    save(store, "1", "completed")
    save(store, "2", "completed")
    server.flows["1"] = {"type": "COMPLETED", "name": "Completed"}
    assert reconcile.reconcile(store, settled) == []
    asked = len(server.asked)
    assert reconcile.reconcile(store, settled) == [] and len(server.asked) == asked
    save(store, "1", "failed", processes=2)  # retried, and failed
    server.flows["1"] = {"type": "RUNNING", "name": "Running"}
    assert len(reconcile.reconcile(store, settled)) == 1
