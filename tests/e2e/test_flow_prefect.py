"""The command line with Prefect around it: history kept, nothing lost when it fails, nothing left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.supervisor import descendants
from tests.e2e.flow_fixtures import COMMAND, ROOT, derive, runs, starts, until, write_recipe

pytestmark = pytest.mark.slow


def history(folder: Path, table: str, columns: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(folder / "store" / "prefect" / "prefect.db") as database:
        return database.execute(f"select {columns} from {table}").fetchall()


def start(folder: Path, fake_stage: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "FAKE_STAGE": fake_stage,
        "FAKE_STAGE_STARTS": str(folder / "starts"),
        "DERIVE_STORE": str(folder / "store"),
        "DERIVE_MACHINE": "cpu",
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", str(write_recipe(folder))],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )


def test_a_run_is_a_flow_run_with_a_task_per_stage_and_artifacts_and_a_reused_one_needs_no_server(
    tmp_path: Path,
) -> None:
    recipe = str(write_recipe(tmp_path))
    done = derive(tmp_path, "run", recipe, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "completed" and len(record["stages"]) == 5
    assert history(tmp_path, "flow_run", "name, state_name") == [(record["id"], "Completed")]
    tasks = dict(history(tmp_path, "task_run", "name, state_name"))
    assert tasks == {stage: "Completed" for stage in ("problems", "sft", "rl", "evaluate", "release")}
    kinds = [kind for (kind,) in history(tmp_path, "artifact", "type")]
    assert kinds.count("markdown") == 1 and "progress" in kinds
    tables = {key: data for key, kind, data in history(tmp_path, "artifact", "key, type, data") if kind == "table"}
    assert sorted(tables) == ["fake-results", "leaderboard"]
    rows = json.loads(json.loads(tables["leaderboard"]))  # text within the database's JSON: the page reads text only
    assert [row["recipe"] for row in rows] == ["fake"]
    began = time.monotonic()
    again = json.loads(derive(tmp_path, "run", recipe, "--json").stdout)
    assert time.monotonic() - began < 20
    assert [stage["reused"] for stage in again["stages"]] == [True] * 5
    listed = json.loads(derive(tmp_path, "runs", "--json").stdout)
    assert [run["id"] for run in listed] == [record["id"], again["id"]]


def test_a_users_error_in_a_stage_is_one_line_without_traceback_and_exit_code_2(tmp_path: Path) -> None:
    done = derive(tmp_path, "run", str(write_recipe(tmp_path)), fake_stage="sft:user_error")
    assert done.returncode == 2
    assert "error: sft.learning_rate: 3.0 is too high; allowed: below 1; lower it" in done.stderr
    assert "Traceback" not in done.stderr
    (state,) = history(tmp_path, "flow_run_state", "message")[-1:]
    assert state == ("sft.learning_rate: 3.0 is too high; allowed: below 1; lower it",)


def test_a_lost_prefect_server_does_not_end_the_run(tmp_path: Path) -> None:
    flow = start(tmp_path, "problems:count sft:count")
    assert until(lambda: starts(tmp_path) != [], 60)
    (server,) = [
        pid
        for pid in descendants(flow.pid)
        if b"uvicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and b"supervisor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(server, signal.SIGKILL)
    assert flow.wait(200) == 0, (tmp_path / "log").read_text()
    assert starts(tmp_path) == ["problems", "sft", "rl", "evaluate", "release"]


def hangs(store: Path) -> bool:
    """Whether a stage's child has said who it is; `os.walk` passes over folders that are renamed meanwhile."""
    found = [Path(folder, "grandchild") for folder, _, names in os.walk(store) if "grandchild" in names]
    return any(path.read_text() for path in found)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_cancelled_run_ends_every_process_within_30_seconds(tmp_path: Path, number: int, code: int) -> None:
    flow = start(tmp_path, "sft:hang")
    assert until(lambda: hangs(tmp_path / "store"), 60)
    family = descendants(flow.pid)
    assert len(family) >= 4  # two supervisors, the server, the stage, its child in a session of its own
    began = time.monotonic()
    flow.send_signal(number)
    assert flow.wait(30) == code
    assert time.monotonic() - began < 30
    assert until(lambda: not any(runs(pid) for pid in family), 5)
    record = json.loads(derive(tmp_path, "runs", "--json").stdout)[-1]
    assert record["status"] == "cancelled"


def test_kill_minus_9_of_the_flow_leaves_neither_stage_nor_server(tmp_path: Path) -> None:
    flow = start(tmp_path, "sft:hang")
    assert until(lambda: hangs(tmp_path / "store"), 60)
    family = descendants(flow.pid)
    flow.kill()
    flow.wait()
    assert until(lambda: not any(runs(pid) for pid in family), 20)


def test_a_named_server_that_does_not_answer_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    environment = {
        **os.environ,
        "FAKE_STAGE": "",
        "FAKE_STAGE_STARTS": str(tmp_path / "starts"),
        "DERIVE_STORE": str(tmp_path / "store"),
        "DERIVE_MACHINE": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", str(write_recipe(tmp_path))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert "no Prefect server answers; the run goes on without it" in done.stderr
