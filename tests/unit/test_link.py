"""What a run and a Prefect server tell one another about pauses, in the orders in which it can go wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prefect
import pytest
from prefect.states import Suspended as Suspended_

from configs.errors import UserError
from flows import link, pause, runs
from flows.pause import Stopped, Suspended
from flows.store import Store


class FakeServer:
    """One flow run's state, and how often it was set."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"id": "s0", "type": "RUNNING", "name": "Running", "state_details": {}}
        self.said: list[str] = []
        self.lose = 0
        self.pressed = 0

    def read(self, flow_run: str) -> dict[str, Any]:
        return dict(self.state)

    def set(self, flow_run: str, kind: str, name: str, message: str, **details: Any) -> None:
        if self.lose:
            self.lose -= 1
            raise OSError("away")
        self.said.append(f"{kind} {name}")
        self.press(kind, name, **details)

    def press(self, kind: str, name: str, **details: Any) -> None:
        """As a person does in the UI."""
        self.pressed += 1
        self.state = {"id": f"s{self.pressed}", "type": kind, "name": name, "message": "", "state_details": details}


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
    waits = {"waiting": "", "asks": False, "hold": None, "on_waiting": None}
    return SimpleNamespace(store=store, record=record, prefect_alive=lambda: True, note=print, **waits)


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


SUSPENDED = {"pause_timeout": "2026-01-01T00:05:00Z", "pause_reschedule": True}


