"""Setting states true: what Prefect shows of a run that has ended, by the run's own record.

A run whose server was away when it ended, or that died with its machine, would be shown as running for ever, or as
crashed although it was completed. The store knows better. `derive up` looks at its start and every minute after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows import runs
from flows.link import ENDED, call, read_state, set_state, settle_tasks
from flows.store import Store
from flows.up import NO_HEARTBEAT

NUM_LOOKED_AT = 200
"""Newest runs of a store."""
STATES = {
    "completed": ("COMPLETED", "Completed", "told by the run's record"),
    "failed": ("FAILED", "Failed", ""),
    "cancelled": ("CANCELLED", "Cancelled", "told by the run's record"),
    "interrupted": ("CRASHED", "Crashed", "its process is gone; Retry, or the same run again, resumes it"),
}
"""What a record's status means in Prefect. A run that goes on or is paused is left alone."""
OPEN = ("RUNNING", "CANCELLING", "PAUSED")
"""States that a run which has ended must not have. A scheduled one will run again."""


def reconcile(store: Store, settled: set[str] | None = None) -> list[str]:
    """Set the states of runs that have ended; a sentence for each that was changed.

    Args:
        store: Whose runs.
        settled: What need not be looked at again; what was found right is added.
    """
    newest: dict[str, dict[str, Any]] = {}
    for record in runs.all_runs(store)[-NUM_LOOKED_AT:]:
        if isinstance(record.get("flow_run"), dict):
            newest[str(record["flow_run"]["id"])] = record
    said = []
    for flow_run, record in newest.items():
        known = f"{flow_run} {record['status']} {record.get('processes', 1)}"  # a retry is another process
        if record["status"] == "running" or (settled is not None and known in settled) or _lives(record):
            continue
        text = _settle(flow_run, record) if record["status"] in STATES else _end_paused(store, flow_run, record)
        if text:
            said.append(text)
        if settled is not None and record["status"] == "completed":  # any other may be retried
            settled.add(known)
    return said


def _lives(record: Mapping[str, Any]) -> bool:
    """Its process has written its last word to the record, but not yet to Prefect."""
    process = record["process"]
    return runs.process_start(process.get("pid", 0)) == process.get("started")


def _state(flow_run: str) -> dict[str, Any]:
    """The flow run's state; empty where this server has no such run (it is another's, or was deleted)."""
    try:
        return read_state(flow_run)
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            return {}
        raise


def _end_paused(store: Store, flow_run: str, record: dict[str, Any]) -> str:
    """A paused run without a process that was cancelled: nobody else would end it."""
    if _state(flow_run).get("type") != "CANCELLING":
        return ""
    record.update(status="cancelled", error="cancelled")
    runs.save(store, record)
    set_state(flow_run, "CANCELLED", "Cancelled", "cancelled while it was paused")
    return f"run {record['id']} was cancelled while it was paused"


def _was_to_start(flow_run: str) -> bool:
    """Whether the state before the last one was a scheduled one, in which nothing runs that could have a heartbeat."""
    states = sorted(call("GET", f"/flow_run_states/?flow_run_id={flow_run}"), key=lambda one: str(one["timestamp"]))
    return len(states) > 1 and states[-2]["type"] == "SCHEDULED"


def _settle(flow_run: str, record: Mapping[str, Any]) -> str:
    state = _state(flow_run)
    if state.get("type") == "CRASHED" and state.get("message") == NO_HEARTBEAT and _was_to_start(flow_run):
        set_state(flow_run, "SCHEDULED", "AwaitingRetry", "it was about to be started again")
        return f"run {record['id']} was about to be started again; it still is"
    kind, name, message = STATES[record["status"]]
    # From a terminal, a cancelled run ends like one that crashed: no runner of Prefect's is there to tell.
    own = record["status"] == "completed" or (
        record["status"] == "cancelled" and not record["flow_run"].get("has_deployment")
    )
    is_wrong = state.get("type") in OPEN or (state.get("type") == "CRASHED" and own)
    if is_wrong:
        set_state(flow_run, kind, name, str(record.get("error") or message))
    if is_wrong or state.get("type") in ENDED:
        settle_tasks(flow_run, record)
    return f"run {record['id']} was shown as {state.get('name')}; it is {name}" if is_wrong else ""
