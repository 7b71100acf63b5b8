"""Cancel, pause, resume, retry and wait in `derive up`, by what the UI's buttons send, over real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from flows.pause import newest_step
from tests.e2e.fake_stage import NUM_STEPS
from tests.e2e.flow_fixtures import runs, starts, until
from tests.e2e.served_fixtures import Up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ALL_STEPS = list(range(1, NUM_STEPS + 1))


def test_a_cancelled_run_leaves_nothing_running_and_a_checkpoint_and_a_retry_goes_on_from_it(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow, began = up.flow_pid(), time.monotonic()
        up.press_cancel(run)
        assert until(lambda: not any(map(runs, [flow, *up.stage_pids()])), 60)
        print(f"cancel to nothing left: {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 30
        assert up.reaches(run, "Cancelled", "Crashed", "Failed")["name"] == "Cancelled"
        (partial,) = up.store.root.glob("*/*.partial")
        step = newest_step(partial)
        assert step is not None and step >= 3
        record = up.record()
        assert record["status"] == "cancelled" and record["stages"][-1]["checkpoint"] == step
        assert until(lambda: up.tasks(run).get("rl") == ["Checkpointed"], 30), up.tasks(run)

        up.press_retry(run)
        up.reaches(run, "Completed")
        assert up.taken() == ALL_STEPS
        assert starts(tmp_path).count("rl") == 2 and starts(tmp_path).count("sft") == 1
        again = up.record()
        assert again["id"] == record["id"] and again["status"] == "completed" and again["processes"] == 2


def test_a_paused_run_frees_the_device_at_a_checkpoint_and_is_resumed_in_a_new_process(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        flow, began = up.flow_pid(), time.monotonic()
        up.press_pause(run, timeout_s=20.0)
        assert until(lambda: not any(map(runs, up.stage_pids())), 60)
        print(f"pause to device free: {time.monotonic() - began:.1f} s")
        state = up.reaches(run, "Checkpointed")
        assert state["type"] == "PAUSED" and state["state_details"]["pause_timeout"] is None
        assert state["message"].startswith("Checkpointed at step ") and "of rl; the device is free" in state["message"]
        assert until(lambda: not runs(flow), 30)
        record = up.record()
        assert record["status"] == "paused" and record["paused"]["stage"] == "rl"
        time.sleep(25)  # longer than the UI's own limit
        assert up.state(run)["name"] == "Checkpointed"

        began = time.monotonic()
        up.press_resume(run)
        assert until(lambda: starts(tmp_path).count("rl") == 2, 60)
        print(f"resume to the stage's start: {time.monotonic() - began:.1f} s")
        up.reaches(run, "Completed")
        assert up.taken() == ALL_STEPS
        assert up.record()["id"] == record["id"] and up.record()["status"] == "completed"
        assert until(lambda: up.tasks(run)["rl"] == ["Checkpointed", "Completed"], 30), up.tasks(run)
        assert starts(tmp_path).count("sft") == 1


def test_a_second_run_waits_and_says_behind_whom(tmp_path: Path) -> None:
    with Up(tmp_path, "pretrain:train rl:train") as up:
        first = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        ahead = up.record()["id"]
        second = up.submit({"overrides": ["seed=3"]})
        state = up.reaches(second, "Waiting")
        assert state["type"] == "RUNNING"
        assert f"waits for the device behind {ahead} (" in state["message"]
        assert up.state(first)["name"] == "Running"
        up.press_cancel(second)
        up.reaches(second, "Cancelled")
        up.reaches(first, "Completed")


def test_a_refused_release_and_a_failed_run_have_their_names_and_a_retry_resumes(tmp_path: Path) -> None:
    with Up(tmp_path, "release:refuse") as up:
        run = up.submit()
        state = up.reaches(run, "GateFailed", "Failed", "Completed")
        assert state["name"] == "GateFailed" and state["type"] == "FAILED" and "gates: 1 of 1" in state["message"]
        assert until(lambda: up.tasks(run).get("release") == ["GateFailed"], 30), up.tasks(run)


def test_kill_minus_9_of_the_flow_is_a_crash_that_a_retry_resumes(tmp_path: Path) -> None:
    with Up(tmp_path, "rl:train") as up:
        run = up.submit()
        assert until(lambda: up.steps() >= 3, 120), up.said()
        os.kill(up.flow_pid(), signal.SIGKILL)
        assert until(lambda: not any(map(runs, up.stage_pids())), 60)
        up.reaches(run, "Crashed")
        (partial,) = up.store.root.glob("*/*.partial")
        assert (newest_step(partial) or 0) >= 3
        up.press_retry(run)
        up.reaches(run, "Completed")
        assert up.taken() == ALL_STEPS and up.record()["status"] == "completed"