@both
def test_a_pause_of_the_ui_loses_its_limit_and_means_this_process_until_the_stage_has_stopped(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    server.press("PAUSED", "Suspended", **SUSPENDED)
    server.lose = 1
    with pytest.raises(OSError, match="away"):
        linked._exchange()
    assert pause.asked(session)  # whatever becomes of its word
    linked._exchange()
    assert server.said == [f"PAUSED {link.PAUSING}"] and server.state["state_details"] == {"pause_reschedule": False}
    linked._exchange()
    assert len(server.said) == 1


@both
@pytest.mark.parametrize("resumed", ["RUNNING", "SCHEDULED"])
def test_a_resume_while_the_stage_stops_lets_this_process_go_on(
    linked: link.Link, session: Any, server: FakeServer, resumed: str
) -> None:
    """Whether the thread saw it before the stage had stopped or not."""
    for seen_by_the_thread in (True, False):
        server.press("PAUSED", "Suspended", **SUSPENDED)
        linked._exchange()
        assert pause.asked(session)
        server.press(resumed, "Resuming")
        if seen_by_the_thread:
            linked._exchange()
            assert not pause.asked(session)
        linked.hold(session, Stopped("rl", 4))
        assert session.record["status"] == "running" and not pause.asked(session)
        assert server.state["type"] == "RUNNING"


@both
def test_a_resume_at_the_very_end_of_the_stage_is_not_taken_back(
    linked: link.Link, session: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look at the pause, before its checkpoint is told."""
    server.press("PAUSED", "Suspended", **SUSPENDED)
    linked._exchange()
    look = linked._look

    def resumed_then() -> None:
        look()
        server.press("RUNNING", "Running")

    monkeypatch.setattr(linked, "_look", resumed_then)
    (session.store.root / "runs" / "run.json").write_text("{}")
    linked.hold(session, Stopped("rl", 4))
    assert server.state["type"] == "RUNNING" and not pause.asked(session)
    assert session.record["status"] == "running" and server.said == [f"PAUSED {link.PAUSING}"]


@both
def test_derive_resume_while_the_stage_stops_is_told(linked: link.Link, session: Any, server: FakeServer) -> None:
    server.press("PAUSED", "Suspended", **SUSPENDED)
    linked._exchange()
    pause.withdraw(session.store, "run")
    linked._exchange()
    assert server.state["type"] == "RUNNING"


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_resume_before_the_pause_was_seen_starts_no_second_process(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    server.press("SCHEDULED", "Resuming")
    linked._exchange()
    assert server.said == ["RUNNING Running"] and not pause.asked(session)


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_run_that_is_cancelled_while_it_stops_is_cancelled(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    pause.ask(session.store, "run")
    server.press("CANCELLED", "Cancelled")
    with pytest.raises(Suspended):
        linked.hold(session, Stopped("rl", 4))
    assert session.record["status"] == "cancelled" and server.said == [] and not pause.asked(session)


def test_a_cancelled_run_without_a_runner_that_ends_it_ends_itself(
    session: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has none in a terminal; one that was killed is nobody's parent any more; another may do nothing."""
    ended: list[int] = []
    monkeypatch.setattr(link.os, "kill", lambda pid, number: ended.append(number))

    def ends(kind: str, has_deployment: bool, since_s: float = 0.0, is_orphan: bool = False) -> bool:
        server.press("RUNNING", "Running")
        made = link.Link(session, "flow", has_deployment, "http://127.0.0.1:1/api")
        made.close()
        made._exchange()
        server.press(kind, kind.title())
        made._exchange()
        made._cancelling_since -= since_s
        made._parent += is_orphan
        made._exchange()
        was_ended = bool(ended)
        ended.clear()
        assert made.is_ending == was_ended
        return was_ended

    assert ends("CANCELLING", False) and ends("CANCELLED", False) and ends("CANCELLED", True)
    assert not ends("CANCELLING", True) and not ends("CANCELLING", True, link.RUNNER_LIMIT_S - 5)
    assert ends("CANCELLING", True, link.RUNNER_LIMIT_S + 1) and ends("CANCELLING", True, is_orphan=True)
    assert not any(ends(kind, has_deployment, 100, True) for kind in ("RUNNING", "PAUSED", "FAILED", "COMPLETED")
                   for has_deployment in (False, True))  # fmt: skip


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_run_that_is_cancelling_while_it_holds_and_has_no_runner_ends_itself(
    linked: link.Link, session: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def kill(pid: int, number: int) -> None:
        raise Ended

    monkeypatch.setattr(link.os, "kill", kill)
    pause.ask(session.store, "run")
    server.press("CANCELLING", "Cancelling")
    linked._parent = -1
    with pytest.raises(Ended):
        linked.hold(session, Stopped("rl", 4))
    assert linked.is_ending


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_process_with_a_successor_stops_and_says_nothing_of_the_run(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    pause.ask(session.store, "run", runs.this_process())
    for kind in ("PAUSED", "CRASHED", "SCHEDULED", "RUNNING"):
        server.press(kind, kind.title())
        session.waiting = kind
        linked._exchange()
    with pytest.raises(Suspended):
        linked.hold(session, Stopped("rl", 4))
    assert server.said == [] and session.record["status"] == "paused" and not pause.asked(session)
    pause.ask(session.store, "run", {**runs.this_process(), "pid": 2**22 + 1})
    assert not pause.has_successor(session)  # it died; this is a pause like any other


@pytest.mark.parametrize("linked", [True], indirect=True)
def test_a_question_to_a_person_is_no_waiting_state_of_ours(
    linked: link.Link, session: Any, server: FakeServer
) -> None:
    """It would take the place of Prefect's own pause, and with it the answer."""
    session.waiting, session.asks = "release waits for approval", True
    linked._exchange()
    assert server.said == []


class Answering(BaseHTTPRequestHandler):
    """A Prefect server that knows no flow run."""

    def do_GET(self) -> None:
        self.send_response(404 if "csrf" in self.path else 200)  # and its version, for which the client asks first
        self.end_headers()
        self.wfile.write(json.dumps(prefect.__version__).encode())

    def do_POST(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b'{"detail": "Flow run not found"}')

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_resume_on_a_server_that_does_not_know_the_run_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Answering) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url, first = f"http://127.0.0.1:{other.server_port}/api", "http://127.0.0.1:1/api"
        flow_run = {"id": "f" * 8, "api": first}
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        with pytest.raises(UserError, match=f"that is asked is {url}, which does not know .* began on {first}"):
            link.resume(flow_run, serving=url)
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(UserError, match=f"PREFECT_API_URL names {url}, which does not know .* began on {first}"):
            link.resume(flow_run)
        monkeypatch.delenv("PREFECT_API_URL")
        with pytest.raises(UserError, match=f"its Prefect server at {first} does not answer"):
            link.resume(flow_run)
        monkeypatch.delenv("PREFECT_API_URL")
        other.shutdown()


def test_what_prefect_saw_suspended_once_does_not_end_a_run_that_was_resumed() -> None:
    """The names are Prefect's own; with another version of it they may be others."""
    from prefect._flow_run_suspension import FlowRunSuspensionRequest

    request, state = FlowRunSuspensionRequest(), Suspended_(timeout_seconds=300)
    request.mark_requested(state)
    link._disregard_suspensions(request)
    request.raise_if_requested()
    request.mark_requested(state)
    request.raise_if_requested()
    link._disregard_suspensions(None)
