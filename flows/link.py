"""What a run and its flow run in Prefect say to one another: pauses, waiting, and how it ended.

Prefect's own pause acts between tasks only, and fails a run that nobody resumes within five minutes. Here a thread
reads the flow run's state every few seconds. A pause becomes the same file that `derive pause` makes
(`flows/pause.py`); once the stage has stopped the state is `Checkpointed`, which never runs out. A run of a deployment
then ends its process, so that it takes no place among the runs, and *Resume* starts another one, also after the machine
was started anew; a run from a terminal waits where it is. A stage that waits for its devices makes the run's state
`Waiting`.

A run outlives its server. When the server is away at the end, the run waits for it (`FINISH_LIMIT_S`) so that its last
state arrives; `derive up` sets true what did not (`flows/reconcile.py`). Every call may fail, and costs a state then.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from configs.errors import UserError
from flows import pause, runs
from flows.outlive import outlive_readers
from flows.pause import Stopped, Suspended
from flows.server import healthy
from flows.stages import Session

POLL_S = 3.0
LONGEST_POLL_S = 30.0
REQUEST_LIMIT_S = 10.0
SUSPEND_LIMIT_S = 30.0
FINISH_LIMIT_S = 600.0
CHECKPOINTED, WAITING = "Checkpointed", "Waiting"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


def call(method: str, path: str, body: Any = None) -> Any:
    """The server's answer. Raises whatever goes wrong; asks once."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": REQUEST_LIMIT_S}, sync_client=True) as client,
    ):
        answer = client.request(method, path, json=body)  # type: ignore[arg-type]
        answer.raise_for_status()
        return answer.json() if answer.content else None


def read_state(flow_run: str) -> dict[str, Any]:
    """A flow run's state; empty where it has none."""
    return dict(call("GET", f"/flow_runs/{flow_run}").get("state") or {})


def set_state(flow_run: str, kind: str, name: str, message: str, **details: Any) -> None:
    """Set a flow run's state, whatever it was."""
    state = {"type": kind, "name": name, "message": message, "state_details": details}
    call("POST", f"/flow_runs/{flow_run}/set_state", {"state": state, "force": True})


def resume(flow_run: Mapping[str, Any]) -> None:
    """Let a suspended flow run go on. Raises UserError where its server does not do it."""
    url = str(flow_run["api"])
    os.environ.setdefault("PREFECT_API_URL", url)
    try:
        answer = call("POST", f"/flow_runs/{flow_run['id']}/resume", {})
    except Exception as error:
        raise UserError(f"RUN: its Prefect server at {url} does not answer ({type(error).__name__}); start it with "
                        "`derive up`, then resume again") from error  # fmt: skip
    if answer["status"] != "ACCEPT":
        raise UserError(f"RUN: Prefect does not resume it: {(answer.get('details') or {}).get('reason')}; look at its "
                        "page")  # fmt: skip


def open_link(session: Session) -> Link | None:
    """The link of the flow run that is current here; goes on with the record of its earlier process. None without."""
    from prefect.context import FlowRunContext

    flow_run = getattr(FlowRunContext.get(), "flow_run", None)
    url = os.environ.get("PREFECT_API_URL")
    if flow_run is None or url is None:
        return None
    take_up(session, str(flow_run.id))
    if flow_run.deployment_id is not None:
        outlive_readers()
    return Link(session, str(flow_run.id), flow_run.deployment_id is not None, url)


