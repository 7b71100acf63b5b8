"""The listener that keeps a run's artifacts, against a server in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.stage import write_json_atomic
from flows.board import Board, host_memory
from flows.board_page import Expected
from flows.board_times import Expectations, _expected, earlier_times
from flows.reporter import Place
from flows.session import prepare
from flows.stages import Session
from flows.store import Artifact
from tests.e2e.flow_fixtures import request, until

RESULTS: dict[str, Any] = {
    "models": {"base": {"pass@1": {"value": 0.2, "low": 0.1, "high": 0.3}},
               "rl": {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}}},
    "gains": {"rl": {"pass@1": {"value": 0.3, "low": 0.2, "high": 0.4}}},
}  # fmt: skip


class Gone(Exception):
    class response:
        status_code = 404


class Memory:
    """A server in memory that counts what it is asked."""

    def __init__(self, fail: Callable[[str], None] = lambda what: None) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.fail = fail

    def create(self, kind: str, key: str, data: Any, description: str, place: Place) -> str:
        self.calls.append(f"create {key}")
        self.fail(f"create {key}")
        name = f"id{len(self.calls)}"
        self.kept[name] = {"kind": kind, "key": key, "data": data, "description": description, "place": place}
        return name

    def update(self, artifact: str, data: Any, description: str) -> None:
        self.calls.append(f"update {artifact}")
        self.fail(f"update {artifact}")
        if artifact not in self.kept:
            raise Gone
        self.kept[artifact].update(data=data, description=description)

    def find(self, prefix: str, place: Place) -> str | None:
        return next((name for name, one in self.kept.items() if one["key"].startswith(prefix)), None)

    def boards(self, keys: list[str]) -> dict[str, str]:
        return {}

    def address(self, artifact: str) -> str:
        return f"/page/{artifact}"

    def data(self, key: str) -> Any:
        return next((one["data"] for one in self.kept.values() if one["key"].startswith(key)), "")

    def one(self, key: str) -> dict[str, Any]:
        (found,) = [one for one in self.kept.values() if one["key"].startswith(key)]
        return found


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return prepare(request(tmp_path))


def entry(session: Session, stage: str, **more: Any) -> dict[str, Any]:
    planned = session.plan.stage(stage)
    return {"id": stage, "kind": planned.stage.kind, "digest": planned.digest, "folder": None, "reused": False,
            "seconds": 2.0, "metrics": {}, "status": "completed", **more}  # fmt: skip


def test_there_is_one_board_that_changes_in_place_and_ends_as_the_summary(session: Session, tmp_path: Path) -> None:
    api, rl = Memory(), session.plan.stage("rl")
    board = Board(session, api, pause_s=0.01)
    assert until(lambda: "board" in str(api.calls), 60)
    first = api.one("board-")["data"]
    assert "· problems → · sft → · rl" in first and "As of " in first
    board.stage_started(rl, tmp_path)
    lines = [{"step": n, "total": 4, "seconds": 1.0 * n, "rl/reward": n / 4} for n in (1, 2)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board.stage_progress(rl, {"step": 2, "total": 4, "seconds": 2.0, "rl/reward": 0.5})
    assert until(lambda: "**50%**, step 2 of 4" in api.data("board-"), 60)
    assert until(lambda: api.data("fake-rl") == 50.0, 60)
    assert "data:image/svg+xml" in api.data("board-")
    assert api.one("board-")["description"].startswith("fake: rl 50%")
    board.stage_ended(rl, entry(session, "rl", folder=str(tmp_path)))
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    record = {**session.record, "status": "completed", "stages": [], "release": str(tmp_path / "release")}
    board.conclude(record, RESULTS, [{"run": "r"}])
    board.close(60)
    data = api.one("board-")["data"]
    assert data.startswith("# ✔ fake: completed") and "+30.0 points [+20.0, +40.0]" in data and "As of" not in data
    card = next(name for name, one in api.kept.items() if one["key"] == "model-card-fake")
    assert api.kept[card]["data"] == "# A model\n" and f"[model card](/page/{card})" in data
    assert api.one("fake-results")["kind"] == "table" and api.one("leaderboard")["data"] == [{"run": "r"}]
    assert api.one("fake-rl")["data"] == 100.0 and "completed in 2.0 s" in api.one("fake-rl")["description"]


def test_nothing_is_sent_while_nothing_changes(session: Session) -> None:
    api = Memory()
    board = Board(session, api, pause_s=0.01)
    assert until(lambda: len(api.calls) == 1, 60)
    board.run.memory = None
    looked = len(board._reporter.pauses)
    assert until(lambda: len(board._reporter.pauses) >= looked + 5, 60)
    board.close(60)
    # The clock's coarse reading may turn in between, at most once in five seconds.
    assert len(api.calls) <= 3


def test_a_run_that_goes_on_takes_its_board_up_again(session: Session) -> None:
    api = Memory()
    Board(session, api, pause_s=0.01).close(60)
    Board(session, api, pause_s=0.01).close(60)
    assert [call for call in api.calls if call.startswith("create")] == [f"create board-{session.record['id']}"]


def test_a_board_that_somebody_deleted_is_made_again(session: Session, tmp_path: Path) -> None:
    api, rl = Memory(), session.plan.stage("rl")
    board = Board(session, api, pause_s=0.01)
    assert until(lambda: len(api.kept) == 1, 60)
    api.kept.clear()
    board.stage_started(rl, tmp_path)
    assert until(lambda: any(one["key"].startswith("board-") for one in api.kept.values()), 60)
    board.close(60)


def test_a_server_that_fails_costs_artifacts_and_nothing_else(session: Session, tmp_path: Path) -> None:
    def fail(what: str) -> None:
        raise SystemExit(what)

    api, rl = Memory(fail), session.plan.stage("rl")
    board = Board(session, api, pause_s=0.01)
    board.stage_started(rl, tmp_path)
    for step in range(1000):
        board.stage_progress(rl, {"step": step, "total": 1000})
        board.note("rl: something")
    board.stage_ended(rl, entry(session, "rl", status="failed"))
    board.conclude({**session.record, "status": "failed", "error": "x"}, None)
    board.close(60)
    assert api.kept == {} and api.calls


def test_what_a_stage_waits_for_is_shown_until_it_goes_on_and_alarms_stay(session: Session, tmp_path: Path) -> None:
    api, rl = Memory(), session.plan.stage("rl")
    board = Board(session, api, pause_s=60.0)
    row = board._rows["rl"]
    board.note("rl: waiting for process 7, which builds the same stage")
    assert row.waits == "waiting for process 7, which builds the same stage"
    board.stage_started(rl, tmp_path)
    assert row.waits == ""
    board.note("rl: waiting: no verdict for 30 s; awaited: t1")
    board.note("rl: drift alarm, step 4: the score rose")
    board.note("rl: no progress for 0:30:00; what each of its threads was doing stands in the log")
    assert row.waits.startswith("waiting: no verdict")
    board.stage_progress(rl, {"step": 1, "total": 4})
    assert row.waits == "" and [alarm.partition(": ")[2][:11] for alarm in row.alarms] == ["drift alarm", "no progress"]
    board.close(60)


def test_a_paused_run_and_one_without_a_device_say_so(session: Session) -> None:
    api = Memory()
    board = Board(session, api, pause_s=0.01)
    session.waiting = "rl waits for the device behind run 7"
    assert until(lambda: "**rl waits for the device behind run 7**" in api.data("board-"), 60)
    session.record["paused"] = {"stage": "rl", "step": 40, "in_place": True}
    assert until(lambda: "paused in rl\\, with a checkpoint of step 40" in api.data("board-"), 60)
    del session.record["paused"]
    session.waiting = ""
    assert until(lambda: "waits" not in api.data("board-"), 60)
    board.close(60)


def test_forgetting_is_an_alarm_where_the_stage_allows_less(session: Session, tmp_path: Path) -> None:
    api, sft = Memory(), session.plan.stage("sft")
    board = Board(session, api, pause_s=0.01)
    assert board._rows["sft"].max_forgetting is not None
    lines = [{"step": n, "total": 4, "seconds": 1.0, "sft/forgetting": 0.4 * n} for n in (1, 2)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board.stage_started(sft, tmp_path)
    assert until(lambda: "of a text rose by" in api.data("board-"), 60)
    board.close(60)
    assert len(board._rows["sft"].alarms) == 1 and "rose by +80.0%" in board._rows["sft"].alarms[0]


def test_earlier_runs_of_the_same_stage_tell_how_long_it_takes(session: Session, monkeypatch: Any) -> None:
    def artifact(stage: str, seconds: float, steps: int | None, machine: str = "cpu", recipe: str = "fake") -> Artifact:
        manifest = {"id": stage, "recipe": recipe, "seconds": seconds, "machine": {"name": machine},
                    "stage_file": {"stage": {"steps": steps} if steps else {}}}  # fmt: skip
        return Artifact("d", Path("x"), manifest)

    found = [artifact("rl", 50.0, 10), artifact("rl", 30.0, 6), artifact("sft", 7.0, None)]
    found += [artifact("evaluate", 9.0, None, machine="one-gpu"), artifact("release", 9.0, None, recipe="other")]
    monkeypatch.setattr(session.store, "artifacts", lambda: iter(found))
    # The newest took 30 s for 6 steps; this recipe has 2.
    source = "as in earlier runs"
    assert earlier_times(session) == {"rl": Expected(10.0, source), "sft": Expected(7.0, source)}


def test_the_forecast_of_a_gpu_profile_is_made_beside_the_run_and_on_cpu_none_is(session: Session) -> None:
    on_cpu = Expectations(session)
    assert on_cpu.look() == {} and on_cpu._process is None
    answer = {"stages": [{"id": "rl", "prediction": {"seconds": 12.5}}, {"id": "sft", "prediction": None}]}
    assert _expected(json.dumps(answer).encode()) == {"rl": Expected(12.5, "by `derive plan`")}
    assert _expected(b"") == _expected(b"[]") == {}
    session.machine = session.machine.model_copy(update={"device": "cuda", "name": "no-such-profile"})
    write_json_atomic(session.store.root / "runs" / "x.json", {})
    beside = Expectations(session)
    assert beside.look() == {} and beside._process is not None
    beside.close()
    assert beside._process.poll() is not None and beside.look() == {}


def test_the_hosts_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n")
    assert host_memory(tmp_path / "meminfo") == (600 * 1024.0, 1000 * 1024.0)
    assert host_memory(tmp_path / "none") is None
