"""`kill -9` around a training, with `derive up` and with a Prefect worker; and buttons pressed at the wrong moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.pause import newest_step
from tests.e2e.fake_stage import NUM_STEPS
from tests.e2e.flow_fixtures import ROOT, runs, starts, until
from tests.e2e.served_fixtures import LIMIT_S, PRESET, OwnServer, Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ALL_STEPS = list(range(1, NUM_STEPS + 1))
COMPLETED = ["Completed"]


class Worker(Up):
    """`prefect.yaml` deployed to a server, and a worker of its pool in the place of `derive up`."""

    def _start(self) -> subprocess.Popen[bytes]:
        home = {"DERIVE_HOME": str(ROOT), "DERIVE_STORE": str(self.store.root), "PREFECT_API_URL": self.url}
        # As `configure` sets them for `derive up`; a worker's own are its operator's.
        self.environment |= {**home, "PREFECT_HOME": str(self.folder / "worker"), "PREFECT_WORKER_QUERY_SECONDS": "2"}
        if not (self.folder / "worker").exists():
            self._prefect("work-pool", "create", "gpu", "--type", "process")
            self._prefect("--no-prompt", "deploy", "--all")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--limit", "2"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _prefect(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words], cwd=ROOT, env=self.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    def __enter__(self) -> Worker:
        assert until(lambda: bool(re.search(r"Worker '.*' started", self.said())), LIMIT_S), self.said()
        return self

    def kill_worker_and_start_another(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = self._start()

    def submit(self, parameters: Mapping[str, Any] | None = None) -> str:
        (found,) = self.ask("/deployments/filter", {"deployments": {"name": {"any_": ["derive"]}}})
        given = {"preset": PRESET, "overrides": ["rl.allow_uncertified=true"], **(parameters or {})}
        environment = {"PYTHONPATH": self.environment["PYTHONPATH"], "DERIVE_STORE": str(self.store.root)}
        body = {"parameters": given, "state": {"type": "SCHEDULED"}, "job_variables": {"env": environment}}
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", body)["id"])


def planned(up: Up) -> set[str]:
    return {entry["id"] for entry in up.record()["stages"]}


def all_completed(up: Up, run: str) -> bool:
    tasks = up.tasks(run)
    return set(tasks) == planned(up) and all(states[-1] in ("Completed", "Reused") for states in tasks.values())


def test_kill_minus_9_of_derive_up_and_its_server_costs_nothing_and_the_next_one_shows_every_task(
    tmp_path: Path,
) -> None:
    """The run goes on without them, and tells the next server, at the same address, what the first one missed."""
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        up.kill_all_but(up.flow_pid())
        up.log.write_text("")
        with Up(tmp_path, "rl:train", port=up.port) as again:
            state = again.reaches(run, "Completed", limit_s=300)
            assert state["type"] == "COMPLETED"
            assert starts(tmp_path).count("rl") == 1 and again.taken() == ALL_STEPS
            # Tasks that began while nobody was there to hear of it may be missing; none may seem to go on.
            tasks = again.tasks
            assert until(lambda: all(states == COMPLETED for states in tasks(run).values()), 120), tasks(run)


def test_kill_minus_9_of_everything_is_a_crash_of_run_and_task_and_a_retry_ends_both(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3 and up.tasks(run).get("rl") == ["Running"], 120), up.tasks(run)
        everything = up.stage_pids()
        up.kill_all_but(None)
        assert until(lambda: not any(map(runs, everything)), 60)
        up.log.write_text("")
        with Up(tmp_path, "rl:train") as again:
            assert "its process is gone" in again.reaches(run, "Crashed")["message"]
            assert until(lambda: again.tasks(run)["rl"] == ["Crashed"], 120), again.tasks(run)
            again.press_retry(run)
            again.reaches(run, "Completed", limit_s=200)
            assert again.taken() == ALL_STEPS
            assert until(lambda: all_completed(again, run), 120), again.tasks(run)
            assert again.tasks(run)["rl"] == ["Crashed", "Completed"]


def test_kill_minus_9_of_a_prefect_worker_costs_nothing_and_early_buttons_make_no_second_trainer(
    tmp_path: Path,
) -> None:
    with OwnServer(tmp_path) as server, Worker(tmp_path, "rl:train", server.url) as worker:
        run = worker.submit()
        assert until(lambda: worker.steps() >= 3, 180), worker.said()
        flow, trainer = worker.flow_pid(), worker.stage_pids()[-1]
        worker.kill_worker_and_start_another()
        assert runs(flow) and runs(trainer)
        # The new worker knows of no process of this run: a resume before the pause was seen has it start another one.
        worker.press_pause(run)
        worker.press_resume(run)
        assert worker.reaches(run, "Completed", limit_s=300)["type"] == "COMPLETED"
        assert worker.taken() == ALL_STEPS
        assert until(lambda: all_completed(worker, run), 120), worker.tasks(run)
        record = worker.record()
        assert record["status"] == "completed" and starts(tmp_path).count("sft") == 1
        assert until(lambda: not any(map(runs, [flow, *worker.stage_pids()])), 60)


def test_a_cancel_ends_a_run_whose_derive_up_was_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's runner of the later one knows nothing of the earlier one's process, and leaves it alone."""
    monkeypatch.setenv("FAKE_STAGE_STEPS", "3000")
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow = up.flow_pid()
        up.kill_all_but(flow)
        up.log.write_text("")
        with Up(tmp_path, "rl:train", port=up.port) as again:
            assert runs(flow)
            again.press_cancel(run)
            assert until(lambda: not any(map(runs, [flow, *again.stage_pids()])), 120), again.state(run)
            assert again.reaches(run, "Cancelled")["type"] == "CANCELLED"
            assert again.record()["status"] == "cancelled" and again.record()["stages"][-1]["checkpoint"] >= 3


