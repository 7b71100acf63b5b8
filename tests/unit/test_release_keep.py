"""What a release must keep of its base: the second side of the gates, against hand-made evaluations."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.describe import recipe_as_yaml
from configs.errors import UserError
from configs.judges import own_verifiers
from configs.load import load_recipe
from configs.settings.common import TaskSource
from configs.settings.evaluation import Gate, Keep
from derivatives import gates
from derivatives.gates import GateResult, check_gates

LOST = {"value": -0.01, "low": -0.03, "high": 0.01}
"""One point lost of the other domains' tasks, three at worst."""


def evaluation(kept: Any = LOST, bits: Any = None, base_correct: int = 30) -> dict[str, Any]:
    solved = {"lists": {"value": base_correct / 100, "low": 0.2, "high": 0.4, "correct": base_correct, "total": 100}}
    pair = {"pass@1": {"value": 0.2, "low": 0.1, "high": 0.3}, "kept": kept, "bits_per_byte": bits or {}}
    return {
        "models": {
            "base": {"pass@1": {"value": 0.1}, "kept": solved, "bits_per_byte": {"python": 2.0}},
            "rl": {"pass@1": {"value": 0.3}, "kept": {}, "bits_per_byte": {"python": 2.03}},
        },
        "pairwise": {"base->rl": pair},
    }


def kept(results: dict[str, Any], keep: Keep) -> list[GateResult]:
    return check_gates(results, (), "rl", keep)


def test_by_default_two_points_may_be_lost_and_bits_per_byte_may_rise_by_a_hundredth() -> None:
    tasks, text = kept(evaluation(), Keep())
    assert (tasks.metric, tasks.required, tasks.passed) == ("kept", -0.02, False), "-3 at worst is more than 2"
    assert (text.metric, text.tasks, text.required, text.passed) == ("bits_per_byte rise", "python", -0.01, False)
    assert text.line() == (
        "gate bits_per_byte rise of python, rl against base: +1.5%; must rise by at most +1.0%; not passed "
        "(without an interval)"
    )


def test_a_looser_margin_is_told_beside_the_default_one() -> None:
    tasks, text = kept(evaluation(), Keep(tasks=-0.08, bits_per_byte=0.15))
    assert tasks.passed and text.passed and tasks.looser and text.looser
    assert tasks.line() == (
        "gate kept, rl against base: gain -0.010 [-0.030, +0.010]; must lose less than 8.0 points, looser than the "
        "default 2.0 points; passed"
    )
    assert "must rise by at most +15.0%, looser than the default +1.0%" in text.line()


def test_the_end_of_the_interval_counts_and_not_the_middle() -> None:
    within = {"python": {"value": 0.004, "low": -0.002, "high": 0.01}}
    beyond = {"python": {"value": 0.004, "low": -0.002, "high": 0.0101}}
    level = {"value": -0.001, "low": -0.02, "high": 0.018}
    assert [one.passed for one in kept(evaluation(kept=level, bits=within), Keep())] == [False, True], "equal is lost"
    assert not kept(evaluation(bits=beyond), Keep())[1].passed
    assert kept(evaluation(bits=beyond), Keep())[1].measured() == "+0.4% [-0.2%, +1.0%]"


def test_a_side_is_dropped_by_name_and_what_is_not_measured_never_passes() -> None:
    assert kept(evaluation(), Keep(tasks="none", bits_per_byte="none")) == []
    results = evaluation(kept=None)
    results["models"]["rl"]["bits_per_byte"] = {}
    tasks, text = kept(results, Keep(tasks=-1.0, bits_per_byte=9.0))
    assert (tasks.gain, tasks.passed, text.gain, text.passed) == (None, False, None, False)
    assert "asks no kept_tasks" in tasks.line() and "not measured" in text.line()


def test_a_base_that_solves_none_of_them_has_nothing_to_lose_and_the_gate_says_so() -> None:
    tasks = kept(evaluation(kept={"value": 0.0, "low": 0.0, "high": 0.0}, base_correct=0), Keep())[0]
    assert tasks.passed and "this shows nothing" in tasks.line()


def test_a_gate_on_one_set_takes_the_paired_interval_or_else_the_two_models_own() -> None:
    row = {"value": 0.5, "low": 0.4, "high": 0.6}
    results = evaluation()
    results["models"]["base"]["by_task"] = {"sums": row}
    results["models"]["rl"]["by_task"] = {"sums": {"value": 0.7, "low": 0.6, "high": 0.8}}
    gate = Gate(metric="pass@1", tasks="sums", min_gain=0.05)
    found = check_gates(results, (gate,), "rl")[0]
    # 0.2 -+ sqrt(0.1 ** 2 + 0.1 ** 2), and 0.1 * sqrt(2) = 0.1414
    assert found.passed and found.low == pytest.approx(0.2 - 0.1 * 2**0.5)
    assert "pass@1 of sums" in found.line() and "independent" in found.line()
    results["pairwise"]["base->rl"]["by_task"] = {"sums": {"value": 0.2, "low": 0.02, "high": 0.38}}
    paired = check_gates(results, (gate,), "rl")[0]
    assert (paired.low, paired.passed, paired.detail) == (0.02, False, "")
    results["pairwise"]["base->rl"]["kept_by_task"] = {"lists": {"value": -0.1, "low": -0.2, "high": 0.0}}
    lost = check_gates(results, (Gate(metric="kept", tasks="lists", min_gain=-0.3),), "rl")[0]
    assert (lost.low, lost.passed) == (-0.2, True)


def test_a_text_of_one_document_has_no_interval_and_its_figure_counts() -> None:
    one = {"python": {"value": 0.015, "low": None, "high": None, "documents": 1}}
    text = kept(evaluation(bits=one), Keep(bits_per_byte=0.02))[1]
    assert (text.passed, text.detail) == (True, "without an interval") and text.measured() == "+1.5%"


