"""What a run and its flow run in Prefect say to one another: pauses, waiting, and how it ended.

Prefect's own pause acts between tasks only, and fails a run that nobody resumes within five minutes. Here a thread
reads the flow run's state every few seconds. A pause becomes the same file that `derive pause` makes
(`flows/pause.py`), and the state `Pausing`, which never runs out, and in which *Resume* and *Cancel* mean this process,
not another one. Once the stage has stopped the state is `Checkpointed`. A run of a deployment then ends its process, so
that it takes no place among the runs, and *Resume* starts another one, also after the machine was started anew; a run
from a terminal waits where it is. A stage that waits for its devices makes the run's state `Waiting`.

A cancellation of a run of a deployment is for Prefect's runner to carry out, by SIGTERM. One that was started anew
after a kill knows of no process of the one before; then the thread sends the signal (`Link._is_to_end`).

A run outlives its server. When the server is away at the end, the run waits for it (`FINISH_LIMIT_S`) so that its last
state arrives; `derive up` sets true what did not (`flows/reconcile.py`). Every call may fail, and costs a state then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from configs.errors import UserError
from flows import pause
from flows.handover import take_up
from flows.outlive import outlive_readers
from flows.pause import Stopped, Suspended
from flows.server import healthy
from flows.stages import Session

POLL_S = 3.0
LONGEST_POLL_S = 30.0
REQUEST_LIMIT_S = 10.0
SUSPEND_LIMIT_S = 30.0
FINISH_LIMIT_S = 600.0
RUNNER_LIMIT_S = 45.0
"""How long Prefect's runner has to end the process of a cancelled run; after 30 s it kills."""
PAUSING, CHECKPOINTED, WAITING = "Pausing", "Checkpointed", "Waiting"
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


def resume(flow_run: Mapping[str, Any], serving: str | None = None) -> None:
    """Let a suspended flow run go on.

    Args:
        flow_run: As the run's record has it.
        serving: URL of the server that runs on the run's store; PREFECT_API_URL goes before it.

    Raises:
        UserError: The server does not do it, does not know the flow run, or does not answer.
    """
    began_on = str(flow_run["api"])
    url = os.environ.get("PREFECT_API_URL") or serving or began_on
    os.environ["PREFECT_API_URL"] = url
    named = "PREFECT_API_URL names" if url not in (serving, began_on) else "that is asked is"
    try:
        answer = call("POST", f"/flow_runs/{flow_run['id']}/resume", {})
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            raise UserError(f"RUN: the Prefect server {named} {url}, which does not know this run; it began on "
                            f"{began_on}. Start the server with that one's database, or name it in PREFECT_API_URL, "
                            "then resume again; or run the same command again, which goes on without it") \
                from error  # fmt: skip
        raise UserError(f"RUN: its Prefect server at {url} does not answer ({type(error).__name__}); start it with "
                        "`derive up`, then resume again") from error  # fmt: skip
    if answer["status"] != "ACCEPT":
        raise UserError(f"RUN: Prefect does not resume it: {(answer.get('details') or {}).get('reason')}; look at its "
                        "page")  # fmt: skip


def current_flow_run() -> str | None:
    """Id of the flow run that this code is part of; None without one, or without a server."""
    from prefect.context import FlowRunContext

    flow_run = getattr(FlowRunContext.get(), "flow_run", None)
    return None if flow_run is None or "PREFECT_API_URL" not in os.environ else str(flow_run.id)


def open_link(session: Session) -> Link | None:
    """The link of the flow run that is current here; goes on with the record of its earlier process. None without."""
    from prefect.context import FlowRunContext

    own = current_flow_run()
    if own is None:
        return None

    def say(text: str) -> None:
        with contextlib.suppress(Exception):
            set_state(own, "RUNNING", WAITING if text else "Running", text)

    context = FlowRunContext.get()
    has_deployment = context is not None and getattr(context.flow_run, "deployment_id", None) is not None
    session.record["flow_run"] = {"id": own, "api": os.environ["PREFECT_API_URL"], "has_deployment": has_deployment}
    take_up(session, own, say)
    _disregard_suspensions(getattr(context, "flow_run_suspension_request", None))
    if has_deployment:
        outlive_readers()
    return Link(session, own, has_deployment, os.environ["PREFECT_API_URL"])