def test_a_cancel_right_after_a_pause_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect takes a run that was suspended for one without a process, and cancels it in name alone."""
    monkeypatch.setenv("FAKE_STAGE_STEPS", "3000")
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow = up.flow_pid()
        up.press_pause(run)
        up.press_cancel(run, force=False)
        assert up.state(run)["name"] == "Cancelled"
        assert until(lambda: not any(map(runs, [flow, *up.stage_pids()])), 120), up.state(run)
        assert up.state(run)["name"] == "Cancelled" and up.record()["status"] == "cancelled"


def test_a_release_that_was_declined_is_asked_about_again_when_the_run_is_retried(tmp_path: Path) -> None:
    with Up(tmp_path, "") as up:
        run = up.submit({"mode": "ask before release"})

        def answer(release: bool) -> None:
            """What the dialog sends, once there is one."""

            def asked() -> bool:
                state = up.state(run)
                keyset = state["state_details"].get("run_input_keyset") if state["type"] == "PAUSED" else None
                return bool(keyset and up.ask(f"/flow_runs/{run}/input/filter", {"prefix": keyset["schema"]}))

            assert until(asked, 120), (up.state(run), up.said()[-3000:])
            given = {"run_input": {"release": release, "note": "looked at the samples"}}
            assert up.ask(f"/flow_runs/{run}/resume", given)["status"] == "ACCEPT"

        answer(False)
        assert "was declined: looked at the samples" in up.reaches(run, "Failed")["message"]
        up.press_retry(run)
        assert until(lambda: up.state(run)["name"] != "AwaitingRetry", 60)
        answer(True)
        up.reaches(run, "Completed")
        assert up.record()["approval"] == {"released": True, "note": "looked at the samples"}


def test_a_resume_while_the_stage_stops_goes_on_in_the_same_run_with_one_trainer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STAGE_STOP_S", "8")
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow, (trainer,) = up.flow_pid(), [pid for pid in up.stage_pids() if runs(pid)]
        up.press_pause(run, timeout_s=5.0)
        state = up.reaches(run, "Pausing")
        assert state["type"] == "PAUSED" and state["state_details"]["pause_timeout"] is None
        assert runs(trainer)
        up.press_resume(run)
        assert until(lambda: starts(tmp_path).count("rl") == 2, 120), up.said()
        assert not runs(trainer) and runs(flow) and up.flow_pid() == flow
        up.reaches(run, "Completed", limit_s=200)
        assert up.taken() == ALL_STEPS
        assert up.record()["status"] == "completed" and up.record().get("processes", 1) == 1


def test_a_run_that_is_cancelled_while_it_is_checkpointed_ends_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow = up.flow_pid()
        up.press_pause(run)
        up.reaches(run, "Checkpointed")
        up.press_cancel(run)
        assert up.reaches(run, "Cancelled")["type"] == "CANCELLED"
        assert until(lambda: up.record()["status"] == "cancelled", 120)
        assert until(lambda: not any(map(runs, [flow, *up.stage_pids()])), 60)
        assert until(lambda: up.tasks(run).get("rl") == ["Checkpointed"], 60), up.tasks(run)
        (partial,) = up.store.root.glob("*/*.partial")
        assert (newest_step(partial) or 0) >= 3
        time.sleep(3.0)
        assert up.state(run)["name"] == "Cancelled" and starts(tmp_path).count("rl") == 1
        up.press_retry(run)  # and it can still be gone on with
        up.reaches(run, "Completed", limit_s=200)
        assert up.taken() == ALL_STEPS
