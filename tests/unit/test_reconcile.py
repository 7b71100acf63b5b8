"""What `derive up` sets right, against a server that is only a dictionary."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import handover, link, reconcile, runs
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
        self.busy = 0
        self.history: list[dict[str, str]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append(path)
        if path == "/task_runs/filter":
            if self.busy:
                self.busy -= 1
                raise Answer(503)
            return [
                {"id": key, "name": key.partition("#")[0], "state_type": state["type"], "created": key}
                for key, state in self.tasks.items()
            ]
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
    store = Store(tmp_path)
    save(store, "1", "running", process={**GONE, "host": socket.gethostname()})
    server.flows["1"], server.tasks = {"type": "RUNNING", "name": "Running"}, {
        "sft": {"type": "RUNNING"}, "rl": {"type": "RUNNING"}, "done": {"type": "COMPLETED"},
        "next": {"type": "PENDING"},
    }  # fmt: skip
    (said,) = reconcile.reconcile(store)
    assert said == "run run-1 was shown as Running; it is Crashed"
    assert "Retry" in server.flows["1"]["message"]
    assert server.tasks["sft"]["type"] == "COMPLETED" and server.tasks["rl"]["name"] == "Crashed"
    assert server.tasks["done"] == {"type": "COMPLETED"}
    assert server.tasks["next"]["name"] == "Crashed"  # the record is written after each stage


def test_every_open_task_gets_the_name_that_the_run_itself_would_have_given(tmp_path: Path, server: Server) -> None:
    """Also one of an attempt that was killed, and one that was about to begin."""
    stages = [
        {"id": "corpus", "kind": "corpus", "status": "completed", "reused": True, "digest": "a" * 64},
        {"id": "sft", "kind": "sft", "status": "completed", "reused": False, "digest": "b" * 64},
        {"id": "rl", "kind": "rl", "status": "cancelled", "reused": False, "digest": "c" * 64, "checkpoint": 7},
        {"id": "dpo", "kind": "dpo", "status": "cancelled", "reused": False, "digest": "c" * 64, "checkpoint": None},
        {"id": "release", "kind": "release", "status": "failed", "reused": False, "digest": "d" * 64,
         "metrics": {"released": False}},
    ]  # fmt: skip
    save(Store(tmp_path), "1", "failed", stages=stages)
    server.flows["1"] = {"type": "RUNNING", "name": "Running"}
    names = ("corpus", "sft#1", "sft#2", "rl", "dpo", "release", "unknown")
    server.tasks = {name: {"type": "PENDING" if name == "dpo" else "RUNNING"} for name in names}
    assert len(reconcile.reconcile(Store(tmp_path))) == 1
    assert {name: state["name"] for name, state in server.tasks.items()} == {
        "corpus": "Reused", "sft#1": "Crashed", "sft#2": "Completed", "rl": "Checkpointed", "dpo": "Cancelled",
        "release": "GateFailed", "unknown": "Cancelled",
    }  # fmt: skip
    assert "step 7" in server.tasks["rl"]["message"]


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat()


@pytest.mark.parametrize("status", ["failed", "cancelled", "running"])
def test_a_run_that_was_retried_and_still_prepares_is_left_alone(tmp_path: Path, server: Server, status: str) -> None:
    """Its record is the earlier process's, until the later one begins with its first stage."""
    store = Store(tmp_path)
    save(store, "1", status, process={**GONE, "host": socket.gethostname()})
    server.flows["1"] = {"type": "RUNNING", "name": "Running", "timestamp": ago(5)}
    assert reconcile.reconcile(store) == []  # it has just been started, and is not known here yet
    server.flows["1"]["timestamp"] = ago(900)
    handover.announce(store, "1")
    assert reconcile.reconcile(store) == []
    assert server.flows["1"]["type"] == "RUNNING"
    announcement = store.root / "runs" / "processes" / "1.json"
    announcement.write_text(json.dumps({**GONE, "host": socket.gethostname(), "at": time.time()}))
    os.utime(store.root / "runs" / "run-1.json", (time.time() - 2000, time.time() - 2000))
    assert len(reconcile.reconcile(store)) == 1  # it died there, which is no failure of a stage
    assert server.flows["1"]["name"] == "Crashed"


