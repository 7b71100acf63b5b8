"""A budget: what may be typed, what it comes to, and that the same request comes to the same lengths again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.budget import LENGTHS, Budget, Taken, factor_for, in_words, parse_budget, scaled, training_stages
from configs.errors import UserError
from configs.load import load_machine, load_recipe, verifier_overrides
from configs.schema import STAGE_KINDS, Stage
from flows import budgets, runs
from flows.session import Request, prepare, resolve
from flows.store import Store

TINY = load_recipe("math/tiny")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5e6 tokens", Budget(5_000_000, "tokens")),
        (" 200   Steps ", Budget(200, "steps")),
        ("1 step", Budget(1, "steps")),
        ("2 hours", Budget(7200, "seconds")),
        ("0.5 hour", Budget(1800, "seconds")),
        ("90 minutes", Budget(5400, "seconds")),
        ("1_500_000 tokens", Budget(1_500_000, "tokens")),
        ("1,500,000 tokens", Budget(1_500_000, "tokens")),
        ("1.5e3 steps", Budget(1500, "steps")),
        ("2hours", Budget(7200, "seconds")),
    ],
)
def test_a_budget_is_a_number_and_a_unit(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_budget_is_the_presets(text: str) -> None:
    assert parse_budget(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "5", "steps", "five steps", "-5 steps", "+5 steps", "5 parsecs", "5 steps 3", "1e400 tokens", "nan hours",
        "inf hours", "0x10 steps", "\uff15 steps", "5 steps; rm -rf /", "5\0 steps", "1e-3 hours", "1,5 steps",
        "1_5 steps", "'5' steps",
        "2 hours 5 minutes", "5%", "9" * 10_000 + " steps", "5 " * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused_in_one_line_that_names_the_field(text: str) -> None:
    with pytest.raises(UserError, match="^budget: .*allowed: ") as refused:
        parse_budget(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["0 steps", "0.0 hours", "1e16 tokens", "2.5 steps", "0.5 tokens"])
def test_an_amount_that_cannot_be_spent_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="^budget: .*(out of range|no whole number)"):
        parse_budget(text)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        found = parse_budget(text)
    except UserError as error:
        assert str(error).startswith("budget: ")
    else:
        assert found is None or found.amount > 0


def test_every_kind_that_trains_has_a_length_and_no_other_kind_has() -> None:
    assert set(LENGTHS) < set(STAGE_KINDS)
    recipe = load_recipe("math/tiny")
    assert [stage.kind for stage in training_stages(recipe.stages)] == ["pretrain", "sft", "rl"]


def changed(stages: Sequence[Stage], overrides: Sequence[str]) -> list[Stage]:
    """As `load_recipe` with these overrides, at once."""
    found = {stage.id: stage for stage in stages}
    for text in overrides:
        (name, field), value = text.split("=")[0].split("."), float(text.split("=")[1])
        found[name] = found[name].model_copy(update={field: value if field == "epochs" else int(value)})
    return list(found.values())


def taken_by(stages: Sequence[Stage], unit: str, examples: float = 750.0) -> list[Taken]:
    """What the stages of math/tiny take, by hand: 32 examples a step, 100 tokens each, 2,000 tokens drawn a step."""
    found = []
    for stage in training_stages(stages):
        if stage.kind == "pretrain":
            steps, length, tokens = -(-stage.num_tokens // stage.batch_tokens), stage.batch_tokens, stage.num_tokens
        elif stage.kind == "rl":
            steps, length, tokens = stage.steps, 1, stage.steps * 2000
        else:
            total = max(1, round(stage.epochs * examples))
            steps, length = -(-total // stage.batch_examples), stage.batch_examples / examples
            tokens = max(1.0, stage.epochs * examples) * 100
        found.append(Taken(stage, tokens if unit == "tokens" else steps, steps, length))
    return found


def test_all_lengths_get_the_same_factor_and_are_rounded_down() -> None:
    recipe = load_recipe("math/tiny", ["rl.steps=75", "sft.epochs=4", "pretrain.num_tokens=250_001"])
    tokens = taken_by(recipe.stages, "tokens")
    half = Budget(sum(one.amount for one in tokens) / 2, "tokens")
    assert scaled(half, tokens) == (0.5, ["pretrain.num_tokens=125000", "sft.epochs=2", "rl.steps=37"])
    _, third = scaled(replace(half, amount=half.amount / 1.5), tokens)
    assert third == ["pretrain.num_tokens=83333", "sft.epochs=1.33333", "rl.steps=25"]


@given(st.integers(1, 10**6), st.integers(1, 4000), st.floats(0.01, 9), st.integers(1, 500), st.integers(5, 10**6))
def test_a_budget_is_never_exceeded_and_leaves_every_stage_a_step(
    num_tokens: int, steps: int, epochs: float, wanted: int, examples: int
) -> None:
    """Also where a last step that is not full counts as one."""
    lengths = [f"rl.steps={steps}", f"sft.epochs={epochs!r}", f"pretrain.num_tokens={num_tokens}"]
    stages = changed(TINY.stages, lengths)
    for unit in ("steps", "tokens"):
        taken = taken_by(stages, unit, examples)
        least = sum(one.amount for one in taken) / min(one.steps for one in taken)
        budget = Budget(least * wanted if unit == "tokens" else math.ceil(least * wanted), unit)  # type: ignore[arg-type]
        became = taken_by(changed(stages, scaled(budget, taken)[1]), unit, examples)
        assert min(one.steps for one in became) >= 1
        assert sum(one.amount for one in became) <= budget.amount * (1 + 1e-8)


def test_the_factor_makes_the_total_the_budget_and_what_is_too_little_is_told() -> None:
    sft, rl = (TINY.stage(name) for name in ("sft", "rl"))
    taken = [Taken(sft, 30.0, 30, 1.0), Taken(rl, 70.0, 10, 1.0)]  # type: ignore[arg-type]
    assert factor_for(Budget(50, "steps"), taken) == 0.5
    assert factor_for(Budget(10, "steps"), taken) == 0.1  # one step of rl
    with pytest.raises(UserError, match="^budget: 9 steps leaves rl less than one of its 10 steps; allowed: at least"):
        factor_for(Budget(9, "steps"), taken)
    reference = [replace(taken[0], amount=40.0, fixed=10.0), taken[1]]  # of 110, 10 are before the first step
    assert factor_for(Budget(60, "seconds"), reference) == 0.5
    with pytest.raises(UserError, match=r"leaves rl less than one of its 10 steps; allowed: at least 0\.334 minutes"):
        factor_for(Budget(19.9, "seconds"), reference)  # 10 and a tenth of 100


@given(st.floats(1e-3, 1e9), st.sampled_from(["tokens", "steps", "seconds"]))
def test_what_is_named_as_enough_is_a_budget_and_enough(amount: float, unit: str) -> None:
    named = parse_budget(in_words(amount, unit, up=True))  # type: ignore[arg-type]
    assert named is not None and named.unit == unit and named.amount >= amount * (1 - 1e-8)
    assert named.amount <= amount * 1.011 + (1 if unit != "seconds" else 0.0)


def test_steps_of_a_preset_come_to_the_budget(tmp_path: Path) -> None:
    asked = Request("math/tiny", budget="100 steps", machine="cpu", store=str(tmp_path))
    plan, fitted = resolve(asked, Store(tmp_path), load_machine("cpu"))
    assert fitted is not None
    # 31 steps of pretrain, 144 of sft where all that is asked gives an example, 90 of rl: 265, each times 100/265, in
    # whole steps: 12 of 8,192 tokens, 54 of 32 examples out of 1,150, and 34.
    assert fitted.overrides == ("pretrain.num_tokens=98304", "sft.epochs=1.5026", "rl.steps=34")
    assert plan.recipe.stage("rl").steps == 34  # type: ignore[union-attr]
    assert fitted.said.startswith("budget 100 steps: the preset's 265 steps times 0.377: ")
    _, alone = resolve(replace(asked, until=("sft",)), Store(tmp_path), load_machine("cpu"))
    assert alone is not None and alone.overrides == ("pretrain.num_tokens=147456", "sft.epochs=2.28173")  # 18, 82


def test_the_same_request_comes_to_the_same_lengths_whatever_is_predicted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = ("rl.allow_uncertified=true",)
    asked = Request("math/smoke", overrides=free, budget="20 steps", machine="cpu", store=str(tmp_path))
    session = prepare(asked)
    runs.save(session.store, session.record, session.plan.recipe)
    rl = session.plan.recipe.stage("rl")
    monkeypatch.setattr(budgets, "_taken", lambda *_: [Taken(rl, 60.0, 60, 1.0)])  # type: ignore[arg-type]
    assert resolve(asked, session.store, session.machine)[0].stages[-1].digest == session.plan.stages[-1].digest
    assert "--budget '20 steps'" in session.record["command"]
    other = resolve(replace(asked, overrides=(*free, "rl.steps=3")), session.store, session.machine)[1]
    assert other is not None and other.key != session.record["budget"]["key"]
    assert other.overrides == ("rl.steps=20",)  # 60 x 20/60


def test_a_budget_for_what_trains_nothing_or_is_not_known_is_refused(tmp_path: Path) -> None:
    asked = Request("math/tiny", budget="5 steps", machine="cpu", store=str(tmp_path))
    with pytest.raises(UserError, match="^budget: '5 steps' was given, but no training stage"):
        resolve(replace(asked, until=("corpus",)), Store(tmp_path), load_machine("cpu"))
    uncounted = replace(asked, preset="math/7b", budget="5000 steps", overrides=("examples.sources=[{name: finemath}]",
                        "examples.output=examples"), base="seedling")  # fmt: skip
    with pytest.raises(UserError, match="^budget: what sft takes cannot be told: how many rows examples will hold"):
        resolve(uncounted, Store(tmp_path), load_machine("cpu"))


def test_a_verifier_is_chosen_for_all_stages_of_rl_and_nothing_else() -> None:
    recipe = load_recipe("reasoning/tiny")
    ids = [stage.id for stage in recipe.stages if stage.kind == "rl"]
    assert verifier_overrides(recipe, "think_math") == [f"{name}.verifier=think_math" for name in ids]
    changed = load_recipe("reasoning/tiny", verifier_overrides(recipe, "think_math"))
    assert [stage for stage in changed.stages if stage.kind != "rl"] == [
        stage for stage in recipe.stages if stage.kind != "rl"
    ]


@pytest.mark.parametrize("name", ["nosuch", "", "Math", "math ", "../math", "math\0", "x" * 5000, "1", "on", "[math]"])
def test_a_verifier_that_is_not_installed_is_refused_in_one_line_that_names_the_field(name: str) -> None:
    with pytest.raises(UserError, match="^verifier: ") as refused:
        verifier_overrides(load_recipe("math/tiny"), name)
    assert "\n" not in str(refused.value)


def test_a_verifier_for_a_preset_without_rl_or_in_use_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("base: seedling\nstages:\n- {id: text, kind: corpus, output: tokens, num_tokens: 9,\n"
                    "   sources: [{name: python_stdlib}]}\n")  # fmt: skip
    with pytest.raises(UserError, match="^verifier: 'math' was chosen, but one has no rl stage"):
        verifier_overrides(load_recipe(str(path)), "math")
    audited = load_recipe("math/tiny", ["rl.audit={verifier: exact}"])
    with pytest.raises(UserError, match=r"^verifier: 'exact' is used in rl\.audit already"):
        verifier_overrides(audited, "exact")
