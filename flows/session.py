"""A run from request to record, with or without Prefect around it: `prepare`, then `conduct`.

`prepare` checks everything that can be checked and writes nothing. `conduct` takes the stages one by one and
keeps the run record; how one stage is run is handed in, so that the same code serves the plain sequence and
the Prefect flow (`flows/derive.py`). Whatever happens, the record is finished and the report written.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.budget import parse_budget
from configs.load import default_machine_name, load_machine, load_recipe, verifier_overrides
from configs.schema import Recipe
from configs.settings.machine import Machine
from flows import runs
from flows.budgets import Fitted, fit
from flows.certified import refuse_uncertified
from flows.pause import Suspended
from flows.plan import Plan, PlannedStage, check_stages, cut, make_plan
from flows.stages import Listener, Session, run_stage
from flows.store import Artifact, Store

Step = Callable[[Session, PlannedStage], Artifact]


@dataclass(frozen=True)
class Request:
    """What a person asks for. Empty text means: as the preset or the machine has it."""

    preset: str
    base: str = ""
    overrides: tuple[str, ...] = ()
    machine: str = ""
    store: str = ""
    verifier: str = ""
    """What rewards every rl stage, whatever preset and overrides say."""
    budget: str = ""
    """What all training stages may take together (`configs/budget.py`), whatever preset and overrides say."""
    recipe: Recipe | None = field(default=None, compare=False)
    """A recipe made in memory; `preset` is then the words of the command that made it, such as `sft data.jsonl`."""
    until: tuple[str, ...] = ()
    """Stage ids; with some, only they and what they read are built."""
    modules: Mapping[str, str] | None = None
    """Stage kind -> module of its command; empty takes the project's own."""
    given: Mapping[str, Artifact] | None = field(default=None, compare=False)
    """Stage id -> artifact that is to stand for it."""

    @property
    def written_overrides(self) -> list[str]:
        """Those that are not empty."""
        return [text.strip() for text in self.overrides if text.strip()]

    @property
    def command(self) -> str:
        """The command line that asks for the same again, without machine and store."""
        words = ["derive", "run", self.preset] if self.recipe is None else ["derive", *shlex.split(self.preset)]
        words += ["--base", self.base] if self.base else []
        words += [word for text in self.overrides for word in ("--set", text)]
        words += ["--verifier", self.verifier] if self.verifier else []
        words += ["--budget", self.budget.strip()] if self.budget.strip() else []
        return shlex.join([*words, *(word for name in self.until for word in ("--until", name))])


def prepare(request: Request, listeners: list[Listener] | None = None) -> Session:
    """Load the recipe, resolve base and data, name all stages. Writes nothing, but downloads a hub base.

    Raises:
        UserError: for whatever is wrong with the request.
    """
    machine = load_machine(request.machine or default_machine_name())
    store = Store(request.store or None)
    plan, fitted = resolve(request, store, machine, download=True)
    refuse_uncertified(plan, store)
    record = runs.new_record(plan.recipe, request.written_overrides, machine.name)
    record.update(preset=request.preset, command=request.command, verifier=request.verifier)
    if fitted is not None:
        record["budget"] = fitted.as_record()
    return Session(plan, store, machine, record, list(listeners or []), request.modules)


def resolve(request: Request, store: Store, machine: Machine, download: bool = False) -> tuple[Plan, Fitted | None]:
    """The plan of what is asked for, and what its budget came to. Writes nothing, but downloads a hub base if it may.

    The overrides are applied first, then the choice of a verifier, then the budget.

    Raises:
        UserError: for whatever is wrong with the request.
    """
    budget = parse_budget(request.budget)
    overrides = request.written_overrides

    def planned() -> Plan:
        recipe = request.recipe or load_recipe(request.preset, overrides, request.base or None)
        check_stages(recipe, request.until)  # before a checkpoint is downloaded
        made = make_plan(recipe, store, request.modules, download, request.given)
        return cut(made, request.until) if request.until else made

    if request.verifier:
        recipe = load_recipe(request.preset, overrides, request.base or None)
        overrides = [*overrides, *verifier_overrides(recipe, request.verifier)]
    plan = planned()
    if budget is None:
        return plan, None
    fitted = fit(budget, request.budget, plan, store, machine)
    overrides = [*overrides, *fitted.overrides]
    return planned(), fitted


def conduct(session: Session, step: Step = run_stage) -> dict[str, Any]:
    """Run all stages and keep the record. Returns the record.

    Raises:
        UserError, StageFailed: a stage's, after the record says so.
    """
    record, began = session.record, time.monotonic()
    record["stages"] = []
    record["planned"] = [each.artifact.digest if each.artifact else each.digest for each in session.plan.stages]
    runs.save(session.store, record, session.plan.recipe)
    if record.get("budget"):
        session.note(record["budget"]["said"])
    try:
        for planned in session.plan.stages:
            step(session, planned)
            record["seconds"] = runs.elapsed(began)
            runs.save(session.store, record)
        record["status"] = "completed"
        return record
    except Suspended:
        raise  # the record says that it is paused
    except BaseException as error:
        record["status"] = "failed" if isinstance(error, Exception) else "cancelled"
        record["error"] = (str(error) or type(error).__name__) if isinstance(error, Exception) else "cancelled"
        session.failure = error
        raise
    finally:
        record["seconds"] = runs.elapsed(began)
        _conclude(session)


def results(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last evaluation's results.json of a run, if it got that far, with the models in the recipe's order."""
    for entry in reversed(record["stages"]):
        if entry["kind"] == "evaluate" and entry.get("folder") and entry.get("status", "completed") == "completed":
            found, described = (_read(Path(entry["folder"]) / name) for name in ("results.json", "stage.json"))
            order = [*described.get("stage", {}).get("models", []), *found.get("models", {})]
            return {
                **found,
                "models": _ordered(found.get("models"), order),
                "gains": _ordered(found.get("gains"), order),
            }
    return None


def _ordered(table: Any, order: Iterable[str]) -> dict[str, Any]:
    """The table's rows in this order; files are written with sorted keys."""
    return {name: table[name] for name in dict.fromkeys(order) if name in table} if isinstance(table, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_report(store: Store, record: dict[str, Any]) -> Path:
    """(Re)write a run's report.html and return its path."""
    from flows import report

    return report.write_report(record, store.root / "runs" / record["id"])


def _conclude(session: Session) -> None:
    record = session.record
    found = results(record)
    if found:
        record["metrics"] = runs.summarise(found)
    for entry in record["stages"]:
        if entry["kind"] == "release" and entry["status"] == "completed":
            record["release"] = str(Path(entry["folder"]) / "release")
    runs.save(session.store, record)
    if record["status"] in ("cancelled", "paused") or not record["stages"]:
        return  # whoever cancels waits for the end; `derive report` writes it on demand
    try:
        record["report"] = str(write_report(session.store, record))
        runs.save(session.store, record)
    except Exception as error:  # a report that cannot be drawn must not fail a run that is done
        session.note(f"no report was written: {type(error).__name__}: {error}")
