"""Run records: `ROOT/runs/RUN-ID.json`, one per run, rewritten after every stage.

    {"id", "recipe", "base", "status", "created", "seconds", "overrides", "machine", "seed",
     "stages": [{"id", "kind", "digest", "folder", "reused", "seconds", "metrics", "status"}],
     "planned": digests of all stages, "release": folder or null, "metrics": {...}, "error": text or null,
     "report": path or null, "process": {"host", "pid", "started"}}

Status is `running`, `paused` (`paused` says where: its process waits, or has ended and another one will go on),
`completed`, `failed`, `cancelled`, or, as read back, `interrupted`: the record says running and its process is gone.
`flow_run` is Prefect's, if there was one, and `processes` counts those that worked on it. `metrics` sums up the
evaluation. The recipe itself lies beside it as RUN-ID.recipe.yaml.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.schema import Recipe
from configs.stage import write_json_atomic, write_text_atomic
from flows.store import Store, full_disk_is_the_users


def new_record(recipe: Recipe, overrides: list[str], machine: str) -> dict[str, Any]:
    """The record of a run that is about to start."""
    now = datetime.now(UTC)
    slug = re.sub(r"[^a-z0-9]+", "-", recipe.name.lower()).strip("-")[:40] or "run"
    return {
        "id": f"{now:%Y%m%d-%H%M%S}-{slug}-{secrets.token_hex(2)}",
        "recipe": recipe.name,
        "title": recipe.title,
        "base": recipe.base,
        "seed": recipe.seed,
        "status": "running",
        "created": now.isoformat(timespec="milliseconds"),
        "seconds": 0.0,
        "overrides": list(overrides),
        "machine": machine,
        "stages": [],
        "release": None,
        "metrics": {},
        "error": None,
        "report": None,
        "process": this_process(),
    }


def save(store: Store, record: dict[str, Any], recipe: Recipe | None = None) -> None:
    """Write the record, and once the recipe beside it."""
    with full_disk_is_the_users(store.root):
        write_json_atomic(store.root / "runs" / f"{record['id']}.json", record)
        if recipe is not None:
            # JSON is YAML: the file can be run again as a preset.
            write_text_atomic(recipe_path(store, record["id"]), recipe.model_dump_json(indent=2) + "\n")


def recipe_path(store: Store, run_id: str) -> Path:
    """Where a run's resolved recipe lies."""
    return store.root / "runs" / f"{run_id}.recipe.yaml"


def all_runs(store: Store) -> list[dict[str, Any]]:
    """All records, newest last. A torn or foreign file is left out."""
    records = []
    for path in (store.root / "runs").glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if _is_record(record):
            records.append(_with_true_status(record))
    return sorted(records, key=lambda record: (record["created"], record["id"]))


def _is_record(value: Any) -> bool:
    """Whether a file's content has what lists and reports of runs read."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("id", "recipe", "created", "status"))
        and isinstance(value.get("seconds"), (int, float))
        and all(isinstance(value.get(key), dict) for key in ("metrics", "process"))
        and all(key in value for key in ("release", "report", "error"))
        and isinstance(value.get("stages"), list)
        and all(
            isinstance(each, dict) and {"id", "kind", "status", "reused"} <= each.keys() for each in value["stages"]
        )
    )


def find_run(store: Store, run_id: str | None) -> dict[str, Any]:
    """A run by its id or the beginning or end of it; the newest if none is named.

    Raises:
        UserError: when there is none, or several fit.
    """
    records = all_runs(store)
    if not records:
        raise UserError(
            f"RUN: there are no runs in {store.root}; start one with `derive math`, or name a store with --store"
        )
    if run_id is None:
        return records[-1]
    exact = [record for record in records if record["id"] == run_id]
    fitting = exact or [r for r in records if r["id"].startswith(run_id) or r["id"].endswith(run_id)]
    if len(fitting) != 1:
        known = ", ".join(record["id"] for record in records[-5:])
        raise UserError(f"RUN: {run_id!r} fits {len(fitting)} runs; the newest are {known}")
    return fitting[0]


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation that a list of runs shows: pass@1 and pass@k by model, floor, gains."""
    models = results.get("models", {})
    return {
        "pass@1": {name: facts.get("pass@1") for name, facts in models.items()},
        "pass@k": {name: facts.get("pass@k") for name, facts in models.items()},
        "bits_per_byte": {name: facts.get("bits_per_byte") for name, facts in models.items()},
        "floor": (results.get("floor") or {}).get("value"),
        "gains": results.get("gains", {}),
        "overlap": results.get("overlap"),
    }


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; tells it from a later process with the same number.

    None where there is none, or it has ended and only its parent does not know yet.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def this_process() -> dict[str, Any]:
    """What names this process, here and for as long as the machine is up."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid())}


def lives(process: dict[str, Any]) -> bool:
    """Whether a process of this machine, as `this_process` named it, has not ended."""
    started = process_start(process.get("pid", 0))
    return started is not None and started == process.get("started")


def _with_true_status(record: dict[str, Any]) -> dict[str, Any]:
    process = record.get("process") or {}
    is_here = record["status"] == "running" or (record["status"] == "paused" and record["paused"]["in_place"])
    if is_here and process.get("host") == socket.gethostname() and not lives(process):
        return {**record, "status": "interrupted"}
    return record


def elapsed(began: float) -> float:
    """Seconds since a reading of the monotonic clock, to the millisecond."""
    return round(time.monotonic() - began, 3)