def test_maj_at_k_and_kept_are_gates_of_their_own_as_well() -> None:
    results = evaluation()
    results["pairwise"]["base->rl"]["maj@k"] = {"value": 0.1, "low": 0.05, "high": 0.15}
    wanted = (Gate(metric="maj@k", min_gain=0.04), Gate(metric="maj@k", min_gain=0.05), Gate(metric="kept"))
    assert [one.passed for one in check_gates(results, wanted, "rl")] == [True, False, False]


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe("math/tiny", overrides)
    return str(caught.value)


def test_a_recipe_that_measures_no_loss_is_refused_unless_it_says_none() -> None:
    said = refusal("evaluate.kept_tasks=[]", "release.keep={}")
    assert said.startswith("release.keep.tasks: -0.02 is required of what evaluate does not measure")
    assert "release.keep.tasks=none" in said and "evaluate.kept_tasks=[" in said
    said = refusal("evaluate.heldout_text=[]", "release.keep={}")
    assert said.startswith("release.keep.bits_per_byte: 0.01")
    dropped = ["evaluate.kept_tasks=[]", "evaluate.heldout_text=[]", "release.keep={tasks: none, bits_per_byte: none}"]
    assert load_recipe("math/tiny", dropped).stage("release").keep.tasks == "none"


def test_a_gate_on_what_is_not_asked_is_refused() -> None:
    assert "is no set of evaluate.tasks" in refusal("release.gates=[{metric: pass@1, tasks: gsm8k}]")
    assert "set evaluate.num_samples" in refusal("evaluate.num_samples=1", "release.gates=[{metric: maj@k}]")
    assert "measured over all sets" in refusal("release.gates=[{metric: maj@k, tasks: reasoning_gym/gcd}]")


def test_a_judge_that_gave_the_reward_is_refused_by_what_it_is_and_not_by_its_name() -> None:
    assert "evaluate.judge: 'math' is the reward rl.verifier=math" in refusal("evaluate.judge=math")
    said = refusal("evaluate.judge=think_math")
    assert "'think_math' shares its implementation with the reward rl.verifier=math" in said
    assert "set evaluate.judge=math_verify" in said
    assert "each task set's own" in refusal("evaluate.judge=null", "rl.verifier=puzzles")
    rewards = "rl.more_rewards=[{verifier: exact, weight: 0.5}]"
    assert "rl.more_rewards[0].verifier=exact" in refusal("evaluate.judge=exact", rewards)
    allowed = load_recipe("math/tiny", ["evaluate.judge=math", "release.allow_same_judge=true"])
    assert allowed.stage("release").allow_same_judge


@pytest.mark.parametrize(
    ("judge", "name"),
    [("math_verify", "humaneval"), ("exact", "functions/lists"), ("counterpart", "structured/orders")],
)
def test_a_judge_that_cannot_read_a_set_is_refused_before_anything_is_trained(judge: str, name: str) -> None:
    split, count = ("test", "") if name == "humaneval" else ("heldout", ", count: 5")
    asked = f"evaluate.tasks=[{{name: {name}, split: {split}{count}}}]"
    assert f"{judge!r} cannot judge {name!r}" in refusal(f"evaluate.judge={judge}", asked, "release.gates=[]")


def test_the_verifiers_that_a_users_file_names_count_as_judges(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "2?", "answer": "2", "verifier": "puzzles"}\n\n')
    assert own_verifiers(TaskSource(name=str(path))) == ("puzzles",), "an empty line is none"
    path.write_text('{"prompt": "1?", "answer": "1"}\n{"prompt": "2?", "answer": "2", "verifier": "puzzles"}\n'
                    '{"prefix": "a", "middle": "bcd", "suffix": "e"}\n')  # fmt: skip
    assert own_verifiers(TaskSource(name=str(path))) == ("math", "puzzles", "fim")
    assert own_verifiers(TaskSource(name=str(tmp_path / "absent.jsonl"))) == ("math",)
    own = ["evaluate.judge=null", f"evaluate.tasks=[{{name: {path}, split: all}}]", "release.gates=[]"]
    assert "'puzzles' (each task set's own) is the reward rl.verifier=puzzles" in refusal(*own, "rl.verifier=puzzles")


def test_what_paid_the_model_whose_samples_were_trained_on_is_a_reward_too(tmp_path: Path) -> None:
    """The teacher is rewarded by `puzzles`, its samples are chosen by `exact`, and the judge is `puzzles`."""
    pupil = {"id": "pupil", "kind": "sft", "model": "base", "data": ["drawn"], "epochs": 1, "learning_rate": 1e-4}
    drawn = {"id": "drawn", "kind": "sample", "model": "rl", "data": ["problems"], "verifier": "exact"}
    raw = yaml.safe_load(recipe_as_yaml(load_recipe("math/tiny")))
    at = next(place for place, stage in enumerate(raw["stages"]) if stage["id"] == "rl")
    raw["stages"][at]["verifier"] = "puzzles"
    raw["stages"][at + 1 : at + 1] = [drawn, pupil]
    for stage in raw["stages"]:
        if stage["id"] == "evaluate":
            stage.update(models=["base", "pupil"], judge="puzzles")
        if stage["id"] == "release":
            stage.update(model="pupil", gates=[])
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="'puzzles' is the reward rl.verifier=puzzles"):
        load_recipe(str(tmp_path / "taught.yaml"))


def test_the_examples_in_docstrings_hold() -> None:
    from configs import judges

    assert [doctest.testmod(module).failed for module in (gates, judges)] == [0, 0]
