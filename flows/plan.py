"""From a recipe to the stages of a run: what each one's digest is, and whether it is there already.

A digest is the sha256 of a stage's ingredients:

- its resolved configuration; without its own id, without the paths of JSONL files, and for training stages with
  the digests of the model and data in place of their names. Evaluate and release keep the names, because their
  products are tables and cards that use them;
- the digests of its inputs: for a stage its own, for the base the contents of the checkpoint or id and commit;
- the identity of outside data (`flows/inputs.py`) and of the verifiers used, and the cards of those that reward
  (`flows/certified.py`);
- the source of the project's modules that the stage command imports (`flows/source.py`);
- the seed.

Not in it: the machine profile, paths, the recipe's name, dates, versions of other packages (the manifest has those).
A stage that stands in by adoption counts downstream under its own digest: what it made is what later stages read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.names import unknown
from configs.schema import Recipe, Stage, resolved_model, stage_inputs
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage, ReleaseStage
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage, SampleStage
from configs.stage import StageFile, StageInput
from flows.base import Base, resolve_base
from flows.certified import cards_of
from flows.inputs import outside_data, with_absolute_paths, without_paths
from flows.source import closure
from flows.store import Artifact, Store, canonical_json

DIGEST_FORMAT = 1
"""Raised when the meaning of the ingredients changes, so that no old digest is mistaken for a new one."""

STAGE_MODULES = {
    "corpus": "corpora.build",
    "pretrain": "derivatives.pretrain",
    "sft": "derivatives.sft",
    "dpo": "derivatives.dpo",
    "sample": "derivatives.sample",
    "rl": "derivatives.rl",
    "evaluate": "derivatives.evaluate",
    "release": "derivatives.release",
}


@dataclass
class PlannedStage:
    """One stage of a run. `digest` is what its ingredients give; `artifact` is set once it is there."""

    stage: Stage
    module: str
    digest: str
    without_source: str
    ingredients: dict[str, Any]
    model: str | None
    inputs: dict[str, str]
    """Name -> effective digest, in the order in which the stage reads them."""
    artifact: Artifact | None = None

    @property
    def effective_digest(self) -> str:
        """The digest under which later stages know this one: the artifact's own, if one stands in."""
        return self.artifact.digest if self.artifact is not None else self.digest


@dataclass
class Plan:
    """A recipe on a store."""

    recipe: Recipe
    base: Base
    base_digest: str
    stages: list[PlannedStage] = field(default_factory=list)

    def stage(self, stage_id: str) -> PlannedStage:
        """The planned stage with this id."""
        return next(planned for planned in self.stages if planned.stage.id == stage_id)


def make_plan(
    recipe: Recipe,
    store: Store,
    modules: Mapping[str, str] | None = None,
    download: bool = False,
    given: Mapping[str, Artifact] | None = None,
) -> Plan:
    """Resolve the base, name every stage by its digest and look it up. Writes nothing but the hash cache.

    Args:
        recipe: What to build.
        store: Where to look.
        modules: Stage kind -> module of its command; empty takes the project's own.
        download: Fetch a hub checkpoint that is not in the local cache.
        given: Stage id -> artifact that is to stand for it, whatever its digest would be now.

    Raises:
        UserError: for a base or a data file that cannot be used.
    """
    base = resolve_base(recipe.base, recipe.base_revision, store, download)
    plan = Plan(recipe, base, store.digest(base.identity))
    for stage in recipe.stages:
        planned = _plan_stage(plan, stage, (modules or STAGE_MODULES)[stage.kind], store)
        planned.artifact = (given or {}).get(stage.id, planned.artifact)
        plan.stages.append(planned)
    return plan


def cut(plan: Plan, wanted: Sequence[str]) -> Plan:
    """The same plan with these stages and what they read alone.

    Raises:
        UserError: one of them is no stage of the recipe.
    """
    check_stages(plan.recipe, wanted)
    needed = set(wanted)
    for planned in reversed(plan.stages):
        if planned.stage.id in needed:
            needed |= planned.inputs.keys()
    return replace(plan, stages=[planned for planned in plan.stages if planned.stage.id in needed])


def check_stages(recipe: Recipe, wanted: Sequence[str]) -> None:
    """All of these are stages of the recipe. Raises UserError that names the first which is none."""
    ids = [stage.id for stage in recipe.stages]
    for name in wanted:
        if name not in ids:
            raise unknown("--until", name, f"stage of {recipe.name}", ids)


