"""`derive verifiers diff` and `rescore`: tables by hand, advantages by hand, cases kept once, pages that hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import Reward, RlStage
from configs.stage import StageFile, StageInput
from derivatives.evaluation.agreement import Agreement
from derivatives.rollout.changed import group_changes, reward_under
from derivatives.rollout.stored import Stored
from flows.cli import main
from tests.unit.test_rollout_store import CHECKPOINT, drawn, write
from verifiers import registry
from verifiers.api import Task, correct, incorrect, no_verdict
from verifiers.cases import read_cases

LINES: list[dict[str, Any]] = [
    {"id": "both", "completion": "\\boxed{4}", "gold": "4", "question": "2 + 2?"},
    {"id": "math alone", "completion": "\\boxed{4.0}", "gold": "4", "question": "2 + 2?", "step": 3},
    {"id": "the same again", "completion": "\\boxed{4.0}", "gold": "4", "question": "2 + 2?", "step": 4},
    {"id": "nobody", "completion": "\\boxed{5}", "gold": "4", "question": "2 + 2?"},
    {"id": "no gold to it", "completion": "\\boxed{)x(}", "gold": ")x(", "question": "?"},
]
PLUGIN = '''
from verifiers.api import correct, incorrect, no_verdict
from verifiers.exact import last_box

class Number:
    """Correct if the box holds the gold number."""
    name, version = "number", "1"

    def judge(self, task, completion):
        try:
            gold = float(task.answer)
        except ValueError:
            return no_verdict("gold_is_no_number")
        found = last_box(completion) or ""
        return correct(found, "same_number") if float(found or "nan") == gold else incorrect("other_number", found)
'''


@pytest.fixture
def number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The verifier `number` is installed, in this process and in workers."""
    info = tmp_path / "site" / "number-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "number_verifier.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: number\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[derivative_factory.verifiers]\nnumber = number_verifier:Number\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()
    yield
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()


def stage(**given: Any) -> RlStage:
    return RlStage(id="rl", data=("p.jsonl",), steps=2, learning_rate=1e-3, **given)


def data(folder: Path, lines: list[dict[str, Any]] = LINES) -> str:
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "data.jsonl")


def test_agreement_kappa_and_gap_are_over_what_both_judged() -> None:
    found = Agreement()
    for first, second, count in (
        (correct(), correct(), 6), (correct(), incorrect("x"), 2), (incorrect("y"), correct(), 1),
        (incorrect("y"), incorrect("x"), 1), (no_verdict("z"), correct(), 5),
    ):  # fmt: skip
        for _ in range(count):
            found.note(first, second)
    told = found.as_dict()
    assert (told["completions"], told["judged"], told["changed"]) == (15, 10, 2 + 1 + 5)
    assert told["agreement"]["value"] == 7 / 10
    assert told["gap"]["value"] == pytest.approx(8 / 10 - 7 / 10)
    assert told["kappa"] == pytest.approx((0.7 - (0.8 * 0.7 + 0.2 * 0.3)) / (1 - (0.8 * 0.7 + 0.2 * 0.3)))
    assert told["agreement"]["low"] < 0.7 < told["agreement"]["high"] and told["gap"]["low"] < 0 < told["gap"]["high"]
    assert Agreement.from_dict(json.loads(json.dumps(told))) == found


def test_agreement_of_nothing_and_of_one_label_has_no_kappa() -> None:
    assert Agreement().as_dict()["agreement"] is None and Agreement().gap() is None
    alike = Agreement(Counter({("correct", "correct"): 5}))
    assert alike.kappa() is None and alike.agreement()["value"] == 1.0  # type: ignore[index]


def test_what_becomes_of_a_group_s_advantages() -> None:
    before = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, None]]
    after = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [1.0, 0.0, 0.0]]
    wanted = ["stays", "loses spread", "gains spread", "a sign changes", "a sign changes", "a sign changes"]
    assert group_changes(before, after, stage()) == wanted  # 0.5 of 1, 0, 0.5 is the mean: from below to none
    # 1 and 0 are one deviation from 0.5 each; 1 and 0.5 are from 0.75 too, if divided by it.
    assert group_changes([[1.0, 0.0]], [[1.0, 0.5]], stage()) == ["stays"]
    assert group_changes([[1.0, 0.0]], [[1.0, 0.5]], stage(scale_advantages=False)) == ["only the size changes"]


