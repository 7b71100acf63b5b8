"""`derive fork RUN --at STEP --set rl.loss=dapo`: a finished or halted run of reinforcement learning, gone on with
something changed.

The fork is a run of its own. It takes the stages before the forked one as they are, begins with that stage's whole
state after the step (`derivatives/rollout/fork.py`), and its report lays both curves over each other. With nothing
changed it repeats the other run to the bit, on the same machine with as many threads; so a difference is due to the
change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:
    from configs.schema import Recipe
    from flows.session import Request
    from flows.store import Artifact, Store

EXAMPLE = "derive fork 7f3a --at 400 --set rl.loss=dapo"


def add_command(add: Callable[..., argparse.ArgumentParser], *parents: argparse.ArgumentParser) -> None:
    """The parser of `derive fork`."""
    made = add("fork", "go on from a step of a run with something changed", *parents, example=EXAMPLE)
    made.add_argument("run_id", metavar="RUN", help="run id, or its beginning or end")
    made.add_argument("--at", type=int, required=True, metavar="STEP", help="last step that both have in common")
    made.add_argument("--stage", default="", metavar="ID", help="stage to fork (default: the run's last rl stage)")
    made.add_argument(
        "--until", action="append", default=[], metavar="STAGE", help="also build this later stage; may be repeated"
    )


def run(given: argparse.Namespace) -> int:
    """The command. Raises UserError."""
    from flows.commands import conclude
    from flows.launch import launch
    from flows.session import prepare

    request, about, notes = fork_request(given)
    session = prepare(request)
    session.record["fork"] = about
    for text in notes:
        print(f"note: {text}", file=sys.stderr)
    return conclude(given, session, launch(session, with_prefect=not given.no_prefect))


def fork_request(given: argparse.Namespace) -> tuple[Request, dict[str, Any], list[str]]:
    """What to run, what its record says of the run that it goes on from, and what a person should know.

    Raises:
        UserError: names the field, and the steps or stages that there are.
    """
    from configs.load import load_recipe
    from derivatives.rollout.fork_points import available
    from flows import runs
    from flows.session import Request
    from flows.store import Store

    store = Store(given.store or None)
    record = runs.find_run(store, given.run_id)
    entry = _forked_entry(record, given.stage)
    digest, folder = str(entry["digest"]), folder_of(store, str(entry["digest"]))
    steps = available(folder)
    if given.at not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"--at: {given.at}: {entry['id']} of run {record['id']} has no checkpoint of that step; allowed: {known}; "
            f"run it with --set {entry['id']}.fork_every=STEPS to keep some"
        )
    path = str(runs.recipe_path(store, record["id"]))
    point = f"{entry['id']}.fork={{artifact: '{digest}', step: {given.at}}}"
    before, recipe = load_recipe(path), load_recipe(path, [*given.overrides, point])
    _check_changes(before, recipe, entry["id"])
    request = Request(
        f"fork {record['id']} --at {given.at}" + (f" --stage {given.stage}" if given.stage else ""),
        overrides=tuple(given.overrides),
        machine=given.machine or str(record.get("machine") or ""),
        store=given.store,
        recipe=recipe,
        until=(entry["id"], *given.until),
        given=_stages_before(store, record, recipe, entry["id"]),
    )
    about = {
        "run": record["id"],
        "stage": entry["id"],
        "step": given.at,
        "digest": digest,
        "changed": list(given.overrides),
    }
    return request, about, _notes(store, digest)


def folder_of(store: Store, digest: str) -> Path:
    """Where a stage lies now, finished or not."""
    return store.folder(digest) if store.folder(digest).is_dir() else store.partial(digest)


def _forked_entry(record: dict[str, Any], stage: str) -> dict[str, Any]:
    entries = {entry["id"]: entry for entry in record["stages"] if entry["kind"] == "rl"}
    if stage and stage not in entries:
        raise UserError(
            f"--stage: {stage!r} is no rl stage of run {record['id']}; allowed: {', '.join(entries) or 'none'}"
        )
    if not entries:
        raise UserError(f"RUN: {record['id']} has no stage of kind rl that was begun; name another run")
    return dict(entries[stage] if stage else list(entries.values())[-1])


def _check_changes(before: Recipe, recipe: Recipe, stage_id: str) -> None:
    """What came before the forked stage is taken as it is, so nothing there can be changed."""
    for old, new in zip(before.stages, recipe.stages, strict=True):
        if old.id == stage_id:
            break
        if old != new:
            raise UserError(
                f"--set: {old.id} comes before {stage_id}, which goes on from it as it was; allowed: fields of "
                f"{stage_id} and of later stages; start a run of its own with `derive run` for that"
            )
    old_stage, new_stage = before.stage(stage_id), recipe.stage(stage_id)
    for field in ("data", "model", "lora", "pass_rates"):
        if getattr(old_stage, field) != getattr(new_stage, field):
            raise UserError(
                f"--set: {stage_id}.{field} belongs to the state that is gone on from; allowed: any other field; "
                f"leave {field} as it was"
            )


def _stages_before(store: Store, record: dict[str, Any], recipe: Recipe, stage_id: str) -> dict[str, Artifact]:
    """The very artifacts that the other run read, whatever the code would make of them now."""
    entries = {entry["id"]: entry for entry in record["stages"]}
    found: dict[str, Artifact] = {}
    for stage in recipe.stages:
        if stage.id == stage_id:
            break
        artifact = store.find(str(entries[stage.id]["digest"])) if stage.id in entries else None
        if artifact is not None:
            found[stage.id] = artifact
    return found


def _notes(store: Store, digest: str) -> list[str]:
    """Code that changed since: a difference of the curves may then be due to it."""
    from flows.source import closure

    artifact = store.find(digest)
    source = (artifact.manifest.get("ingredients") or {}).get("source") if artifact is not None else None
    if not source:
        return []
    now = closure("derivatives.rl")
    changed = sorted(module for module in {*source, *now} if source.get(module) != now.get(module))
    names = ", ".join(changed[:3]) + (" and more" if len(changed) > 3 else "")
    return [f"the code changed since that run ({names}): a difference may be due to that too"] if changed else []