def stage_file(
    plan: Plan, planned: PlannedStage, store: Store, machine: Machine, lineage: dict[str, Any] | None = None
) -> StageFile:
    """The resolved stage file of one stage; paths of inputs are where they are, or will be."""
    inputs = {}
    for name, digest in planned.inputs.items():
        if name == "base":
            path = (
                plan.base.path if plan.base.path is not None else f"({plan.base.name}, downloaded when the run starts)"
            )
            inputs[name] = StageInput(kind="base", path=str(path), digest=digest)
        else:
            other = plan.stage(name)
            folder = other.artifact.folder if other.artifact is not None else store.folder(other.digest)
            inputs[name] = StageInput(kind=other.stage.kind, path=str(folder), digest=digest)
    if isinstance(planned.stage, RlStage) and planned.stage.fork is not None:
        digest = planned.stage.fork.artifact
        folder = store.folder(digest) if store.folder(digest).is_dir() else store.partial(digest)
        from derivatives.rollout import fork_points

        inputs[fork_points.INPUT] = StageInput(kind="rl", path=str(folder), digest=digest)
    resolved = StageFile(
        recipe=plan.recipe.name,
        stage=planned.stage,
        model=planned.model,
        seed=plan.recipe.seed,
        inputs=inputs,
        machine=machine.for_kind(planned.stage.kind),
        lineage=lineage or {},
    )
    plain = resolved.model_dump(mode="json")
    return StageFile.model_validate({**plain, "stage": with_absolute_paths(plain["stage"])})


def input_names(recipe: Recipe, stage: Stage) -> list[str]:
    """What a stage reads; evaluate and release also read all earlier corpora (overlap check, card)."""
    names = list(stage_inputs(recipe, stage))
    if isinstance(stage, (EvaluateStage, ReleaseStage)):
        for other in recipe.stages:
            if other.id == stage.id:
                break
            if isinstance(other, CorpusStage) and other.id not in names:
                names.append(other.id)
    return names


def _plan_stage(plan: Plan, stage: Stage, module: str, store: Store) -> PlannedStage:
    model = None if isinstance(stage, (CorpusStage, EvaluateStage)) else resolved_model(plan.recipe, stage)
    inputs = {}
    for name in input_names(plan.recipe, stage):
        inputs[name] = plan.base_digest if name == "base" else plan.stage(name).effective_digest
    ingredients = {
        "format": DIGEST_FORMAT,
        "kind": stage.kind,
        "config": _config(stage, inputs),
        "model": None if model is None else inputs[model],
        "inputs": inputs if isinstance(stage, (EvaluateStage, ReleaseStage)) else sorted(set(inputs.values())),
        "outside": outside_data(stage),
        "verifiers": {name: _verifier_identity(name) for name in verifiers_of(stage)},
        "seed": plan.recipe.seed,
    }
    without_source = store.digest(ingredients)
    complete = {**ingredients, "module": module, "source": closure(module)}
    digest = store.digest(complete)
    if cards := cards_of(stage, store):
        # For the lineage. What a stage makes is decided by the verifier, whose identity is in the digest: a card that
        # is made again, on another machine or without labelled data, must not throw a training away.
        complete["cards"] = cards
    return PlannedStage(stage, module, digest, without_source, complete, model, inputs, store.find(digest))


def _config(stage: Stage, inputs: Mapping[str, str]) -> dict[str, Any]:
    plain = without_paths(stage.model_dump(mode="json"))
    del plain["id"]
    plain.pop("allow_uncertified", None)  # whether it may run, not what it makes
    if not isinstance(stage, (EvaluateStage, ReleaseStage)):
        plain.pop("model", None)
        if "data" in plain:
            plain["data"] = [inputs.get(name, name) for name in plain["data"]]
        if plain.get("pass_rates"):
            plain["pass_rates"]["stage"] = inputs[plain["pass_rates"]["stage"]]
    canonical_json(plain)  # a value that has no canonical form (NaN) must fail here, with the stage known
    return plain


def verifiers_of(stage: Stage) -> list[str]:
    """Names of the verifiers whose judgement goes into a stage's product."""
    if isinstance(stage, SampleStage):
        return [stage.verifier]
    if isinstance(stage, RlStage):
        second = [stage.audit.verifier] if stage.audit is not None else []
        return [stage.verifier, *(reward.verifier for reward in stage.more_rewards), *second]
    if isinstance(stage, EvaluateStage):
        named = [name for name in (stage.judge, stage.audit) if name is not None]
        own = _task_verifiers(stage) if stage.judge is None or stage.kept_tasks else []
        return list(dict.fromkeys([*named, *own]))
    return []


def _task_verifiers(stage: EvaluateStage) -> list[str]:
    """Those that the task sets may bring: the built-in ones, and what sources and lines of the user's own files name.
    """
    from verifiers.registry import BUILT_IN, names

    sources = [*(stage.tasks if stage.judge is None else ()), *stage.kept_tasks]
    own = {source.verifier for source in sources if source.verifier is not None}
    for path in (Path(source.name).expanduser() for source in sources if source.name.endswith(".jsonl")):
        try:
            with path.open(encoding="utf-8") as file:
                rows = (json.loads(line) for line in file if '"verifier"' in line)
                own |= {str(row.get("verifier")) for row in rows if isinstance(row, dict)}
        except (OSError, ValueError):
            continue  # `flows/inputs.py` says what is wrong with it
    return sorted(BUILT_IN.keys() | (own & set(names())))


def _verifier_identity(name: str) -> dict[str, Any]:
    from verifiers.registry import identity

    return dict(identity(name))
