"""Control arms: what a recipe's `controls` become, and that the real arm is left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.describe import recipe_as_yaml
from configs.errors import UserError
from configs.load import load_recipe, verifier_overrides
from configs.schema import Recipe, resolved_model
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile
from flows.certified import uncertified
from flows.plan import make_plan
from flows.store import Store

THREE = "controls=[{of: rl, arm: random}, {of: rl, arm: format}, {of: rl, arm: sft, epochs: 6}]"


def tiny(*overrides: str) -> Recipe:
    return load_recipe("math/tiny", [THREE, *overrides])


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe("math/tiny", overrides)
    return str(caught.value)


def test_each_control_becomes_a_stage_from_the_same_checkpoint_before_the_evaluation() -> None:
    recipe = tiny()
    ids = [stage.id for stage in recipe.stages]
    assert ids[-6:] == ["rl", "rl_control_random", "rl_control_format", "rl_control_sft", "evaluate", "release"]
    assert recipe.stage("evaluate").models[-4:] == ("rl_control_random", "rl_control_format", "rl_control_sft", "rl")
    assert {stage.model for stage in recipe.stages[-5:-2]} == {"sft"} == {resolved_model(recipe, recipe.stage("rl"))}
    assert resolved_model(recipe, recipe.stage("release")) == "rl", "not the nearest earlier model, a control"


def test_a_control_of_rl_differs_in_the_reward_alone_and_that_of_sft_in_its_length() -> None:
    recipe = tiny("rl.steps=7", "rl.sampling.temperature=0.9")
    rl, sft, more = (recipe.stage(name).model_dump() for name in ("rl", "sft", "rl_control_sft"))
    for name, verifier in (("rl_control_random", "control_random"), ("rl_control_format", "control_box")):
        control = recipe.stage(name).model_dump()
        assert {key for key in rl if rl[key] != control[key]} == {"id", "model", "verifier", "control"}
        assert (control["verifier"], control["steps"], control["sampling"]["temperature"]) == (verifier, 7, 0.9)
    assert {key for key in sft if sft[key] != more[key]} == {"id", "model", "epochs"} and more["epochs"] == 6


def test_the_release_must_beat_every_control_unless_it_says_gate_false() -> None:
    gates = {gate.against: gate.min_gain for gate in tiny().stage("release").gates}
    assert all(gates[f"rl_control_{arm}"] == 0.0 for arm in ("random", "format", "sft"))
    loose = load_recipe("math/tiny", ["controls=[{of: rl, arm: random, gate: false}]"])
    assert "rl_control_random" in loose.stage("evaluate").models
    assert all(gate.against != "rl_control_random" for gate in loose.stage("release").gates)


def test_another_gate_on_a_control_does_not_take_the_place_of_the_one_on_its_accuracy() -> None:
    own = "release.gates=[{metric: bits_per_byte, against: rl_control_random, min_gain: -9.0}]"
    gates = load_recipe("math/tiny", ["controls=[{of: rl, arm: random}]", own]).stage("release").gates
    assert [(gate.metric, gate.min_gain) for gate in gates if gate.against == "rl_control_random"] == [
        ("bits_per_byte", -9.0), ("pass@1", 0.0),
    ]  # fmt: skip


def test_the_real_arm_keeps_its_digest_when_controls_are_added(tmp_path: Path) -> None:
    store = Store(tmp_path)
    alone, beside = (
        {one.stage.id: one.digest for one in make_plan(recipe, store).stages}
        for recipe in (load_recipe("math/tiny"), tiny())
    )
    assert {name: beside[name] for name in alone if name not in ("evaluate", "release")} == {
        name: alone[name] for name in alone if name not in ("evaluate", "release")
    }
    assert alone["evaluate"] != beside["evaluate"]
    assert len(set(beside.values())) == len(beside)


def test_a_control_needs_no_certificate_and_has_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = make_plan(tiny(), store)
    assert not [planned.stage.id for planned, _ in uncertified(plan, store)]
    cards = {one.stage.id: list(one.ingredients.get("cards", {})) for one in plan.stages if one.stage.kind == "rl"}
    assert cards == {"rl": ["math"], "rl_control_random": [], "rl_control_format": []}


def test_only_a_control_hands_the_runs_seed_to_the_coin(tmp_path: Path) -> None:
    from derivatives.rl import read_problems
    from verifiers.control_arms import SEED_KEY

    (tmp_path / "p.jsonl").write_text('{"prompt": "3 + 4?", "answer": "7"}\n')
    data = (str(tmp_path / "p.jsonl"),)
    for control, verifier, seed in ((None, "math", None), ("random", "control_random", 7)):
        stage = RlStage(
            id="rl", data=data, steps=1, prompts_per_step=1, learning_rate=0.1, control=control, verifier=verifier
        )
        tasks, _, _ = read_problems(StageFile(recipe="x", stage=stage, seed=7), stage)
        assert tasks[0].metadata.get(SEED_KEY) == seed


def test_an_expanded_recipe_that_is_written_and_read_again_stays_the_same(tmp_path: Path) -> None:
    recipe = tiny()
    (tmp_path / "again.yaml").write_text(recipe_as_yaml(recipe))
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe
    with pytest.raises(UserError, match="rl_control_random.steps: 90 differs from rl's 9"):
        load_recipe(str(tmp_path / "again.yaml"), ["rl.steps=9"])
    forked = ["rl.steps=9", f"rl.fork={{artifact: {'a' * 64}, step: 3}}"]  # from a run whose controls are there
    assert load_recipe(str(tmp_path / "again.yaml"), forked).stage("rl").steps == 9


def test_controls_go_by_an_override_or_by_drop_and_their_stages_take_overrides(tmp_path: Path) -> None:
    assert "rl_control_sft" not in [stage.id for stage in tiny("controls=[]").stages]
    assert tiny("rl_control_sft.epochs=2.5").stage("rl_control_sft").epochs == 2.5
    (tmp_path / "parent.yaml").write_text(
        "extends: math/tiny\ncontrols: [{of: rl, arm: random}, {of: rl, arm: format}]\n"
    )
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ndrop: [rl_control_random]\n")
    assert [one.arm for one in load_recipe(str(tmp_path / "child.yaml")).controls] == ["format"]


def test_a_stage_that_is_there_may_be_declared_a_control() -> None:
    recipe = load_recipe("math/tiny", ["controls=[{of: rl, arm: sft, stage: sft}]"])
    assert [stage.id for stage in recipe.stages] == [stage.id for stage in load_recipe("math/tiny").stages]
    assert [gate.against for gate in recipe.stage("release").gates].count("sft") == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["controls=[{of: rll, arm: random}]"], "controls[0].of: 'rll' is no rl stage; did you mean 'rl'?"),
        (["controls=[{of: sft, arm: random}]"], "is no rl stage"),
        (["controls=[{of: rl, arm: sft}]"], "controls[0].epochs: is missing"),
        (["controls=[{of: rl, arm: random, epochs: 3}]"], "epochs 3.0 was given to arm random"),
        (["controls=[{of: rl, arm: format, verifier: math}]"], "'math' was given with control format; allowed:"),
        (["controls=[{of: rl, arm: coin}]"], "controls[0].arm: 'coin' is not among the choices"),
        (["controls=[{of: rl, arm: random}, {of: rl, arm: random}]"], "is the stage of another control"),
        ([THREE, "rl_control_random.steps=3"], "rl_control_random.steps: 3 differs from rl's 90"),
        ([THREE, "rl_control_random.model=base"], "base is where it starts from, rl starts from sft"),
        ([THREE, "release.model=rl_control_random"], "a control that was paid without a right answer"),
        (["rl.verifier=control_random"], "knows no right answer and is for controls alone"),
        (["rl.control=random"], "'math' was given with control random"),
        (["rl.control=random", "rl.verifier=control_random"], "rl_control"),
        (["evaluate.judge=control_random"], "'control_random' is no verifier"),
        (["rl.more_rewards=[{verifier: control_random, weight: 1.0}]"], "'control_random' is no verifier"),
    ],
)
def test_what_is_no_control_is_refused_with_the_remedy(overrides: list[str], said: str) -> None:
    if said == "rl_control":  # the stage is released, and is declared by no control
        assert "paid without a right answer" in refusal(*overrides)
    else:
        assert said in refusal(*overrides)


def test_another_reward_chosen_for_the_run_changes_no_control_by_hand() -> None:
    recipe = tiny()
    assert verifier_overrides(recipe, "exact") == ["rl.verifier=exact"]
    chosen = tiny("rl.verifier=exact", "evaluate.judge=puzzles")
    assert chosen.stage("rl_control_random").verifier == "control_random"


def test_form_is_what_fits_the_reward(tmp_path: Path) -> None:
    wanted = {"math": "control_box", "code": "control_program", "think_math": "format"}
    for reward, form in wanted.items():
        recipe = load_recipe("math/tiny", ["controls=[{of: rl, arm: format}]", f"rl.verifier={reward}"])
        assert recipe.stage("rl_control_format").verifier == form


def verdicts(name: str, prompt: str, completions: list[str], **metadata: Any) -> list[str]:
    from verifiers.api import Task
    from verifiers.registry import load_verifier

    task = Task("1", prompt, "7", metadata=metadata)
    return [load_verifier(name).judge(task, one).outcome.value for one in completions]


def test_the_coin_is_fair_the_same_every_time_and_another_with_another_seed_or_question() -> None:
    many = [f"\\boxed{{{number}}}" for number in range(2000)]
    first = verdicts("control_random", "3 + 4?", many, control_seed=0)
    # four standard deviations of a fair coin: 4 * sqrt(2000) / 2 = 89
    assert abs(first.count("correct") - 1000) < 90
    assert first == verdicts("control_random", "3 + 4?", many, control_seed=0)
    for other in (
        verdicts("control_random", "3 + 4?", many, control_seed=1),
        verdicts("control_random", "4 + 4?", many, control_seed=0),
    ):
        assert 850 < sum(one != two for one, two in zip(first, other, strict=True)) < 1150


def test_the_coin_pays_for_nothing_where_no_control_was_declared() -> None:
    assert verdicts("control_random", "3 + 4?", ["\\boxed{7}"]) == ["no_verdict"]


def test_form_is_paid_for_whatever_it_holds() -> None:
    right, wrong = ["\\boxed{8}", "so \\boxed{anything}"], ["7", "\\boxed{}", "\\boxed{7"]
    assert verdicts("control_box", "3 + 4?", [*right, *wrong]) == ["correct"] * 2 + ["incorrect"] * 3
    programs = ["```python\nnonsense\n```", "```\n1\n```", "```python\nx = 1", "x = 1", "```\n\n```"]
    assert verdicts("control_program", "f?", programs) == ["correct"] * 2 + ["incorrect"] * 3


def test_no_list_shows_the_rewards_of_controls() -> None:
    from configs.names import verifier_names
    from verifiers.registry import CONTROLS, names

    assert CONTROLS.keys().isdisjoint({*names(), *verifier_names()})
