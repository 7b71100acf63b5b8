"""The run board on a real server: one artifact that lives while the run does, and a run that outlives its server."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.supervisor import descendants
from tests.e2e.flow_fixtures import COMMAND, ROOT, starts, until, write_recipe

pytestmark = pytest.mark.slow


def start(folder: Path, fake_stage: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ, "FAKE_STAGE": fake_stage, "FAKE_STAGE_STARTS": str(folder / "starts"),
        "DERIVE_STORE": str(folder / "store"), "DERIVE_MACHINE": "cpu",
    }  # fmt: skip
    environment.pop("PREFECT_API_URL", None)
    words = [sys.executable, "-c", COMMAND, "run", str(write_recipe(folder))]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)


def rows(folder: Path, query: str) -> list[tuple[str, ...]]:
    """What the server's database holds; nothing while there is none."""
    try:
        with sqlite3.connect(f"file:{folder}/store/prefect/prefect.db?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


BOARDS = "select data, description from artifact where key like 'board-%'"


def test_the_board_is_one_artifact_that_changes_while_the_run_does_and_ends_as_its_summary(tmp_path: Path) -> None:
    flow = start(tmp_path, "problems:count sft:count rl:count evaluate:count")
    seen: list[str] = []

    def over() -> bool:
        found = rows(tmp_path, BOARDS)
        assert len(found) <= 1
        if found and json.loads(found[0][0]) not in seen:
            seen.append(json.loads(found[0][0]))
        return flow.poll() is not None

    assert until(over, 200) and flow.returncode == 0, (tmp_path / "log").read_text()
    ((stored, description),) = rows(tmp_path, BOARDS)
    last = json.loads(stored)
    # Each of four stages takes two seconds, and the page is drawn every three.
    assert len(seen) >= 3 and any("▶ **" in page and "step " in page for page in seen)
    assert last.startswith("# ✔ fake: completed")
    assert "+25.0 points [+12.5, +37.5]" in last and description == "fake: completed"
    rings = rows(tmp_path, "select key, data from artifact where type = 'progress' and task_run_id is not null")
    assert {key: float(share) for key, share in rings} == {
        f"fake-{stage}": 100.0 for stage in ("problems", "sft", "rl", "evaluate", "release")
    }
    # Prefect's own line comes before.
    _, first, *_ = [line for (line,) in rows(tmp_path, "select message from log order by timestamp")]
    assert first.startswith("this run's page: http://127.0.0.1:") and "/v2/artifacts/artifact/" in first
    # An update sends no event: its content would be kept for a week.
    assert rows(tmp_path, "select count(*) from events where event = 'prefect.artifact.updated'") == [(0,)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_outlives_a_server_that_dies_or_hangs_in_its_midst(tmp_path: Path, number: int) -> None:
    flow = start(tmp_path, "problems:count sft:count rl:count")
    assert until(lambda: len(starts(tmp_path)) == 1, 100)
    (server,) = [pid for pid in descendants(flow.pid) if is_server(pid)]
    os.kill(server, number)
    try:
        # Nothing is waited for between one stage and the next.
        assert until(lambda: len(starts(tmp_path)) == 5 or flow.poll() is not None, 60), (tmp_path / "log").read_text()
        assert starts(tmp_path) == ["problems", "sft", "rl", "evaluate", "release"]
    finally:
        if number == signal.SIGSTOP:
            os.kill(server, signal.SIGCONT)
    assert flow.wait(200) == 0, (tmp_path / "log").read_text()


def is_server(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"uvicorn" in command and b"supervisor.py" not in command
