"""`derive adopt STAGE --why TEXT`: accept a code change.

A stage whose code changed has a new digest and would be built again. Adoption says that the change does not
matter for what the stage makes: the artifact (or the half-built folder) that differs in nothing but the source
then stands for the new digest. The reason, and the modules that differ, are recorded and reach the lineage.
Later stages see the adopted artifact under its own digest, so that they stay valid too.
"""

from __future__ import annotations

import getpass
import time
from typing import Any

from configs.errors import UserError
from configs.load import load_recipe
from configs.stage import write_json_atomic
from flows.lease import Lease
from flows.plan import PlannedStage, make_plan
from flows.session import Request
from flows.store import BEGUN, Store


def adopt_stage(store: Store, stage_id: str, why: str, request: Request) -> str:
    """Let older code's product stand for the stage. Returns a sentence that says what was done.

    Raises:
        UserError: no such stage, nothing to adopt, or no reason given.
    """
    if not why.strip():
        raise UserError("--why: empty; say in a sentence why the code change does not matter for what the stage makes")
    recipe = load_recipe(request.preset, request.overrides, request.base or None)
    plan = make_plan(recipe, store)
    ids = [stage.id for stage in recipe.stages]
    if stage_id not in ids:
        raise UserError(f"STAGE: {stage_id!r} is no stage of {recipe.name}; allowed: {', '.join(ids)}")
    planned = plan.stage(stage_id)
    if planned.artifact is not None:
        return f"{stage_id} is already there ({planned.artifact.digest[:12]}); nothing to adopt"
    return _adopt_artifact(store, planned, why) or _adopt_partial(store, planned, why) or _nothing(store, planned)


def _adopt_artifact(store: Store, planned: PlannedStage, why: str) -> str | None:
    fitting = [
        artifact for artifact in store.artifacts() if artifact.manifest.get("without_source") == planned.without_source
    ]
    if not fitting:
        return None
    chosen = fitting[-1]
    changed = _changed(chosen.manifest.get("ingredients", {}).get("source", {}), planned)
    store.adopt(planned.digest, chosen.digest, _record(why, changed))
    return (
        f"{planned.stage.id}: {chosen.digest[:12]} now stands for {planned.digest[:12]}; changed: {', '.join(changed)}"
    )


def _adopt_partial(store: Store, planned: PlannedStage, why: str) -> str | None:
    """Move a half-built folder under the new digest, where the next run resumes it with the new code."""
    for folder, begun in store.partials():
        if begun.get("without_source") != planned.without_source:
            continue
        old, new = Lease(store.folder(str(begun["digest"]))), Lease(store.folder(planned.digest))
        changed = _changed(begun.get("source", {}), planned)
        for lease in (old, new):
            if not lease.try_acquire():
                raise UserError(f"{planned.stage.id}: {folder.name} is being built right now; stop that run first")
        try:
            target = store.partial(planned.digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            adopted = [*begun.get("adopted", []), {**_record(why, changed), "from": begun["digest"]}]
            write_json_atomic(
                target / BEGUN,
                {**begun, "digest": planned.digest, "adopted": adopted, "source": planned.ingredients["source"]},
            )
        finally:
            old.release()
            new.release()
        return f"{planned.stage.id}: the folder begun as {str(begun['digest'])[:12]} is resumed by the next run"
    return None


def _nothing(store: Store, planned: PlannedStage) -> str:
    raise UserError(
        f"{planned.stage.id}: nothing in {store.root} differs from it in the code alone (configuration, inputs, "
        "seed and verifiers must be equal); adopt the stages before it first, or run it"
    )


def _changed(source: dict[str, Any], planned: PlannedStage) -> list[str]:
    now = planned.ingredients["source"]
    return sorted(module for module in {*source, *now} if source.get(module) != now.get(module))


def _record(why: str, changed: list[str]) -> dict[str, Any]:
    return {
        "why": why.strip(),
        "by": getpass.getuser(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "changed_modules": changed,
    }
