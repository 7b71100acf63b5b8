"""What a derivative is made of: the `Recipe` and one frozen model per stage kind.

The settings of each kind of stage lie in `configs.settings`.

A recipe is data. It is read from a YAML preset by `configs.load`, checked here, and handed stage by
stage to the stage commands (`configs.stage`). Unknown keys, wrong types and dangling stage references
are rejected. Every field's description says its unit and its effect; `derive show` prints them.

Nothing here imports torch or prefect.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.controls import Control, check_controls
from configs.judges import check_judge
from configs.settings.common import (
    Frozen,
    Seed,
)
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import NO_SIDE, EvaluateStage, Gate, ReleaseStage
from configs.settings.reinforcement import RlStage, SampleStage, check_rl_settings
from configs.settings.training import DpoStage, PretrainStage, SftStage

STAGE_KINDS = ("corpus", "pretrain", "sft", "sample", "dpo", "rl", "evaluate", "release")
MODEL_KINDS = ("pretrain", "sft", "dpo", "rl")
"""Stage kinds whose folder holds a model under `model/`."""


Stage = Annotated[
    CorpusStage | PretrainStage | SftStage | SampleStage | DpoStage | RlStage | EvaluateStage | ReleaseStage,
    Field(discriminator="kind"),
]


class Expected(Frozen):
    """A published or measured figure that the preset should reach."""

    metric: str = Field(description="Which figure, on which data.")
    value: float = Field(description="Its value.")
    source: str = Field(description="Paper section, or docs/benchmarks.md for our own.")


class Recipe(Frozen):
    """From a base checkpoint to a released derivative, as a list of stages read top to bottom."""

    name: str = Field(description="Preset name, e.g. math/tiny.")
    title: str = Field(description="One line for a form or a table.")
    description: str = Field(default="", description="What it builds, from what, for whom; Markdown.")
    status: Literal["released", "stepped at true shape", "validated only"] = Field(
        description="What has really been run: to a release, a few steps at the true shape, or only checked."
    )
    expected: tuple[Expected, ...] = Field(
        default=(), description="Figures this preset should reach, with their source."
    )
    base: str = Field(
        default="seedling", description="Checkpoint to start from: seedling, a local folder, or a hub id."
    )
    base_revision: str | None = Field(
        default=None, description="Commit of the hub checkpoint; empty is recorded at first download."
    )
    seed: Seed = Field(default=0, description="Seed of every random choice of the run.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="Stages, top to bottom.")
    controls: tuple[Control, ...] = Field(
        default=(), description="Control arms, run beside a stage of RL from the same checkpoint; each becomes a stage."
    )

    @model_validator(mode="after")
    def _references_resolve(self) -> Recipe:
        check_references(self)
        check_controls(self)
        return self

    def stage(self, stage_id: str) -> Stage:
        """The stage with this id; KeyError if there is none."""
        for stage in self.stages:
            if stage.id == stage_id:
                return stage
        raise KeyError(stage_id)


def stage_inputs(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """Names of what a stage reads, in order, without repeats: stage ids, or `base`. Paths are not listed."""
    earlier = _earlier(recipe, stage)
    names: list[str] = []
    if isinstance(stage, CorpusStage):
        names = ["base"] if stage.output != "problems" else []  # the base's tokenizer counts and packs
    elif isinstance(stage, EvaluateStage):
        names = [*stage.models, "base"]
    else:
        names = [resolved_model(recipe, stage)]
        if isinstance(stage, ReleaseStage):
            names += ["base", stage.evaluation]
        else:
            names += [ref for ref in stage.data if not ref.endswith(".jsonl")]
            if isinstance(stage, SftStage) and stage.replay is not None:
                names += stage.replay.data
            if isinstance(stage, RlStage) and stage.pass_rates is not None:
                names.append(stage.pass_rates.stage)
    known = [*earlier, "base"]
    return tuple(dict.fromkeys(name for name in names if name in known))


def resolved_model(
    recipe: Recipe, stage: PretrainStage | SftStage | SampleStage | DpoStage | RlStage | ReleaseStage
) -> str:
    """The model a stage starts from: what it names, else the nearest earlier stage that made one, else `base`."""
    if stage.model is not None:
        return stage.model
    for other in reversed(list(_earlier(recipe, stage).values())):
        if other.kind in MODEL_KINDS:
            return other.id
    return "base"


def _earlier(recipe: Recipe, stage: Stage) -> dict[str, Stage]:
    ids = [other.id for other in recipe.stages]
    return {other.id: other for other in recipe.stages[: ids.index(stage.id)]}


DATA_OF = {"pretrain": "tokens", "sft": "examples", "sample": "problems", "rl": "problems"}
"""What output of a corpus stage each training stage reads; no corpus stage makes the pairs of dpo."""


def check_references(recipe: Recipe) -> None:
    """Every reference names an earlier stage of the right kind. Raises ValueError with path, value and choices."""
    seen: dict[str, Stage] = {}
    for stage in recipe.stages:
        if stage.id in seen:
            raise ValueError(f"{stage.id}.id: {stage.id!r} is used twice; allowed: one stage of that id; rename one")
        if stage.id in Recipe.model_fields:  # an override such as seed=3 would be ambiguous
            raise ValueError(
                f"{stage.id}.id: {stage.id!r} is the name of a field of the recipe; allowed: any other name; "
                "rename the stage"
            )
        if isinstance(stage, EvaluateStage):
            _check_names(f"{stage.id}.models", stage.models, _models(seen))
        elif isinstance(stage, ReleaseStage):
            _check_release(recipe, stage, seen)
        elif not isinstance(stage, CorpusStage):
            _check_training(stage, seen)
        seen[stage.id] = stage


def _check_training(stage: PretrainStage | SftStage | SampleStage | DpoStage | RlStage, seen: dict[str, Stage]) -> None:
    if stage.model is not None:
        _check_names(f"{stage.id}.model", [stage.model], _models(seen))
    if isinstance(stage, PretrainStage) and stage.probe_tasks:
        raise ValueError(
            f"{stage.id}.probe_tasks: {len(stage.probe_tasks)} were given to a pretrain stage, whose model is not "
            f"taught to answer; allowed: none; use {stage.id}.heldout_text, or an evaluate stage"
        )
    if isinstance(stage, DpoStage):
        _check_dpo(stage, [other.id for other in seen.values() if isinstance(other, SampleStage)])
        return
    fitting = [s.id for s in seen.values() if isinstance(s, CorpusStage) and s.output == DATA_OF[stage.kind]]
    if isinstance(stage, (SftStage, RlStage)):  # a sample stage makes what both read
        fitting += [other.id for other in seen.values() if isinstance(other, SampleStage)]
    files_allowed = stage.kind != "pretrain"
    named = [ref for ref in stage.data if not (files_allowed and ref.endswith(".jsonl"))]
    _check_names(f"{stage.id}.data", named, fitting, f"names no earlier corpus with output {DATA_OF[stage.kind]}")
    if isinstance(stage, SftStage) and stage.replay is not None:
        tokens = [s.id for s in seen.values() if isinstance(s, CorpusStage) and s.output == "tokens"]
        missing = "names no earlier corpus with output tokens"
        _check_names(f"{stage.id}.replay.data", stage.replay.data, tokens, missing)
    if isinstance(stage, RlStage):
        if stage.pass_rates is not None:
            samples = [other.id for other in seen.values() if isinstance(other, SampleStage)]
            _check_names(
                f"{stage.id}.pass_rates.stage", [stage.pass_rates.stage], samples, "names no earlier sample stage"
            )
        check_rl_settings(stage)


def _check_dpo(stage: DpoStage, samples: list[str]) -> None:
    named = [name for name in stage.data if not name.endswith(".jsonl")]
    _check_names(f"{stage.id}.data", named, samples, "names no earlier sample stage and no path ending in .jsonl")
    for index, name in enumerate(stage.heldout_pairs):
        if not name.endswith(".jsonl"):
            raise ValueError(
                f"{stage.id}.heldout_pairs[{index}]: {name!r} is no JSONL file; allowed: paths ending in .jsonl whose "
                "lines have prompt, chosen and rejected"
            )
    shared = sorted({*stage.data} & {*stage.heldout_pairs})
    if shared:
        raise ValueError(
            f"{stage.id}.heldout_pairs: {shared[0]!r} is trained on as well; allowed: other files; split it"
        )
    if stage.loss == "ipo" and stage.label_smoothing > 0:
        raise ValueError(
            f"{stage.id}.label_smoothing: {stage.label_smoothing} was given with loss ipo, which has none; allowed: 0; "
            f"set {stage.id}.label_smoothing=0, or {stage.id}.loss=sigmoid"
        )


def _check_release(recipe: Recipe, stage: ReleaseStage, seen: dict[str, Stage]) -> None:
    evaluations = {s.id: s for s in seen.values() if isinstance(s, EvaluateStage)}
    if stage.model is not None:
        _check_names(f"{stage.id}.model", [stage.model], _models(seen))
    _check_names(f"{stage.id}.evaluation", [stage.evaluation], list(evaluations), "names no earlier evaluate stage")
    measured = evaluations[stage.evaluation]
    released = resolved_model(recipe, stage)
    for name in ("base", released):
        if name not in measured.models:
            raise ValueError(
                f"{measured.id}.models: {name!r} is missing, which {stage.id} needs; given: "
                f"{', '.join(measured.models)}; add {name} to {measured.id}.models"
            )
    for index, gate in enumerate(stage.gates):
        path, problem = f"{stage.id}.gates[{index}]", f"is not among the models of {measured.id}"
        _check_names(f"{path}.against", [gate.against], list(measured.models), problem)
        _check_measured(path, gate, measured)
    _check_keep(stage, measured)
    for name in line_of(recipe, released):
        one = seen[name]
        if isinstance(one, RlStage) and one.control is not None:
            raise ValueError(
                f"{stage.id}.model: {released!r} comes from {name}, a control that was paid without a right answer "
                f"(control {one.control}); allowed: a model without one in its line; set {stage.id}.model"
            )
    check_judge(recipe, stage, measured, line_of(recipe, released))


def _check_measured(path: str, gate: Gate, measured: EvaluateStage) -> None:
    """The evaluation asks what a gate reads."""
    missing = {
        "pass@k": "num_samples" if measured.num_samples == 0 else "",
        "maj@k": "num_samples" if measured.num_samples < 2 else "",
        "kept": "kept_tasks" if not measured.kept_tasks else "",
        "bits_per_byte": "heldout_text" if not measured.heldout_text else "",
    }.get(gate.metric)
    if missing:
        raise ValueError(
            f"{path}.metric: {gate.metric!r} is not measured by {measured.id}; allowed: pass@1; remove the gate "
            f"or set {measured.id}.{missing}"
        )
    if gate.tasks is not None:
        asked = measured.kept_tasks if gate.metric == "kept" else measured.tasks
        problem = f"is no set of {measured.id}.{'kept_tasks' if gate.metric == 'kept' else 'tasks'}"
        _check_names(f"{path}.tasks", [gate.tasks], list(dict.fromkeys(one.name for one in asked)), problem)


def _check_keep(stage: ReleaseStage, measured: EvaluateStage) -> None:
    """What must be kept is measured, or the recipe says in so many words that it need not be."""
    sides = (
        ("tasks", stage.keep.tasks, measured.kept_tasks, "kept_tasks",
         "[{name: functions/lists, split: heldout, count: 200}]", "problems of other domains"),
        ("bits_per_byte", stage.keep.bits_per_byte, measured.heldout_text, "heldout_text",
         "[{name: python_stdlib, split: heldout, count: 100}]", "held-out text"),
    )  # fmt: skip
    for side, allowed, asked, field, example, what in sides:
        if allowed != NO_SIDE and not asked:
            raise ValueError(
                f"{stage.id}.keep.{side}: {allowed} is required of what {measured.id} does not measure: it asks no "
                f"{what}; allowed: a measured side, or {NO_SIDE}; set {measured.id}.{field}={example}, or "
                f"{stage.id}.keep.{side}={NO_SIDE}, which the card will say"
            )


def line_of(recipe: Recipe, name: str) -> tuple[str, ...]:
    """Ids of the training stages that made a model, the newest first, without `base`."""
    found: list[str] = []
    while name != "base":
        found.append(name)
        stage = recipe.stage(name)
        assert isinstance(stage, (PretrainStage, SftStage, DpoStage, RlStage))
        name = resolved_model(recipe, stage)
    return tuple(found)


def _models(seen: dict[str, Stage]) -> list[str]:
    return ["base", *(stage.id for stage in seen.values() if stage.kind in MODEL_KINDS)]


def _check_names(
    path: str, values: Sequence[str], allowed: list[str], problem: str = "names no earlier stage with a model"
) -> None:
    for value in values:
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: {value!r} {problem}{hint}; allowed: {', '.join(allowed) or 'none'}")
