"""Pausing a run: its stage stops at a checkpoint, its devices are free, and the run goes on from there, bit for bit.

A pause is asked for by a file in the run's folder (`derive pause RUN`), or in Prefect's UI (`flows/link.py` makes the
same file). The loop around a stage looks for it several times a second and asks the stage to stop, which a trainer does
after its step (`derivatives/training/stopping.py`); any other stage just ends, and begins again or goes on from what it
has kept. Then the run waits in its process, which holds no device, until the file is gone (`derive resume RUN`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.stage import write_json_atomic
from flows import runs
from flows.store import CHECKPOINTS, Store

if TYPE_CHECKING:
    from flows.stages import Session

FILE = "pause.json"
POLL_S = 0.5
STOP_LIMIT_S = 600.0
"""How long a stage may take to stop by itself for a pause; then it is ended as on a cancellation."""
_STEP = re.compile(r"step-(\d+)")


class Stopped(Exception):
    """A stage was stopped for a pause. `step` is that of its newest checkpoint; None where it keeps none."""

    def __init__(self, stage_id: str, step: int | None) -> None:
        super().__init__(stage_id, step)
        self.stage_id, self.step = stage_id, step

    def __str__(self) -> str:
        where = f"checkpointed at step {self.step} of {self.stage_id}" if self.step is not None else \
            f"before {self.stage_id}"  # fmt: skip
        return f"{where}; the device is free"


class Suspended(Exception):
    """The run goes on in another process, once it is resumed. `state` is Prefect's."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(str(state.get("message") or "suspended"))
        self.state = dict(state)


def path_of(store: Store, run_id: str) -> Path:
    """The file that asks this run to pause."""
    return store.root / "runs" / run_id / FILE


def ask(store: Store, run_id: str, successor: Mapping[str, Any] | None = None) -> None:
    """Ask a run to pause. `successor` names the process that is to go on with it (`flows/handover.py`)."""
    write_json_atomic(path_of(store, run_id), {"asked": time.time(), "successor": successor})


def withdraw(store: Store, run_id: str) -> None:
    """Let a run go on."""
    path_of(store, run_id).unlink(missing_ok=True)


def asked(session: Session) -> bool:
    """Whether this run is to pause."""
    try:
        return path_of(session.store, session.record["id"]).exists()
    except OSError:  # a file system that is away for a moment
        return False


def has_successor(session: Session) -> bool:
    """Whether this run is to pause because another process, which is there already, goes on with it."""
    try:
        asked_by = json.loads(path_of(session.store, session.record["id"]).read_text(encoding="utf-8"))["successor"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(asked_by) and runs.lives(asked_by)


def newest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint in a stage's folder; None where there is none."""
    found = [match[1] for path in (folder / CHECKPOINTS).glob("step-*") if (match := _STEP.fullmatch(path.name))]
    return max(map(int, found), default=None)


def wait_here(session: Session, stopped: Stopped, each: Callable[[], None] = lambda: None) -> None:
    """Say so, and wait until the run may go on; `each` is called all the while, twice a second."""
    record = session.record
    record.update(status="paused", paused=described(stopped))
    runs.save(session.store, record)
    session.note(f"paused: {stopped}; `derive resume {record['id']}` goes on")
    while asked(session):
        each()
        time.sleep(POLL_S)
    record.update(status="running")
    record.pop("paused")
    runs.save(session.store, record)
    session.note(f"{stopped.stage_id}: goes on")


def described(stopped: Stopped, in_place: bool = True) -> dict[str, Any]:
    """What the run's record says of a pause. `in_place`: its process waits, and nothing else can go on with it."""
    return {"stage": stopped.stage_id, "step": stopped.step, "in_place": in_place}


def pause_run(store: Store, run_id: str | None) -> str:
    """`derive pause`: the sentence to print. Raises UserError where there is nothing to pause."""
    record = runs.find_run(store, run_id)
    if record["status"] != "running":
        raise UserError(f"RUN: {record['id']} is {record['status']}; only a running one can be paused")
    ask(store, record["id"])
    return f"{record['id']} stops at its next checkpoint; `derive resume {record['id']}` goes on from there"


def resume_run(store: Store, run_id: str | None, serving: str | None = None) -> str:
    """`derive resume`: the sentence to print. `serving` is the URL of the Prefect server on this store, if one runs.

    Raises UserError where there is nothing to go on with.
    """
    record = runs.find_run(store, run_id)
    waits = path_of(store, record["id"]).exists()
    if record["status"] not in ("paused", "running") or (record["status"] == "running" and not waits):
        remedy = f"run `{record['command']}` again" if record.get("command") else "run the same command again"
        raise UserError(f"RUN: {record['id']} is {record['status']}, not paused; {remedy}: it goes on by itself")
    withdraw(store, record["id"])
    if record["status"] == "paused" and not record["paused"]["in_place"]:
        from flows.link import resume

        resume(record["flow_run"], serving)
    return f"{record['id']} goes on"
