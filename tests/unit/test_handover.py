"""A later process of a flow run takes over from an earlier one only once that has ended; with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import handover, pause, runs
from flows.store import Store
from tests.e2e.flow_fixtures import ROOT, until

EARLIER = """
import sys, time
from types import SimpleNamespace
from flows import pause, runs
from flows.link import Link
from flows.pause import Stopped, Suspended
from flows.store import Store
store = Store(sys.argv[1])
record = {"id": "run", "recipe": "r", "created": "1", "status": "running", "seconds": 0.0, "metrics": {},
          "release": None, "report": None, "error": None, "stages": [], "process": runs.this_process(),
          "flow_run": {"id": "flow"}}
session = SimpleNamespace(store=store, record=record, waiting="", asks=False, prefect_alive=lambda: True, hold=None,
                          on_waiting=None, note=print)
link = Link(session, "flow", True, "http://127.0.0.1:1/api")
runs.save(store, record)
while not pause.asked(session):
    time.sleep(0.02)
time.sleep(float(sys.argv[2]))
try:
    link.hold(session, Stopped("rl", 4))
except Suspended:
    runs.save(store, record)
time.sleep(float(sys.argv[3]))
"""
"""A run's process that takes its time to write a checkpoint, and then to end."""

LATER = """
import os, sys, time
from types import SimpleNamespace
from flows import handover, pause, runs
from flows.store import Store
def say(text):
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()} {text}\\n")
store = Store(sys.argv[1])
record = {"id": f"other-{os.getpid()}", "recipe": "r", "created": "2", "status": "running", "seconds": 0.0,
          "metrics": {}, "release": None, "report": None, "error": None, "stages": [], "process": runs.this_process(),
          "flow_run": {"id": "flow"}}
session = SimpleNamespace(store=store, record=record)
handover.take_up(session, "flow")
say("begins")
time.sleep(1.0)
runs.save(store, record)
while not pause.asked(session):
    time.sleep(0.02)
say("ends")
"""
"""A process that goes on with a run until it is asked to stop."""


def earlier(root: Path, stops_s: float, ends_s: float) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    words = [sys.executable, "-c", EARLIER, str(root), str(stops_s), str(ends_s)]
    return subprocess.Popen(words, cwd=ROOT, env={**environment, "PREFECT_API_URL": "http://127.0.0.1:1/api"})


def session_of(store: Store) -> Any:
    record = {
        "id": "other", "recipe": "r", "created": "2", "status": "running", "seconds": 0.0, "metrics": {},
        "release": None, "report": None, "error": None, "stages": [], "process": runs.this_process(),
        "flow_run": {"id": "flow"},
    }  # fmt: skip
    return SimpleNamespace(store=store, record=record)


def test_the_later_process_waits_for_the_earlier_ones_end_and_takes_its_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with earlier(tmp_path, 1.0, 1.0) as one:
        assert until(lambda: bool(runs.all_runs(store)), 120)
        said: list[str] = []
        session = session_of(store)
        handover.take_up(session, "flow", said.append)
        assert one.wait(5) == 0  # what is left of its threads
        assert said == [f"waits for process {one.pid}, which stops this run at a checkpoint", ""]
    assert session.record["id"] == "run" and session.record["processes"] == 2
    assert runs.all_runs(store) == [session.record] and not pause.path_of(store, "run").exists()


def test_a_killed_process_is_not_waited_for_and_one_of_another_machine_cannot_be(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with earlier(tmp_path, 600.0, 0.0) as one:
        assert until(lambda: bool(runs.all_runs(store)), 120)
        one.kill()
    session = session_of(store)
    handover.take_up(session, "flow")
    assert session.record["id"] == "run"
    (record,) = runs.all_runs(store)
    assert record == session.record  # whoever looks sees who works on it now
    runs.save(store, {**record, "status": "running", "process": {**record["process"], "host": "elsewhere"}})
    session = session_of(store)
    handover.take_up(session, "flow")
    assert session.record["id"] == "other"  # the stage's lease keeps the two apart


def test_of_two_later_processes_one_works_at_a_time(tmp_path: Path) -> None:
    """A run was retried while its earlier process still stopped, and once more: both wait for the same end."""
    store, said = Store(tmp_path), tmp_path / "said"

    def lines() -> list[str]:
        return said.read_text().splitlines() if said.exists() else []

    with earlier(tmp_path, 2.0, 0.0):
        assert until(lambda: bool(runs.all_runs(store)), 120)
        words = [sys.executable, "-c", LATER, str(tmp_path), str(said)]
        both = [subprocess.Popen(words, cwd=ROOT) for _ in range(2)]
        try:
            assert until(lambda: len(lines()) >= 3, 120), lines()  # one after the other, or both at once
        finally:
            for one in both:
                one.kill()
                one.wait()
    (first, began), (again, ended), (second, began_then) = map(str.split, lines()[:3])
    assert (began, ended, began_then) == ("begins", "ends", "begins") and first == again != second
    assert [record["id"] for record in runs.all_runs(store)] == ["run"]


def test_whoever_has_begun_is_known_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    assert not handover.has_process(store, "a")
    handover.announce(store, "a")
    assert handover.has_process(store, "a") and not handover.has_process(store, "b")
    monkeypatch.setattr(runs, "lives", lambda process: False)
    assert not handover.has_process(store, "a")
    handover.announce(store, "b")  # clears what the dead have left
    assert [path.stem for path in (store.root / "runs" / "processes").iterdir()] == ["b"]