def test_a_reward_under_another_verdict_keeps_what_the_others_and_the_length_gave() -> None:
    def stored(judged: Any, reward: float | None) -> Stored:
        return Stored(1, 0, 0, Task("a", "?", "4"), judged, reward, True, ("math", "format"))

    two = stage(more_rewards=(Reward(verifier="format", weight=0.5),))
    one = stored(drawn("so", correct(), correct()), 1.5)
    assert reward_under(one, incorrect("x"), two) == 0.5 and reward_under(one, no_verdict("x"), two) is None
    assert reward_under(one, None, two) == 1.5  # it was cut: nobody is asked
    shaped = stage(truncated="shaped")
    assert reward_under(stored(drawn("so", correct()), 0.75), incorrect("x"), shaped) == -0.25
    missing = stored(drawn("so", no_verdict("x"), correct()), None)
    assert reward_under(missing, correct(), two) == 1.5  # the one that was missing is there
    assert reward_under(stored(drawn("so", no_verdict("x")), None), correct(), shaped) is None


def test_diff_counts_lists_and_keeps_each_disagreement_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: None
) -> None:
    cases, out = tmp_path / "cases.jsonl", tmp_path / "changed.jsonl"
    words = ["verifiers", "diff", "exact", "number", data(tmp_path), "--workers", "1", "--cases", str(cases)]
    assert main([*words, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == [
        {"first": "correct", "second": "correct", "count": 1},
        {"first": "correct", "second": "no_verdict", "count": 1},
        {"first": "incorrect", "second": "correct", "count": 2},
        {"first": "incorrect", "second": "incorrect", "count": 1},
    ]
    assert (found["changed"], found["agreement"]["value"], found["kappa"]) == (3, 0.5, 0.2)
    assert found["cases"] == {"file": str(cases), "truth": "exact", "added": 2, "already": 1, "without_truth": 0,
                              "contradicted": 0}  # fmt: skip
    changed = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in changed] == ["math alone", "the same again", "no gold to it"]
    assert changed[0]["number"]["reason"] == "same_number" and changed[0]["exact"]["outcome"] == "incorrect"
    kept = read_cases(cases)
    assert [(one.task.answer, one.expect.value) for one in kept] == [("4", "incorrect"), (")x(", "correct")]
    assert kept[0].task.prompt == "2 + 2?" and kept[0].task.metadata == {}  # the step is no part of it
    assert kept[0].why == "exact incorrect (other_text); number correct (same_number)"
    assert main([*words, "--truth", "B"]) == 0
    told = capsys.readouterr().out
    assert "cases: 0 added, 0 there already, 1 without a verdict of number, 2 expected otherwise there" in told
    assert "agreement 50.0% [15.0, 85.0] of 4 with two verdicts" in told and "Cohen's kappa 0.200" in told
    assert "math alone: exact incorrect (other_text), read 4.0; number correct (same_number), read 4.0" in told


def test_diff_shows_hostile_text_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"id": "[red]x\x1b[31m", "completion": "\x1b]0;owned\x07 [bold]\\boxed{4.0}\u202e", "gold": "4"}
    assert main(["verifiers", "diff", "exact", "math", data(tmp_path, [line]), "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\u202e" not in told and "[red]x\\u001b[31m" in told and "[bold]" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exact", "exact"], "B: 'exact' is A; give another verifier"),
        (["exact", "mth"], "'mth' is not known"),
        (["exact", "code"], "data.jsonl:1: tests: missing; verifier 'code' needs"),
        (["exact", "math", "--out", "{folder}/data.jsonl"], "--out: .*data.jsonl exists; give another file"),
        (["exact", "math", "--cases", "{folder}/no/c.jsonl"], "--cases: .*no such folder"),
        (["exact", "math", "--cases", "{folder}/data.jsonl"], "data.jsonl:1: 'id' is no key of a case"),
    ],
)
def test_what_diff_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    first, second, *more = [word.format(folder=tmp_path) for word in words]
    assert main(["verifiers", "diff", first, second, data(tmp_path), *more]) == 2
    err = capsys.readouterr().err
    assert re.search(said, err), err