def _disregard_suspensions(request: Any) -> None:
    """Keep Prefect's own observer out of it: what it has once seen suspended, it ends at the next edge of a task.

    It does so also where the run was resumed since, and then for good: no task is a task any more, and a run that has
    completed is shown as paused. The link sees to pauses.
    """
    if request is not None:
        request.mark_requested = lambda state: None
        request._suspended_state = None


class Link:
    """The thread of one run. Close it, always."""

    def __init__(self, session: Session, flow_run: str, has_deployment: bool, url: str) -> None:
        self.session, self.flow_run, self.has_deployment, self.url = session, flow_run, has_deployment, url
        self.was_away = False
        """Whether the server did not answer once."""
        self._server_is_up = session.prefect_alive  # only a server of the run's own is ever lost for good
        self.is_ending = False
        """Whether this process ends itself because its run was cancelled."""
        self._parent, self._cancelling_since = os.getppid(), 0.0
        self._holding, self._confirmed = False, False
        self._lock = threading.Lock()
        """Held while the thread looks and answers, so that it says nothing that a pause has overtaken."""
        self._seen: set[str] = set()
        """Ids of paused states that were dealt with."""
        self._paused_there = False
        """Whether the pause that is asked for comes from the UI, so that it ends when the state is none any more."""
        self._closing, self._changed = threading.Event(), threading.Event()
        self._shown = ""
        session.hold = self.hold
        session.on_waiting = self._waits
        self._thread = threading.Thread(target=self._work, daemon=True, name="prefect-state")
        self._thread.start()

    def hold(self, session: Session, stopped: Stopped) -> None:
        """A paused run's wait. Raises Suspended where another process will go on with it."""
        with self._lock:
            if pause.has_successor(session):
                self._leave(stopped, {"type": "RUNNING", "name": "Running", "message": "another process goes on"})
            self._quietly(self._look)  # whether it was resumed since
            if not pause.asked(session):
                self._quietly(self._show_running)
                return
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
            if pause.has_successor(session):
                self._leave(stopped, {"type": "RUNNING", "name": "Running", "message": "another process goes on"})
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
                if not pause.asked(self.session):
                    return
                state = read_state(self.flow_run)
            except Exception:
                self.was_away = True
                if time.monotonic() >= deadline:
                    return
                time.sleep(1.0)
                continue
            if state["type"] == "CANCELLING":
                self._end_if_cancelled(state["type"])
                return  # its end is near
            if state["type"] == "RUNNING" and time.monotonic() < deadline:  # the pause was not taken
                time.sleep(0.2)
                continue
            self._leave(stopped, state)

    def _leave(self, stopped: Stopped, state: Mapping[str, Any]) -> NoReturn:
        """End this process's part in the run: it is cancelled, or another process goes on. Raises Suspended."""
        record = self.session.record
        if state["type"] == "CANCELLED":  # at once, as Prefect does it with what it takes for suspended
            record.update(status="cancelled", error="cancelled")
        else:
            record.update(status="paused", paused=pause.described(stopped, in_place=False))
        pause.withdraw(self.session.store, record["id"])
        raise Suspended(state)

    def _show_pause(self, stopped: Stopped, in_new_process: bool) -> None:
        state = read_state(self.flow_run)
        self._end_if_resumed(state["type"])
        if not pause.asked(self.session):
            return
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
                self._end_if_cancelled(self._look())

    def _look(self) -> str | None:
        """The type of the run's state as it was found."""
        if pause.has_successor(self.session):
            return None  # it speaks for the run now
        state = read_state(self.flow_run)
        kind: str | None = state.get("type")
        self._end_if_resumed(kind)
        if kind == "PAUSED":
            self._look_at_pause(state)
        elif kind in ("CRASHED", "SCHEDULED"):
            # By the automation of `flows/up.py`, when a server comes back and missed heartbeats; or resumed before the
            # pause was seen here, which would start another process beside this one.
            set_state(self.flow_run, "RUNNING", "Running", "its process is alive")
        elif kind == "RUNNING" and self.session.waiting != self._shown and not self.session.asks:
            text = self.session.waiting
            set_state(self.flow_run, "RUNNING", WAITING if text else "Running", text)
            self._shown = text
        return kind

    def _end_if_cancelled(self, kind: str | None) -> None:
        """End this process, as a runner of Prefect's does, where its run is cancelled and none does."""
        if kind != "CANCELLING":
            self._cancelling_since = 0.0
        if kind in ("CANCELLING", "CANCELLED") and self._is_to_end(kind):
            self.is_ending = True
            self._closing.set()
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_to_end(self, kind: str) -> bool:
        """Whether nobody else ends this process: it has no runner, or that is gone, or does nothing.

        Prefect sets what it takes for suspended to CANCELLED at once, and no runner hears of it.
        """
        now = time.monotonic()
        self._cancelling_since = self._cancelling_since or now
        is_late = now - self._cancelling_since > RUNNER_LIMIT_S
        return kind == "CANCELLED" or not self.has_deployment or os.getppid() != self._parent or is_late

    def _end_if_resumed(self, kind: str | None) -> None:
        """Let the run go on where it was resumed in the UI before its stage had stopped."""
        if self._paused_there and kind in ("RUNNING", "SCHEDULED"):
            self._paused_there = False
            pause.withdraw(self.session.store, self.session.record["id"])

    def _look_at_pause(self, state: Mapping[str, Any]) -> None:
        """A pause while the run goes on: new, or one that is over here."""
        if (state.get("state_details") or {}).get("run_input_keyset"):
            return  # of `flows/approval.py`, which waits for it
        store, run_id = self.session.store, self.session.record["id"]
        if state["name"] in (PAUSING, CHECKPOINTED):
            if not pause.asked(self.session):  # `derive resume`, or its word got lost
                self._paused_there = False
                set_state(self.flow_run, "RUNNING", "Running", "")
            return
        if state["id"] not in self._seen:
            self._seen.add(state["id"])
            pause.ask(store, run_id)
            self._paused_there = True
        # The UI's own has a limit, after which Prefect fails the run, also while its stage writes a checkpoint.
        message = "its stage stops at a checkpoint; Resume goes on, now or then"
        set_state(self.flow_run, "PAUSED", PAUSING, message, pause_reschedule=False)


