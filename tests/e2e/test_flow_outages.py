"""What dies around a training: its server, the process that serves, both; and what Prefect shows in the end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from flows.supervisor import descendants
from tests.e2e.fake_stage import NUM_STEPS
from tests.e2e.flow_fixtures import runs, starts, until
from tests.e2e.served_fixtures import OwnServer, Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ALL_STEPS = list(range(1, NUM_STEPS + 1))
COMPLETED = ["Completed"]


@pytest.mark.parametrize("away_s", [20.0, 180.0])
def test_a_server_that_is_away_in_the_middle_costs_nothing(tmp_path: Path, away_s: float) -> None:
    """It goes away in one stage and comes back in a later one, and again at the end, after the last stage."""
    with OwnServer(tmp_path) as server, Up(tmp_path, "sft:train rl:train", server.url) as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        server.kill()
        time.sleep(away_s)
        server.start()
        state = up.reaches(run, "Completed", limit_s=300)
        assert state["type"] == "COMPLETED"
        assert starts(tmp_path).count("sft") == 1 and starts(tmp_path).count("rl") == 1
        assert up.record()["status"] == "completed"
        tasks = up.tasks(run)
        assert all(states == COMPLETED for states in tasks.values()), tasks


def test_a_server_that_is_away_when_the_run_ends_hears_of_it_when_it_is_back(tmp_path: Path) -> None:
    with OwnServer(tmp_path) as server, Up(tmp_path, "rl:train", server.url) as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 30, 120), up.said()
        server.kill()
        assert until(lambda: "release" in starts(tmp_path), 180), up.said()
        assert until(lambda: up.record()["status"] == "completed", 180)
        server.start()
        assert up.reaches(run, "Completed", limit_s=200)["type"] == "COMPLETED"


def test_a_server_of_derive_up_that_dies_is_started_again(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        servers = [
            pid
            for pid in descendants(up.process.pid)
            if b"server\0start" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and b"supervisor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(servers[0], signal.SIGKILL)
        assert until(lambda: "it is started again" in up.said(), 60)
        up.reaches(run, "Completed", limit_s=200)
        assert starts(tmp_path).count("rl") == 1


def test_kill_minus_9_of_derive_up_and_its_server_loses_nothing_and_the_next_one_shows_the_truth(
    tmp_path: Path,
) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow = up.flow_pid()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert until(lambda: up.record()["status"] == "completed", 200), up.said()
        assert starts(tmp_path).count("rl") == 1
        # It waits for the server, to say so; with it gone too, only the store knows.
        os.kill(flow, signal.SIGKILL)
        assert until(lambda: not runs(flow), 10)
        up.log.write_text("")
        with Up(tmp_path, "") as again:
            state = again.reaches(run, "Completed", limit_s=120)
            assert "told by the run's record" in state["message"]
            assert until(lambda: all(states == COMPLETED for states in again.tasks(run).values()), 60), again.tasks(run)


def test_a_machine_that_dies_leaves_a_run_that_is_shown_as_crashed_and_a_retry_resumes_it(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow, everything = up.flow_pid(), [*descendants(up.flow_pid()), *up.stage_pids()]
        for pid in (up.process.pid, flow, *everything):
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        up.process.wait()
        up.log.write_text("")
        with Up(tmp_path, "rl:train") as again:
            state = again.reaches(run, "Crashed", limit_s=120)
            assert "its process is gone" in state["message"]
            again.press_retry(run)
            again.reaches(run, "Completed", limit_s=200)
            assert again.taken() == ALL_STEPS
