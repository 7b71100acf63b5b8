"""Control arms of a recipe: what a stage of RL would have gained without its reward.

    controls:
      - {of: rl, arm: random}             # paid by a coin: a hash of seed, question and completion
      - {of: rl, arm: format}             # paid for the form of an answer, whatever it says
      - {of: rl, arm: sft, epochs: 6}     # RL's time spent on more supervised fine-tuning

Each becomes an ordinary stage of the recipe (`rl_control_random`, ...) before the evaluation: from the checkpoint that
`rl` starts from, with the settings of `rl`, of which only the verifier differs; or, for `arm: sft`, with those of the
nearest supervised stage before it. The evaluation asks the control the same questions, and the release gets a gate: the
interval of what is gained over the control must lie above 0 (`gate: false` leaves the gate out, not the figure). A
stage that the recipe has already may be declared to be a control by `stage:`.

The real arm's own settings and inputs stay as they are, so that it keeps its digest and is reused.

Why: random rewards alone raised Qwen2.5-Math-7B by 21.4 points on MATH-500, true ones by 29.1 (arXiv:2506.10947); a
gain over the base says little about the reward.

How long more SFT must train to take RL's time depends on the machine, which may not decide what a stage computes: so
`epochs` is given by the recipe, and `derive plan` shows the predicted hours of both side by side.
"""

from __future__ import annotations

import copy
import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from configs.errors import UserError
from configs.settings.common import Frozen, StageId
from configs.settings.reinforcement import CONTROL_VERIFIERS, RlStage

if TYPE_CHECKING:
    from configs.schema import Recipe

ARMS = ("random", "format", "sft")
MODEL_KINDS = ("pretrain", "sft", "dpo", "rl")
READS_A_MODEL = (*MODEL_KINDS, "sample", "release")
FORM_OF = {
    "math": "control_box", "puzzles": "control_box", "exact": "control_box", "math_verify": "control_box",
    "code": "control_program", "code_hidden": "control_program", "think_math": "format", "think_own": "format",
    "think_puzzles": "format",
}  # fmt: skip
"""What judges the form alone of answers that these verifiers judge whole."""
OWN = (
    "id", "model", "verifier", "control", "more_rewards", "partial_credit", "audit", "allow_uncertified", "fork",
    "fork_every", "keep_rollouts",
)  # fmt: skip
"""Settings in which a control of RL may differ from it."""


class Control(Frozen):
    """One control arm."""

    of: StageId = Field(description="The rl stage that it is a control of.")
    arm: Literal["random", "format", "sft"] = Field(
        description="What takes the reward's place: a coin, the form of the answer alone, or more supervised "
        "fine-tuning on the demonstrations."
    )
    stage: StageId | None = Field(
        default=None,
        description="Id of the control's stage, which may be one that the recipe has; empty is OF_control_ARM.",
    )
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Passes over the demonstrations; for arm sft, which needs it."
    )
    learning_rate: PositiveFloat | None = Field(
        default=None, description="Peak rate; for arm sft; empty takes that of the supervised stage."
    )
    verifier: str | None = Field(
        default=None, description="Which verifier judges the form; for arm format; empty takes what fits the reward."
    )
    gate: bool = Field(default=True, description="Release only what the interval shows to be better than this control.")

    @model_validator(mode="after")
    def _settings_of_its_arm(self) -> Control:
        for name, arm in (("epochs", "sft"), ("learning_rate", "sft"), ("verifier", "format")):
            if getattr(self, name) is not None and self.arm != arm:
                raise ValueError(
                    f"controls: {name} {getattr(self, name)!r} was given to arm {self.arm}; allowed: with arm {arm} "
                    "only, since all else of a control is as in the stage it is a control of; remove it"
                )
        return self


def stage_of(control: dict[str, Any]) -> str:
    """Id of a control's stage, from its plain mapping."""
    return str(control.get("stage") or f"{control.get('of')}_control_{control.get('arm')}")


