"""`derive pause` and `derive resume` in a terminal, over the fake stages."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from flows.pause import newest_step, pause_run, resume_run
from flows.runs import all_runs
from flows.space import plan_space
from flows.store import Store
from tests.e2e.fake_stage import NUM_STEPS
from tests.e2e.flow_fixtures import runs, start_driver, starts, until


def status(store: Store) -> str:
    found = all_runs(store)
    return str(found[-1]["status"]) if found else ""


@pytest.mark.slow
def test_a_paused_run_stops_at_a_checkpoint_and_goes_on_in_a_new_process_with_every_step_taken_once(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "store")
    flow = start_driver(tmp_path, "rl:train")
    assert until(lambda: any(store.root.glob("*/*.partial/progress.jsonl")), 60)
    time.sleep(0.5)
    pid = int((tmp_path / "starts").read_text().split()[-1])
    assert "stops at its next checkpoint" in pause_run(store, None)
    assert until(lambda: status(store) == "paused", 60)
    assert not runs(pid) and runs(flow.pid)
    record = all_runs(store)[-1]
    (partial,) = store.root.glob("*/*.partial")
    assert record["paused"] == {"stage": "rl", "step": newest_step(partial), "in_place": True}
    kept = {folder.path.name: folder.keep for folder in plan_space(store, 0, 0.0).folders}
    assert kept[partial.name] == f"run {record['id']} is paused"
    with pytest.raises(UserError, match="is paused; only a running one can be paused"):
        pause_run(store, None)
    assert resume_run(store, None) == f"{record['id']} goes on"
    assert flow.wait(120) == 0
    (taken,) = store.root.glob("*/*/model/taken")
    assert json.loads(taken.read_text()) == list(range(1, NUM_STEPS + 1))
    assert starts(tmp_path) == ["problems", "sft", "rl", "rl", "evaluate", "release"]
    assert status(store) == "completed" and "paused" not in all_runs(store)[-1]


@pytest.mark.slow
def test_a_paused_run_whose_process_dies_is_interrupted_and_is_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    flow = start_driver(tmp_path, "rl:train")
    assert until(lambda: any(store.root.glob("*/*.partial/progress.jsonl")), 60)
    pause_run(store, None)
    assert until(lambda: status(store) == "paused", 60)
    flow.kill()
    flow.wait()
    assert status(store) == "interrupted"
    with pytest.raises(UserError, match="is interrupted, not paused; run `derive run .*` again: it goes"):
        resume_run(store, None)
    assert start_driver(tmp_path, "").wait(120) == 0


def test_what_does_not_run_cannot_be_paused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RUN: there are no runs"):
        pause_run(Store(tmp_path), None)