def _end_heartbeats() -> None:
    from prefect.context import FlowRunContext
    from prefect.states import Cancelled

    flow_run = getattr(FlowRunContext.get(), "flow_run", None)
    if flow_run is not None:
        flow_run.state = Cancelled()  # only here in the process; Prefect's thread ends with a final state


def settle_tasks(flow_run: str, record: Mapping[str, Any]) -> int:
    """Give task runs that seem to go on, of a run that does not, the state that the run's record has for them.

    Returns how many there were.
    """
    entries = {entry["id"]: entry for entry in record["stages"]}
    # The record of a process that was killed knows nothing of the stage that it was at.
    killed: dict[str, Any] = {"status": "running"}
    unknown = killed if record["status"] in ("running", "interrupted") else {}
    tasks = call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
    newest = {task["name"]: task["id"] for task in sorted(tasks, key=lambda task: str(task["created"]))}
    unfinished = [task for task in tasks if task["state_type"] not in ENDED]
    for task in unfinished:
        entry = entries.get(task["name"], unknown) if newest[task["name"]] == task["id"] else killed
        state = {**_state_of(entry), "state_details": {}}
        call("POST", f"/task_runs/{task['id']}/set_state", {"state": state, "force": True})
    return len(unfinished)


def _state_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """A stage's state by its part of the run's record, with the names that `flows/derive.py` gives."""
    status, digest = entry.get("status"), str(entry.get("digest", ""))[:12]
    if status == "completed":
        name = "Reused" if entry.get("reused") else "Completed"
        return {"type": "COMPLETED", "name": name, "message": f"{digest}; told by the run's record"}
    if status == "failed":
        is_refused = entry.get("kind") == "release" and (entry.get("metrics") or {}).get("released") is False
        name = "GateFailed" if is_refused else "Failed"
        return {"type": "FAILED", "name": name, "message": "its stage.log says why; told by the run's record"}
    if status == "running":
        message = "its process is gone; a retry goes on from its last checkpoint"
        return {"type": "CRASHED", "name": "Crashed", "message": message}
    step = entry.get("checkpoint")
    if step is None:
        return {"type": "CANCELLED", "name": "Cancelled", "message": "ended without a checkpoint; it begins again"}
    return {"type": "CANCELLED", "name": CHECKPOINTED, "message": f"step {step}; it goes on from there"}
