"""One process at a time works on a flow run: who is about to begin, and how a later one takes over from an earlier one.

A run is retried, or resumed, in a process of its own. It says that it is there before it prepares, which may take
minutes (`announce`), so that nobody takes the run for dead (`flows/reconcile.py`). Where an earlier process still
works on the run, because *Resume* was pressed before its stage had stopped, or because missed heartbeats made it look
dead, the later one asks it to stop at a checkpoint, waits for its end, and goes on with its record (`take_up`). Of
several that wait for the same end the first takes the record, and the others wait for its end then.

Not covered: an earlier process on another machine. There the stage's lease keeps two builders apart (`flows/lease.py`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.stage import write_json_atomic
from flows import pause, runs
from flows.store import Store

if TYPE_CHECKING:
    from flows.stages import Session

POLL_S = 0.5
PREPARATION_S = 3600.0
"""How long a process of another machine, which cannot be looked at, is believed to prepare."""


def announce(store: Store, flow_run: str | None) -> None:
    """Say that this process works on a flow run from now on, before it has a record; nothing where there is none."""
    if flow_run is None:
        return
    path = _announcement(store, flow_run)
    for old in path.parent.glob("*.json"):
        if not has_process(store, old.stem):
            old.unlink(missing_ok=True)
    write_json_atomic(path, {**runs.this_process(), "at": time.time()})


def has_process(store: Store, flow_run: str) -> bool:
    """Whether a process has begun with this flow run and still lives."""
    try:
        found = json.loads(_announcement(store, flow_run).read_text(encoding="utf-8"))
        is_here, at = found["host"] == socket.gethostname(), float(found["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return runs.lives(found) if is_here else time.time() - at < PREPARATION_S


def _announcement(store: Store, flow_run: str) -> Path:
    return store.root / "runs" / "processes" / f"{flow_run}.json"


def take_up(session: Session, flow_run: str, say: Callable[[str], None] = lambda text: None) -> None:
    """Go on with the record of this flow run's earlier process, if it had one, once that has ended: one run's record.

    Args:
        session: The later process's; its record takes over the id.
        flow_run: Prefect's id.
        say: Told once what is waited for, and an empty text when it has come.
    """
    told = False
    while (record := _claim(session, flow_run)) is not None:
        pause.ask(session.store, record["id"], runs.this_process())
        if not told:
            say(f"waits for process {record['process']['pid']}, which stops this run at a checkpoint")
            told = True
        time.sleep(POLL_S)
    if told:
        say("")


def _claim(session: Session, flow_run: str) -> dict[str, Any] | None:
    """Put this process into the run's record; nothing but the record of another one, where that still works on it."""
    with _alone(session.store):
        record = _newest(session.store, flow_run)
        if record is not None and _works(record):
            return record
        if record is not None and record["status"] != "running":
            session.record.update(id=record["id"], created=record["created"])
            session.record["processes"] = record.get("processes", 1) + 1
            pause.withdraw(session.store, record["id"])
            runs.save(session.store, session.record)
        return None


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """No other process of this machine is here meanwhile."""
    folder = store.root / "runs" / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _newest(store: Store, flow_run: str) -> dict[str, Any] | None:
    of_it = [record for record in runs.all_runs(store) if (record.get("flow_run") or {}).get("id") == flow_run]
    return of_it[-1] if of_it else None


def _works(record: Mapping[str, Any]) -> bool:
    """Whether another process of this machine has not yet left a run, whatever its record says already."""
    process = record["process"]
    return process.get("host") == socket.gethostname() and process.get("pid") != os.getpid() and runs.lives(process)