class Link:
    """The thread of one run. Close it, always."""

    def __init__(self, session: Session, flow_run: str, has_deployment: bool, url: str) -> None:
        self.session, self.flow_run, self.has_deployment, self.url = session, flow_run, has_deployment, url
        self.was_away = False
        """Whether the server did not answer once."""
        self._server_is_up = session.prefect_alive  # only a server of the run's own is ever lost for good
        self._holding, self._confirmed = False, False
        self._lock = threading.Lock()
        """Held while the thread looks and answers, so that it says nothing that a pause has overtaken."""
        self._seen: set[str] = set()
        """Ids of paused states that were dealt with."""
        self._closing, self._changed = threading.Event(), threading.Event()
        self._shown = ""
        session.record["flow_run"] = {"id": flow_run, "api": url, "has_deployment": has_deployment}
        session.hold = self.hold
        session.on_waiting = self._waits
        self._thread = threading.Thread(target=self._work, daemon=True, name="prefect-state")
        self._thread.start()

    def hold(self, session: Session, stopped: Stopped) -> None:
        """A paused run's wait. Raises Suspended where another process will go on with it."""
        if not pause.asked(session):
            return  # resumed before the stage had stopped
        with self._lock:
            self._holding, self._confirmed = True, False
        if self.has_deployment:
            self._suspend(stopped, SUSPEND_LIMIT_S)
        else:
            self._quietly(self._show_pause, stopped, False)
        next_look = 0.0

        def look() -> None:
            nonlocal next_look
            if time.monotonic() < next_look:
                return
            next_look = time.monotonic() + POLL_S
            if self.has_deployment:  # the server was away: there is no telling a resumed run from a running one
                self._suspend(stopped, 0.0)
            else:
                self._quietly(self._look_for_resume)

        try:
            pause.wait_here(session, stopped, look)
        finally:
            self._holding = False
        self._quietly(self._show_running)

    def finish(self) -> None:
        """Before the run's last state is reported: wait for a server that is away, and tell it what it missed."""
        self.close()
        if not self._server_is_up():
            return
        deadline, told = time.monotonic() + FINISH_LIMIT_S, False
        while not healthy(self.url):
            self.was_away = True
            if time.monotonic() > deadline:
                return
            if not told:
                self.session.note(f"the run is done; waits for Prefect's server at {self.url} to say so")
                told = True
            time.sleep(1.0)
        if self.was_away:
            self._quietly(settle_tasks, self.flow_run, self.session.record)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._changed.set()
        self._thread.join(2.0)

    def _waits(self, text: str) -> None:
        self._changed.set()

    def _suspend(self, stopped: Stopped, limit_s: float) -> None:
        """Hand the run over to whoever resumes it. Returns where the server does not answer in time."""
        _end_heartbeats()  # one after the pause would be taken for a run that has died since
        deadline = time.monotonic() + limit_s
        while True:
            try:
                self._show_pause(stopped, True)
                state = read_state(self.flow_run)
            except Exception:
                self.was_away = True
                if time.monotonic() >= deadline:
                    return
                time.sleep(1.0)
                continue
            if state["type"] == "CANCELLING":
                return  # its end is near
            if state["type"] == "RUNNING" and time.monotonic() < deadline:  # the pause was not taken
                time.sleep(0.2)
                continue
            record = self.session.record
            record.update(status="paused", paused=pause.described(stopped, in_place=False))
            pause.withdraw(self.session.store, record["id"])
            raise Suspended(state)

    def _show_pause(self, stopped: Stopped, in_new_process: bool) -> None:
        state = read_state(self.flow_run)
        if state["type"] in ("RUNNING", "PAUSED"):  # else it was resumed or cancelled meanwhile
            message = f"{str(stopped)[0].upper()}{str(stopped)[1:]}; Resume goes on from there"
            set_state(self.flow_run, "PAUSED", CHECKPOINTED, message, pause_reschedule=in_new_process)

    def _show_running(self) -> None:
        state = read_state(self.flow_run)
        if state["type"] == "PAUSED":  # it was resumed by `derive resume`
            self._seen.add(state["id"])
            set_state(self.flow_run, "RUNNING", "Running", "")

    def _look_for_resume(self) -> None:
        state = read_state(self.flow_run)
        if state["type"] == "PAUSED":
            self._confirmed = True
        elif state["type"] == "RUNNING" and not self._confirmed:  # what was said of the pause got lost
            set_state(self.flow_run, "PAUSED", CHECKPOINTED, "Resume goes on", pause_reschedule=False)
        elif state["type"] == "RUNNING":
            pause.withdraw(self.session.store, self.session.record["id"])
        elif state["type"] in ("CANCELLING", "CANCELLED"):
            os.kill(os.getpid(), signal.SIGTERM)

    def _quietly(self, work: Any, *given: Any) -> None:
        try:
            work(*given)
        except Exception:
            self.was_away = True

    def _work(self) -> None:
        pause_s = POLL_S
        while not self._closing.is_set():
            try:
                self._exchange()
                pause_s = POLL_S
            except Exception:  # the server is away, or busy
                self.was_away = True
                pause_s = min(LONGEST_POLL_S, 2 * pause_s)
            self._changed.wait(pause_s)
            self._changed.clear()

    def _exchange(self) -> None:
        with self._lock:
            if not self._holding:
                self._look()

    def _look(self) -> None:
        state = read_state(self.flow_run)
        kind, asks = state.get("type"), (state.get("state_details") or {}).get("run_input_keyset")
        if kind == "PAUSED" and not asks and state["id"] not in self._seen and not self._holding:
            self._seen.add(state["id"])
            pause.ask(self.session.store, self.session.record["id"])
        elif kind == "CANCELLING" and not self.has_deployment:  # no runner of Prefect's ends this process
            os.kill(os.getpid(), signal.SIGTERM)
            self._closing.set()
        elif kind == "CRASHED":  # by the automation of `flows/up.py`, when a server comes back and missed heartbeats
            set_state(self.flow_run, "RUNNING", "Running", "its process is alive")
        elif kind == "RUNNING" and self.session.waiting != self._shown:
            text = self.session.waiting
            set_state(self.flow_run, "RUNNING", WAITING if text else "Running", text)
            self._shown = text


def _end_heartbeats() -> None:
    from prefect.context import FlowRunContext
    from prefect.states import Cancelled

    flow_run = getattr(FlowRunContext.get(), "flow_run", None)
    if flow_run is not None:
        flow_run.state = Cancelled()  # only here in the process; Prefect's thread ends with a final state


def settle_tasks(flow_run: str, record: Mapping[str, Any]) -> None:
    """Give task runs that seem to be running, of a run that is not, the state that the run's record has for them."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    entries = {entry["id"]: entry for entry in record["stages"]}
    for found in call("POST", "/task_runs/filter", wanted):
        entry = entries.get(found["name"], {})
        kind, name = {"completed": ("COMPLETED", "Completed"), "failed": ("FAILED", "Failed")}.get(
            entry.get("status", ""), ("CANCELLED", CHECKPOINTED)
        )
        message = f"{str(entry.get('digest', ''))[:12]}; told after Prefect's server was back"
        body = {"state": {"type": kind, "name": name, "message": message}, "force": True}
        call("POST", f"/task_runs/{found['id']}/set_state", body)


def take_up(session: Session, flow_run: str) -> None:
    """Go on with the record of this flow run's earlier process, if it had one: one run, one record."""
    for record in reversed(runs.all_runs(session.store)):
        if (record.get("flow_run") or {}).get("id") == flow_run and record["status"] != "running":
            session.record.update(id=record["id"], created=record["created"])
            session.record["processes"] = record.get("processes", 1) + 1
            pause.withdraw(session.store, record["id"])
            return
