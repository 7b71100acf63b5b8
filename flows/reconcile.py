"""Setting states true: what Prefect shows of a run that has ended, by the run's own record.

A run whose server was away when it ended, or that died with its machine, would be shown as running for ever, or as
crashed although it was completed. The store knows better. `derive up` looks at its start and every minute after.

The record's word is an old one where a run is retried or resumed: while the new process prepares (`flows/handover.py`),
and for a moment after any state was set, a run is left alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flows import runs
from flows.handover import has_process
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
YOUNG_S = 30.0
"""A state of this age may be of a process that has just been started and is not known here yet."""
LOOKS = 2
"""How often a completed run must be found right before it is looked at no more: late words may still arrive."""
OPEN = ("RUNNING", "CANCELLING", "PAUSED")
"""States that a run which has ended must not have. A scheduled one will run again."""


def reconcile(store: Store, settled: dict[str, int] | None = None) -> list[str]:
    """Set the states of runs that have ended; a sentence for each that was changed.

    Args:
        store: Whose runs.
        settled: How often each was found right; `LOOKS` times is enough. What was found right is counted.

    Raises:
        Exception: What the server's first failure raised, once all runs were tried.
    """
    newest: dict[str, dict[str, Any]] = {}
    for record in runs.all_runs(store)[-NUM_LOOKED_AT:]:
        if isinstance(record.get("flow_run"), dict):
            newest[str(record["flow_run"]["id"])] = record
    said, counted = [], {} if settled is None else settled
    failure: Exception | None = None
    for flow_run, record in newest.items():
        known = f"{flow_run} {record['status']} {record.get('processes', 1)}"  # a retry is another process
        if record["status"] == "running" or counted.get(known, 0) >= LOOKS or _lives(record):
            continue
        try:
            text, is_right = _look(store, flow_run, record)
        except Exception as error:  # a busy database must not keep the others wrong
            failure = failure or error
            continue
        if text:
            said.append(text)
        if is_right and record["status"] == "completed":  # any other may be retried
            counted[known] = counted.get(known, 0) + 1
    if failure is not None:
        raise failure
    return said


def _look(store: Store, flow_run: str, record: dict[str, Any]) -> tuple[str, bool]:
    """What was changed, in words, and whether all was right."""
    state = _state(flow_run)
    if not state:
        return "", True
    if has_process(store, flow_run) or (state.get("type") in OPEN and _age_s(state) < YOUNG_S):
        return "", False
    if record["status"] == "paused":
        return _end_paused(store, flow_run, record, state), False
    text, num_tasks = _settle(store, flow_run, record, state)
    return text, not text and not num_tasks


def _lives(record: Mapping[str, Any]) -> bool:
    """Its process has written its last word to the record, but not yet to Prefect."""
    return runs.lives(record["process"])


def _age_s(state: Mapping[str, Any]) -> float:
    """Seconds since a state was set; infinite where it does not say."""
    try:
        return time.time() - datetime.fromisoformat(str(state["timestamp"])).timestamp()
    except (KeyError, ValueError):
        return math.inf


def _state(flow_run: str) -> dict[str, Any]:
    """The flow run's state; empty where this server has no such run (it is another's, or was deleted)."""
    try:
        return read_state(flow_run)
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            return {}
        raise


def _end_paused(store: Store, flow_run: str, record: dict[str, Any], state: Mapping[str, Any]) -> str:
    """A paused run without a process that was cancelled: nobody else would end it. Its checkpoint stays.

    One that is shown as running was resumed, and its process died before it had a word in the record.
    """
    if state.get("type") == "RUNNING":
        kind, name, text = STATES["interrupted"]
        set_state(flow_run, kind, name, text)
        settle_tasks(flow_run, record)
        return f"run {record['id']} was shown as {state.get('name')}; it is {name}"
    if state.get("type") not in ("CANCELLING", "CANCELLED"):
        return ""
    record.update(status="cancelled", error="cancelled")
    runs.save(store, record)
    if state["type"] == "CANCELLING":
        set_state(flow_run, "CANCELLED", "Cancelled", "cancelled while it was paused")
    settle_tasks(flow_run, record)
    return f"run {record['id']} was cancelled while it was paused"


def _was_to_start(flow_run: str) -> bool:
    """Whether the state before the last one was a scheduled one, in which nothing runs that could have a heartbeat."""
    states = sorted(call("GET", f"/flow_run_states/?flow_run_id={flow_run}"), key=lambda one: str(one["timestamp"]))
    return len(states) > 1 and states[-2]["type"] == "SCHEDULED"


def _settle(store: Store, flow_run: str, record: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[str, int]:
    """What was changed of the flow run, in words, and how many of its task runs were."""
    if state.get("type") == "CRASHED" and state.get("message") == NO_HEARTBEAT and _was_to_start(flow_run):
        set_state(flow_run, "SCHEDULED", "AwaitingRetry", "it was about to be started again")
        return f"run {record['id']} was about to be started again; it still is", 0
    kind, name, message = STATES[record["status"]]
    text = str(record.get("error") or message)
    if record["status"] in ("failed", "cancelled") and state.get("type") == "RUNNING" and \
            _is_newer(store, record, state):  # fmt: skip
        kind, name, text = STATES["interrupted"]  # a retry that died before it had a word in the record
    if record["status"] == "interrupted" and state.get("type") == "CANCELLING":
        kind, name, text = STATES["cancelled"]  # it was to end
    # From a terminal, a cancelled run ends like one that crashed: no runner of Prefect's is there to tell.
    own = record["status"] == "completed" or (
        record["status"] == "cancelled" and not record["flow_run"].get("has_deployment")
    )
    is_wrong = state.get("type") in OPEN or (state.get("type") == "CRASHED" and own)
    if is_wrong:
        set_state(flow_run, kind, name, text)
    num_tasks = settle_tasks(flow_run, record) if is_wrong or state.get("type") in ENDED else 0
    return f"run {record['id']} was shown as {state.get('name')}; it is {name}" if is_wrong else "", num_tasks


def _is_newer(store: Store, record: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a state was set after the record was written."""
    try:
        written = (store.root / "runs" / f"{record['id']}.json").stat().st_mtime
    except OSError:
        return False
    return time.time() - _age_s(state) > written