def test_rescore_of_rollouts_lists_labels_rewards_and_advantages_and_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1, 2)
    weighted = stage(more_rewards=(Reward(verifier="format", weight=0.5),), partial_credit=True)
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    described = StageFile(recipe="t", stage=weighted, model="base", inputs=inputs)
    (tmp_path / "stage.json").write_text(described.model_dump_json())
    page, out, cases = tmp_path / "page.html", tmp_path / "changed.jsonl", tmp_path / "cases.jsonl"
    words = ["verifiers", "rescore", str(tmp_path), "--with", "exact", "--workers", "1"]
    assert main([*words, "--json", "--page", str(page), "--out", str(out), "--cases", str(cases)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["first"], found["second"], found["completions"], found["changed"]) == ("math", "exact", 6, 2)
    # By `exact`, 1 + 0.5 and 0 as before (but for partial credit); the cut one has its -1, and what `math` could not
    # judge gets 0 + 0.5, so that the second group has a spread.
    assert found["groups"] == {"gains spread": 2, "loses spread": 0, "a sign changes": 0, "only the size changes": 0,
                               "stays": 2}  # fmt: skip
    assert [one["step"] for one in found["steps"]] == [1, 2]
    before, after = found["steps"][0]["reward"]
    assert before == pytest.approx((1.5 + 0.25 - 1.0) / 3) and after == pytest.approx((1.5 + 0.0 - 1.0 + 0.5) / 4)
    assert found["cases"]["without_truth"] == 2 and not cases.exists()  # math, who is believed, has no verdict
    assert [json.loads(line)["exact"]["reason"] for line in out.read_text().splitlines()] == ["other_text"] * 2
    text = page.read_text()
    assert "mean reward" in text and "gains spread" in text and text.count("<details") == 2 and "<script" not in text
    assert main([*words, "--steps", "2", "--truth", "B", "--cases", str(cases)]) == 0
    told = capsys.readouterr().out
    assert "advantages of 2 groups under exact: gains spread 1 (50.0%)" in told
    assert read_cases(cases)[0].expect.value == "incorrect" and "step 2, group 1, sample 1: math no_verdict" in told
    assert main([*words[:-3], "math", "--workers", "1", "--show", "0"]) == 0  # what another version of it had said
    assert "math (stored) calls" in capsys.readouterr().out
    assert main([*words, "--page", str(page)]) == 2 and "page.html exists" in capsys.readouterr().err


def test_rescore_of_an_evaluation_gives_each_model_both_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = EvaluateStage(id="e", models=("base", "rl"), tasks=({"name": "reasoning_gym/chain_sum", "count": 2},))  # type: ignore[arg-type]
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    (tmp_path / "stage.json").write_text(StageFile(recipe="t", stage=made, model="e", inputs=inputs).model_dump_json())
    (tmp_path / "results.json").write_text(json.dumps({"judge": "math"}))
    rows = [
        {"model": model, "task": f"t{number}", "source": "s", "prompt": "2 + 2?", "answer": "4",
         "completion": text, "extracted": None, "outcome": outcome, "reason": reason}
        for model, answers in {
            "base": [("\\boxed{4.0}", "correct", ""), ("none", "incorrect", "forged_output")],
            "rl": [("\\boxed{4}", "correct", ""), ("\\boxed{4.0}", "correct", "")],
        }.items() for number, (text, outcome, reason) in enumerate(answers)
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["verifiers", "rescore", str(tmp_path), "--with", "exact", "--workers", "1", "--json",
                 "--page", str(tmp_path / "page.html")]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    shares = {name: (row["first"]["value"], row["second"]["value"]) for name, row in found["models"].items()}
    assert shares == {"base": (0.5, 0.0), "rl": (1.0, 0.5)}
    assert found["completions"] == 3 and found["problems"] == "prompt and gold answer of samples.jsonl alone"
    assert "greedy pass@1" in (tmp_path / "page.html").read_text()
