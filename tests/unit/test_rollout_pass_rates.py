"""Pass rates measured by a sample stage: matched with the problems of an rl stage, which starts from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.errors import UserError
from configs.load import load_recipe
from configs.settings.reinforcement import PassRates, RlStage
from configs.stage import StageFile, StageInput
from derivatives import rl
from derivatives.rollout.curriculum import RARE, Curriculum
from derivatives.rollout.pass_rates import read_pass_rates, with_pass_rates
from flows.plan import make_plan
from flows.report import Stage, curve_section
from flows.store import Store
from verifiers.api import Task

RATES: dict[str, float | None] = {"a": 0.0, "b": 0.25, "c": 0.5, "d": 1.0, "e": None, "f": 0.75}
RECIPE = """
title: Sums
status: validated only
base: seedling
stages:
  - id: problems
    kind: corpus
    output: problems
    sources: [{name: reasoning_gym/chain_sum, count: 20}]
  - {id: picked, kind: sample, data: [problems], verifier: exact}
  - id: rl
    kind: rl
    data: [picked]
    verifier: exact
    steps: 2
    learning_rate: 1e-4
    pass_rates: {stage: picked, between: [0.1, 0.9]}
"""


def stage_file(folder: Path, rates: list[dict[str, Any]], problems: list[str], **given: Any) -> StageFile:
    """An rl stage over the folder of a sample stage."""
    (folder / "data").mkdir()
    write(folder / "data" / "pass_rates.jsonl", rates)
    lines = [{"id": name, "source": "s", "prompt": f"What is {name}?", "answer": "1"} for name in problems]
    write(folder / "data" / "problems.jsonl", lines)
    plain: dict[str, Any] = {
        "id": "rl", "data": ("picked",), "steps": 2, "prompts_per_step": 2, "learning_rate": 1e-3,
        "pass_rates": {"stage": "picked", "between": (0.1, 0.9)},
    }  # fmt: skip
    stage = RlStage.model_validate({**plain, **given})
    return StageFile(recipe="t", stage=stage, inputs={"picked": StageInput(kind="sample", path=str(folder))})


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measured(**more: float | None) -> list[dict[str, Any]]:
    return [{"id": name, "source": "s", "pass_rate": rate} for name, rate in {**RATES, **more}.items()]


def read(file: StageFile) -> tuple[list[str], list[float] | None, dict[str, int]]:
    assert isinstance(file.stage, RlStage)
    tasks, rates, left_out = rl.read_problems(file, file.stage)
    return [task.id for task in tasks], rates, left_out


def test_problems_in_the_band_are_trained_on_with_their_rates_and_the_others_are_counted(tmp_path: Path) -> None:
    kept, rates, left_out = read(stage_file(tmp_path, measured(g=0.1, h=0.9), list("hgfedcba")))
    assert kept == ["h", "g", "f", "c", "b"] and rates == [0.9, 0.1, 0.75, 0.5, 0.25]
    assert left_out == {"left_out_too_hard": 1, "left_out_too_easy": 1, "left_out_no_verdict": 1}


def test_without_pass_rates_nothing_is_known_and_nothing_left_out(tmp_path: Path) -> None:
    assert read(stage_file(tmp_path, [], list("ab"), pass_rates=None)) == (["a", "b"], None, {})


def test_too_few_that_are_left_say_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompts_per_step: 2 distinct.*has 1 \(left_out_too_hard 1, .*too_easy 1"):
        read(stage_file(tmp_path, measured(), list("abde")))


def test_a_problem_that_was_not_measured_or_stands_there_twice_is_named() -> None:
    rates, settings = {("s", "a"): 0.5, ("t", "b"): 0.5}, PassRates(stage="picked")
    with pytest.raises(UserError, match=r"'picked' measured 2 problems, but not 'b' of 's'.*set data=\[picked\]"):
        with_pass_rates([Task("a", "?", "1", source="s"), Task("b", "?", "1", source="s")], rates, settings)
    with pytest.raises(UserError, match="problem 'a' of 's' is there twice"):
        with_pass_rates([Task("a", "?", "1", source="s"), Task("a", "!", "1", source="s")], rates, settings)
    same_id = [Task("a", "?", "1", source="s"), Task("b", "?", "1", source="t")]
    assert with_pass_rates(same_id, rates, settings)[1] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "source": "s", "pass_rate": 0.5}', "7: problem 'a' of 's' has two pass rates"),
        ('{"id": "z", "source": "s", "pass_rate": 1.5}', "7: no line with id, source and a pass_rate from 0 to 1"),
        ('{"id": "z", "pass_rate": 0.5}', "7: no line with id"),
        ('{"id": "z", "sour', "7: no line with id"),
        ("[]", "7: no line with id"),
    ],
)
def test_pass_rates_that_cannot_be_used_are_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    file = stage_file(tmp_path, measured(), ["a"])
    with (tmp_path / "data" / "pass_rates.jsonl").open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(UserError, match=message):
        read_pass_rates(file, "picked")


def test_a_stage_without_pass_rates_is_refused(tmp_path: Path) -> None:
    file = stage_file(tmp_path, [], ["a"])
    (tmp_path / "data" / "pass_rates.jsonl").unlink()
    with pytest.raises(UserError, match="'picked' has no pass_rates.jsonl; allowed: a finished sample stage"):
        read_pass_rates(file, "picked")


def test_the_curriculum_starts_from_them_and_a_visit_counts_half() -> None:
    curriculum = Curriculum(3, seed=0, adaptive=True, retire_after=1, rates=[0.0, 0.25, float("nan")])
    assert curriculum.weights() == pytest.approx([RARE, 0.75, 1.0])
    assert not curriculum.retired().any()  # what was measured with another model is no visit
    curriculum.note(1, 0.75)
    assert curriculum.rates[1] == 0.5
    with pytest.raises(ValueError, match="rates"):
        Curriculum(3, seed=0, adaptive=True, rates=[0.5])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"between: \[0.9, 0.1\] has no rate in it"):
        PassRates(stage="picked", between=(0.9, 0.1))
    plain = {"id": "rl", "data": ["p"], "steps": 2, "learning_rate": 1e-3, "curriculum": False}
    with pytest.raises(ValidationError, match="rl.pass_rates: with curriculum off and no bounds"):
        RlStage.model_validate({**plain, "pass_rates": {"stage": "p"}})
    RlStage.model_validate({**plain, "pass_rates": {"stage": "p", "between": [0, 0.5]}})


def recipe(folder: Path, overrides: tuple[str, ...] = (), text: str = RECIPE) -> Any:
    (folder / "r.yaml").write_text(text)
    return load_recipe(str(folder / "r.yaml"), list(overrides))


def test_a_plan_reads_the_sample_stage_and_the_bounds_are_in_the_digest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def planned(*overrides: str, text: str = RECIPE) -> Any:
        return make_plan(recipe(tmp_path, overrides, text), store).stage("rl")

    first = planned()
    assert set(first.inputs) == {"base", "picked"}
    assert planned("rl.data=[problems]").inputs.keys() == {"base", "picked", "problems"}
    assert planned("rl.pass_rates.between=[0.2, 0.9]").digest != first.digest
    assert planned("rl.importance_cap=3.0").digest != first.digest
    renamed = planned(text=RECIPE.replace("picked", "chosen"))
    assert renamed.digest == first.digest  # by what the stage is, not by its name


def test_only_an_earlier_sample_stage_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rl.pass_rates.stage: 'problems' names no earlier sample stage"):
        recipe(tmp_path, ("rl.pass_rates.stage=problems",))


def test_the_report_says_how_many_were_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"rl/problems": 5, "rl/left_out_too_easy": 7}))
    section = curve_section(Stage({"id": "rl", "kind": "rl", "folder": str(tmp_path)}))
    assert section["problems"] == {"trained": 5, "left_out": {"too_easy": 7}}
    (tmp_path / "metrics.json").write_text(json.dumps({"rl/problems": 5}))
    assert not curve_section(Stage({"id": "rl", "kind": "rl", "folder": str(tmp_path)}))["problems"]
