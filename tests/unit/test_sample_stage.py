"""Rejection sampling: what becomes an example, a pair, a problem, and what is left out and why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import derivatives.seedling
from configs.errors import UserError
from configs.load import check_recipe
from configs.settings.common import Sampling, TaskSource
from configs.settings.machine import Machine
from configs.settings.reinforcement import SampleStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import sample
from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Judged
from derivatives.rollout.stored import StoredRollouts
from derivatives.sample import Sorter, Writer, likeliest_pairs, nearest_pairs, rate_of
from verifiers.api import Task, Verdict, correct, incorrect, no_verdict

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"


def stage(**given: Any) -> SampleStage:
    return SampleStage(**{"id": "sample", "data": ("p.jsonl",), **given})


def drawn(text: str, verdict: Verdict, length: int = 3, cut: bool = False, log_prob: float = -1.0) -> Judged:
    return Judged(Completion([1] * length, [log_prob] * length, "length" if cut else "stop", text), verdict)


TASK = Task("t", "What is 3 + 4?", "7", source="sums", metadata={"family": "x"})
RIGHT, WRONG = correct("7"), incorrect("other", "8")
GROUP = [
    drawn("3 + 4 = 7. \\boxed{7}", RIGHT, 9), drawn("\\boxed{8}", WRONG, 4), drawn("3 + 4 =  7. \\boxed{7}", RIGHT, 9),
    drawn("\\boxed{7}", RIGHT, 3), drawn("again and again", incorrect("truncated"), 50, cut=True),
    drawn("so \\boxed{9}", WRONG, 8), drawn("?", no_verdict("away"), 1), drawn("it is \\boxed{7}", RIGHT, 5),
]  # fmt: skip


def sort(tmp_path: Path, *groups: list[Judged], **given: Any) -> tuple[Sorter, dict[str, list[dict[str, Any]]]]:
    sorter = Sorter(stage(**given))
    with Writer(tmp_path) as writer:
        for group in groups:
            sorter.sort(TASK, group, writer)
    return sorter, {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in Writer.FILES
    }


def test_right_and_distinct_completions_become_examples_up_to_a_number(tmp_path: Path) -> None:
    sorter, found = sort(tmp_path, GROUP, max_examples=2)
    assert [line["completion"] for line in found["examples"]] == ["3 + 4 = 7. \\boxed{7}", "\\boxed{7}"]
    assert {line["prompt"] for line in found["examples"]} == {"What is 3 + 4?"}
    assert sorter.dropped.by_reason() == {"beyond_max_examples": 1, "exact_duplicate": 1}


def test_a_pair_is_a_right_and_a_wrong_one_of_like_length_and_never_one_that_was_cut(tmp_path: Path) -> None:
    _, found = sort(tmp_path, GROUP, max_pairs=5)
    # Lengths 9, 3, 5 right; 4, 8 wrong: 9 with 8 and 3 with 4 are one token apart; nothing is left for 5.
    assert [(line["chosen"], line["rejected"]) for line in found["pairs"]] == [
        ("3 + 4 = 7. \\boxed{7}", "so \\boxed{9}"), ("\\boxed{7}", "\\boxed{8}"),
    ]  # fmt: skip
    assert len({line["id"] for line in found["pairs"]}) == 2


def test_each_completion_is_in_one_pair_at_most() -> None:
    right, wrong = [drawn("a", RIGHT, 5), drawn("b", RIGHT, 6)], [drawn("c", WRONG, 5)]
    assert [(a.completion.text, b.completion.text) for a, b in nearest_pairs(right, wrong)] == [("a", "c")]


def test_the_likeliest_wrong_one_of_like_length_is_unlearnt(tmp_path: Path) -> None:
    right = [drawn("rare", RIGHT, 8, log_prob=-0.5), drawn("usual", RIGHT, 9, log_prob=-0.1)]
    habit, slip = drawn("habit", WRONG, 10, log_prob=-0.2), drawn("slip", WRONG, 9, log_prob=-2.0)
    short = drawn("short", WRONG, 4, log_prob=-0.01)  # the likeliest, but half as long
    found = [(a.completion.text, b.completion.text) for a, b in likeliest_pairs(right, [slip, short, habit])]
    assert found == [("usual", "habit"), ("rare", "slip")]
    assert list(likeliest_pairs(right, [short])) == []
    _, lines = sort(tmp_path, [*right, slip, habit], pairs_by="likelihood")
    assert [(line["chosen"], line["rejected"]) for line in lines["pairs"]] == [("usual", "habit")]
    _, lines = sort(tmp_path, [*right, slip, habit])
    assert [(line["chosen"], line["rejected"]) for line in lines["pairs"]] == [("usual", "slip")]


def test_the_report_says_which_problems_gave_pairs_and_why_others_did_not(tmp_path: Path) -> None:
    groups = [
        GROUP,
        [drawn("all", RIGHT), drawn("of them", RIGHT)],
        [drawn("none", WRONG), drawn("of these", no_verdict("away"))],
        [drawn("one", RIGHT), drawn("cut off", incorrect("truncated"), 50, cut=True)],
        [drawn("two", RIGHT, 8), drawn("\\boxed{8}", WRONG, 8)],  # the wrong one was written before
        [drawn("all", RIGHT, 8), drawn("three", WRONG, 8)],  # the right one was
        [drawn("?", no_verdict("away"))] * 2,  # no rate: left out of pairs as of everything
    ]
    sorter, found = sort(tmp_path, *groups, max_pairs=2)
    report = sorter.report({})
    assert report["paired"]["problems"] == {
        "all_right": 1, "gave_pairs": 1, "no_fitting_wrong_one": 1, "no_usable_right_one": 1, "none_right": 1,
        "wrong_ones_cut": 1,
    }  # fmt: skip
    assert (report["paired"]["chosen_tokens"], report["paired"]["rejected_tokens"]) == (6.0, 6.0)  # 9, 3 and 8, 4
    assert len(found["pairs"]) == 2 and report["dropped"]["no_verdict"] == 1
    assert "paired" not in sort(tmp_path, GROUP, max_pairs=0)[0].report({})


def test_a_pass_rate_is_over_the_judged_and_counts_what_was_cut_as_wrong() -> None:
    rate = rate_of(GROUP)
    assert (rate.correct, rate.judged, rate.cut, rate.value) == (4, 7, 1, 4 / 7)
    assert rate_of([drawn("?", no_verdict("away"))]).value is None


def test_a_problem_outside_the_asked_pass_rates_gives_nothing(tmp_path: Path) -> None:
    easy, hard, unknown = [drawn("a", RIGHT)] * 4, [drawn("b", WRONG)] * 4, [drawn("c", no_verdict("away"))] * 4
    sorter, found = sort(tmp_path, easy, hard, unknown, GROUP, min_pass_rate=0.1, max_pass_rate=0.9)
    assert sorter.dropped.by_reason() == {
        "exact_duplicate": 1, "no_verdict": 1, "pass_rate_too_high": 1, "pass_rate_too_low": 1,
    }  # fmt: skip
    assert [line["pass_rate"] for line in found["problems"]] == [4 / 7]
    assert [line["pass_rate"] for line in found["pass_rates"]] == [1.0, 0.0, None, 4 / 7]
    assert found["problems"][0]["metadata"] == {"family": "x"} and found["problems"][0]["answer"] == "7"
    assert sorter.report({})["histogram"]["0.6"] == 1


def test_benchmark_questions_are_neither_sampled_nor_written(tmp_path: Path) -> None:
    bench = tmp_path / "bench.jsonl"
    bench.write_text(
        '{"prompt": "What is 3 + 4?", "answer": "7"}\n{"prompt": "How old is the old oak?", "answer": "9"}\n'
    )
    given = {"decontaminate": (TaskSource(name=str(bench)),), "num_samples": 2}
    sorter = Sorter(stage(**given))
    other = Task("u", "What is 30 + 4?", "34", source="sums")
    assert sorter.clean([TASK, other, other]) == [other]
    assert sorter.dropped.by_reason() == {"contaminated:bench.jsonl": 1, "exact_duplicate": 1}
    with pytest.raises(UserError, match="stage.data: no problem .* is left .contaminated:bench.jsonl 1"):
        Sorter(stage(**given)).clean([TASK])
    sorter = Sorter(stage(**given))
    repeats = drawn("34\nHow old is the old oak?\n\\boxed{34}", RIGHT)
    with Writer(tmp_path) as writer:
        sorter.sort(other, [repeats, drawn("\\boxed{34}", RIGHT)], writer)
    assert writer.counts["examples"] == 1 and sorter.dropped.by_reason() == {"contaminated:bench.jsonl": 1}


def write_stage_file(tmp_path: Path, **given: Any) -> StageFile:
    lines = [{"id": f"p{a}", "prompt": f"What is {a} + {4 * a}?", "answer": str(5 * a)} for a in range(1200, 1210)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    made = stage(data=(str(tmp_path / "p.jsonl"),), num_samples=6, sampling=Sampling(max_new_tokens=48), **given)
    return StageFile(recipe="t", stage=made, model="base", inputs=inputs, machine=machine)


def products(out: Path) -> dict[str, str]:
    paths = [*sorted((out / "data").iterdir()), *sorted((out / "rollouts").iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_a_run_that_stopped_half_way_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write_stage_file(tmp_path, batch_problems=4, verifier="exact", max_pairs=2)
    for name in ("whole", "halted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(given.model_dump_json())
    sample.run(given, tmp_path / "whole")
    real, calls = sample.roll_out, []

    def power_cut(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*words)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sample, "roll_out", power_cut)
        sample.run(given, tmp_path / "halted")
    assert not (tmp_path / "halted" / "data").exists()
    monkeypatch.setattr(sample, "roll_out", lambda *words: calls.append(words) or real(*words))
    sample.run(given, tmp_path / "halted")
    assert len(calls) == 3 + 1  # only the batch that was cut short is drawn again
    assert products(tmp_path / "halted") == products(tmp_path / "whole")

    figures = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert figures["sample/sampled"] == 10 and figures["sample/examples"] > 0
    assert [line["sample/problems"] for line in read_progress(tmp_path / "whole")] == [4, 8, 10]
    completions = list(StoredRollouts(tmp_path / "whole").completions())
    rates = [json.loads(line) for line in (tmp_path / "whole/data/pass_rates.jsonl").read_text().splitlines()]
    assert len(completions) == 60
    assert sum(rate["correct"] for rate in rates) == sum(one.judged.verdict.score == 1 for one in completions)
    sample.run(given, tmp_path / "whole")  # done: nothing is drawn
    assert len(calls) == 4


def test_a_stage_without_a_problem_of_fitting_difficulty_says_so(tmp_path: Path) -> None:
    given = write_stage_file(tmp_path, verifier="exact", min_pass_rate=0.01, max_pass_rate=0.02)
    with pytest.raises(UserError, match="no problem .* has a pass rate from 0.01 to 0.02 .left out: .*pass_rate_too"):
        sample.run(given, tmp_path / "out")


RECIPE = {
    "name": "t", "title": "t", "status": "validated only",
    "stages": [
        {"id": "problems", "kind": "corpus", "output": "problems", "sources": [{"name": "gsm8k"}]},
        {"id": "picked", "kind": "sample", "data": ["problems"]},
        {"id": "sft", "kind": "sft", "data": ["picked"], "learning_rate": 1e-4},
        {"id": "rl", "kind": "rl", "data": ["picked"], "steps": 2, "learning_rate": 1e-4},
    ],
}  # fmt: skip


def test_a_recipe_may_train_on_what_was_sampled() -> None:
    recipe = check_recipe(json.loads(json.dumps(RECIPE)))
    assert [each.kind for each in recipe.stages] == ["corpus", "sample", "sft", "rl"]
    wrong = json.loads(json.dumps(RECIPE))
    wrong["stages"][1]["data"] = ["problem"]
    with pytest.raises(UserError, match="picked.data: 'problem' names no earlier .*; did you mean 'problems'"):
        check_recipe(wrong)
    wrong["stages"][1] = {**RECIPE["stages"][1], "min_pass_rate": 0.9, "max_pass_rate": 0.2}  # type: ignore[index,dict-item]
    with pytest.raises(UserError, match="picked.min_pass_rate: 0.9 is above max_pass_rate 0.2"):
        check_recipe(wrong)