def planned_ids(raw: dict[str, Any]) -> list[str]:
    """Ids of the stages that a preset's controls will become; nothing of what is not a list of mappings."""
    controls = raw.get("controls")
    return [stage_of(one) for one in controls if isinstance(one, dict)] if isinstance(controls, list) else []


def expand(raw: dict[str, Any]) -> None:
    """Put the stages, the evaluation's models and the gates of all controls into a preset's mapping, in place.

    What is there already is left alone, so that an expanded recipe that is written and read again stays the same. What
    is no control at all is left for the schema to refuse.

    Raises:
        UserError: A control is of no rl stage, or cannot be made from what the recipe holds.
    """
    controls, stages = raw.get("controls"), raw.get("stages")
    if not controls or not isinstance(controls, list) or not isinstance(stages, list):
        return
    if not all(isinstance(stage, dict) and isinstance(stage.get("id"), str) for stage in stages):
        return
    for index, control in enumerate(controls):
        if isinstance(control, dict) and control.get("arm") in ARMS and isinstance(control.get("of"), str):
            control["stage"] = stage_of(control)
            _expand_one(stages, control, f"controls[{index}]")


def _expand_one(stages: list[dict[str, Any]], control: dict[str, Any], path: str) -> None:
    ids = [stage["id"] for stage in stages]
    reinforced = [stage["id"] for stage in stages if stage.get("kind") == "rl" and not stage.get("control")]
    if control["of"] not in reinforced:
        near = difflib.get_close_matches(control["of"], reinforced, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"{path}.of: {control['of']!r} is no rl stage{hint}; allowed: {', '.join(reinforced) or 'none'}; name one, "
            "or remove the control"
        )
    of = ids.index(control["of"])
    if control["stage"] not in ids:
        made = _made(stages, of, control, path)
        place = next((at for at in range(of, len(stages)) if stages[at].get("kind") == "evaluate"), len(stages))
        for at in range(place, len(stages)):  # the control must not become the nearest earlier model of anything
            if stages[at].get("kind") in READS_A_MODEL and stages[at].get("model") is None:
                stages[at]["model"] = _model_of(stages, at)
        stages.insert(place, made)
    for stage in stages:
        models = stage.get("models")
        if stage.get("kind") == "evaluate" and isinstance(models, list) and control["of"] in models:
            if control["stage"] not in models:
                models.insert(models.index(control["of"]), control["stage"])
            _add_gate(stages, stage["id"], control)


def _made(stages: list[dict[str, Any]], of: int, control: dict[str, Any], path: str) -> dict[str, Any]:
    """The control's stage, from that which it is a control of, or from the nearest supervised one before."""
    start = _model_of(stages, of)
    if control["arm"] == "sft":
        return _more_supervised(stages, of, start, control, path)
    made = {name: copy.deepcopy(value) for name, value in stages[of].items() if name not in OWN}
    verifier = "control_random" if control["arm"] == "random" else control.get("verifier")
    if verifier is None:
        rewarded = stages[of].get("verifier", "math")
        verifier = FORM_OF.get(rewarded)
        if verifier is None:
            fitting = ", ".join(name for name, arm in CONTROL_VERIFIERS.items() if arm == "format")
            raise UserError(
                f"{path}.verifier: is missing, and what the form of an answer to {rewarded!r} is, is not known; "
                f"allowed: {fitting}; set one"
            )
    return {"id": control["stage"], "kind": "rl", "model": start, **made, "verifier": verifier,
            "control": control["arm"]}  # fmt: skip