def test_a_busy_server_keeps_no_other_run_wrong_and_is_asked_again(tmp_path: Path, server: Server) -> None:
    store, settled = Store(tmp_path), dict[str, int]()
    for name in "12":
        save(store, name, "completed")
        server.flows[name] = {"type": "RUNNING", "name": "Running"}
    server.busy = 1
    with pytest.raises(Answer):
        reconcile.reconcile(store, settled)
    assert [server.flows[name]["type"] for name in "12"] == ["COMPLETED"] * 2
    server.tasks = {"rl": {"type": "RUNNING"}}
    assert reconcile.reconcile(store, settled) == [] and server.tasks["rl"]["name"] == "Completed"
    server.tasks["evaluate"] = {"type": "RUNNING"}  # an event that came late
    assert reconcile.reconcile(store, settled) == [] and server.tasks["evaluate"]["name"] == "Cancelled"


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


def test_a_resumed_run_whose_process_died_before_it_had_a_word_in_the_record_is_crashed(
    tmp_path: Path, server: Server
) -> None:
    store = Store(tmp_path)
    save(store, "1", "paused", paused={"stage": "rl", "step": 3, "in_place": False})
    server.flows["1"] = {"type": "RUNNING", "name": "Running", "timestamp": ago(5)}
    assert reconcile.reconcile(store) == []  # it may just have been started
    server.flows["1"]["timestamp"] = ago(900)
    handover.announce(store, "1")
    assert reconcile.reconcile(store) == []  # it prepares
    (store.root / "runs" / "processes" / "1.json").unlink()
    assert reconcile.reconcile(store) == ["run run-1 was shown as Running; it is Crashed"]
    assert server.flows["1"]["type"] == "CRASHED"
    assert runs.all_runs(store)[-1]["status"] == "paused"  # a retry goes on from there


def test_a_run_that_was_to_end_when_its_process_was_killed_is_cancelled(tmp_path: Path, server: Server) -> None:
    store = Store(tmp_path)
    save(store, "1", "running", process={**GONE, "host": socket.gethostname()})
    server.flows["1"] = {"type": "CANCELLING", "name": "Cancelling"}
    assert reconcile.reconcile(store) == ["run run-1 was shown as Cancelling; it is Cancelled"]


def test_a_paused_run_that_prefect_cancelled_by_itself_is_cancelled(tmp_path: Path, server: Server) -> None:
    """As it does with what it takes for suspended."""
    store = Store(tmp_path)
    save(store, "1", "paused", paused={"stage": "rl", "step": 3, "in_place": False})
    server.flows["1"] = {"type": "CANCELLED", "name": "Cancelled"}
    assert reconcile.reconcile(store) == ["run run-1 was cancelled while it was paused"]
    assert runs.all_runs(store)[-1]["status"] == "cancelled"


def test_what_was_found_right_is_not_asked_again_and_runs_of_other_servers_are_passed_over(
    tmp_path: Path, server: Server
) -> None:
    store, settled = Store(tmp_path), dict[str, int]()
    save(store, "1", "completed")
    save(store, "2", "completed")
    server.flows["1"] = {"type": "COMPLETED", "name": "Completed"}
    for _ in range(reconcile.LOOKS):  # a late word might make it wrong again
        assert reconcile.reconcile(store, settled) == []
    asked = len(server.asked)
    assert reconcile.reconcile(store, settled) == [] and len(server.asked) == asked
    save(store, "1", "failed", processes=2)  # retried, and failed
    server.flows["1"] = {"type": "RUNNING", "name": "Running"}
    assert len(reconcile.reconcile(store, settled)) == 1
