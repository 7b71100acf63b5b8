"""What a run and a Prefect server tell one another about pauses, in the orders in which it can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import link, pause
from flows.pause import Stopped, Suspended
from flows.store import Store


class FakeServer:
    """One flow run's state, and how often it was set."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"id": "s0", "type": "RUNNING", "name": "Running", "state_details": {}}
        self.said: list[str] = []
        self.lose = 0

    def read(self, flow_run: str) -> dict[str, Any]:
        return dict(self.state)

    def set(self, flow_run: str, kind: str, name: str, message: str, **details: Any) -> None:
        if self.lose:
            self.lose -= 1
            raise OSError("away")
        self.said.append(f"{kind} {name}")
        self.state = {"id": f"s{len(self.said)}", "type": kind, "name": name, "message": message, "state_details": {}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    made = FakeServer()
    monkeypatch.setattr(link, "read_state", made.read)
    monkeypatch.setattr(link, "set_state", made.set)
    monkeypatch.setattr(link, "_end_heartbeats", lambda: None)
    monkeypatch.setattr(link, "POLL_S", 0.01)
    monkeypatch.setattr(pause, "POLL_S", 0.01)
    return made


@pytest.fixture
def session(tmp_path: Path) -> Any:
    store = Store(str(tmp_path))
    (tmp_path / "runs").mkdir()
    record = {"id": "run", "status": "running", "stages": []}
    return SimpleNamespace(
        store=store, record=record, waiting="", prefect_alive=lambda: True, hold=None, on_waiting=None, note=print
    )


@pytest.fixture
def linked(server: FakeServer, session: Any, request: pytest.FixtureRequest) -> Iterator[link.Link]:
    made = link.Link(session, "flow", request.param, "http://127.0.0.1:1/api")
    made.close()  # its thread; the tests call what it would
    yield made


both = pytest.mark.parametrize("linked", [True, False], indirect=True, ids=["served", "terminal"])


@both
def test_a_run_that_was_resumed_before_its_stage_had_stopped_just_goes_on(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    pause.ask(session.store, "run")
    pause.withdraw(session.store, "run")
    linked.hold(session, Stopped("rl", 4))
    assert server.said == [] and session.record["status"] == "running"


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_served_run_leaves_only_once_the_server_says_paused(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    pause.ask(session.store, "run")
    server.lose = 1  # the first word is lost
    with pytest.raises(Suspended) as suspended:
        linked.hold(session, Stopped("rl", 4))
    assert suspended.value.state["type"] == "PAUSED" and server.said == [f"PAUSED {link.CHECKPOINTED}"]
    assert session.record["status"] == "paused" and not pause.asked(session)


@pytest.mark.parametrize("linked", [False], indirect=True)
def test_a_lost_word_of_the_pause_is_no_resume(linked: link.Link, session: Any, server: FakeServer) -> None:
    pause.ask(session.store, "run")
    server.lose = 1
    looks: list[str] = []
    look = linked._look_for_resume

    def counted() -> None:
        looks.append(server.state["type"])
        if len(looks) == 4:
            server.state = {"id": "ui", "type": "RUNNING", "name": "Running", "state_details": {}}  # somebody's Resume
        look()

    linked._look_for_resume = counted  # type: ignore[method-assign]
    linked.hold(session, Stopped("rl", 4))
    assert looks[0] == "RUNNING" and looks[1:3] == ["PAUSED", "PAUSED"] and len(looks) == 4
    assert not pause.asked(session)


@both
def test_the_thread_says_nothing_while_a_pause_is_told(linked: link.Link, session: Any, server: FakeServer) -> None:
    session.waiting = "waits for the device"
    linked._exchange()
    assert server.said == [f"RUNNING {link.WAITING}"]
    linked._holding, session.waiting = True, ""
    linked._exchange()
    assert server.said == [f"RUNNING {link.WAITING}"]