def _more_supervised(
    stages: list[dict[str, Any]], of: int, start: str, control: dict[str, Any], path: str
) -> dict[str, Any]:
    if control.get("epochs") is None:
        raise UserError(
            f"{path}.epochs: is missing; allowed: a number above 0, with which more SFT takes about the time of "
            f"{control['of']} (`derive plan` shows both); set it"
        )
    by_id = {stage["id"]: at for at, stage in enumerate(stages)}
    name = start
    while name in by_id and stages[by_id[name]].get("kind") != "sft":
        name = _model_of(stages, by_id[name])
    if name not in by_id:
        raise UserError(
            f"{path}.arm: sft goes on with a supervised stage, and {control['of']} starts from {start} without one; "
            "allowed: random, format; or add an sft stage"
        )
    own = ("id", "model", "epochs")
    made = {key: copy.deepcopy(value) for key, value in stages[by_id[name]].items() if key not in own}
    if control.get("learning_rate") is not None:
        made["learning_rate"] = control["learning_rate"]
    return {"id": control["stage"], "model": start, **made, "epochs": control["epochs"]}


def _model_of(stages: list[dict[str, Any]], at: int) -> str:
    """The model that a stage starts from, as `configs.schema.resolved_model` finds it."""
    if stages[at].get("model") is not None:
        return str(stages[at]["model"])
    earlier = (stage["id"] for stage in reversed(stages[:at]) if stage.get("kind") in MODEL_KINDS)
    return str(next(earlier, "base"))


def _add_gate(stages: list[dict[str, Any]], evaluation: str, control: dict[str, Any]) -> None:
    if control.get("gate") is False:
        return
    for stage in stages:
        if stage.get("kind") == "release" and stage.get("evaluation") == evaluation:
            gates = stage.setdefault("gates", [])
            if isinstance(gates, list) and not any(
                isinstance(gate, dict) and (gate.get("metric"), gate.get("against")) == ("pass@1", control["stage"])
                for gate in gates
            ):
                gates.append({"metric": "pass@1", "against": control["stage"], "min_gain": 0.0})


def check_controls(recipe: Recipe) -> None:
    """Every control is what it is called: of an rl stage, and like it in all but the reward.

    Raises:
        ValueError: With the field, what differs and the remedy.
    """
    from configs.schema import resolved_model  # which imports this module

    stages = {stage.id: stage for stage in recipe.stages}
    declared: set[str] = set()
    for index, control in enumerate(recipe.controls):
        name = control.stage or ""
        if name in declared:
            raise ValueError(
                f"controls[{index}].stage: {name!r} is the stage of another control; allowed: one for each; set "
                f"controls[{index}].stage={name}_2"
            )
        declared.add(name)
        real, arm = stages.get(control.of), stages.get(name)
        assert isinstance(real, RlStage) and arm is not None, "expanded before"
        wanted = "sft" if control.arm == "sft" else "rl"
        if arm.kind != wanted or (isinstance(arm, RlStage) and arm.control != control.arm):
            raise ValueError(
                f"controls[{index}].stage: {name!r} is no control of arm {control.arm}; allowed: a stage of kind "
                f"{wanted}{'' if wanted == 'sft' else f' with control {control.arm}'}; change arm or stage"
            )
        start = resolved_model(recipe, real)
        if isinstance(arm, RlStage) and (other_start := resolved_model(recipe, arm)) != start:
            raise ValueError(
                f"{name}.model: {other_start} is where it starts from, {control.of} starts from {start}; allowed: the "
                f"same, since a control differs in the reward alone; set {name}.model={start}"
            )
        if isinstance(arm, RlStage) and real.fork is None:  # a fork goes on from a run whose control is there already
            plain, other = (one.model_dump(exclude=set(OWN)) for one in (real, arm))
            for field in plain:
                if plain[field] != other[field]:
                    raise ValueError(
                        f"{name}.{field}: {str(other[field])[:60]} differs from {control.of}'s {str(plain[field])[:60]}"
                        "; allowed: the same, since a control differs in the reward alone; remove the override"
                    )
    for stage in recipe.stages:
        if isinstance(stage, RlStage) and stage.control is not None and stage.id not in declared:
            raise ValueError(
                f"{stage.id}.control: {stage.control} is said by no entry of controls; allowed: a declared control; "
                f"write `controls: [{{of: STAGE, arm: {stage.control}, stage: {stage.id}}}]`"
            )
