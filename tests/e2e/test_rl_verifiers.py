"""Reinforcement learning with verifiers that can be fooled, that fail now and then, and that mostly fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import derivatives.seedling
from configs.errors import UserError
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import Audit, Reward, RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl
from derivatives.rollout.stored import StoredRollouts
from flows.report import write_report
from verifiers import registry

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
PLUGIN = '''
import hashlib
import os
from verifiers.api import correct, incorrect, no_verdict
from verifiers.exact import ExactVerifier, last_box

class Generous:
    """Fooled by any large number."""
    name, version = "generous", "1"

    def judge(self, task, completion):
        found = last_box(completion) or ""
        return correct(found) if found.isdigit() and int(found) >= int(task.answer) else incorrect("too_small", found)

class Failing(ExactVerifier):
    name, share = "failing", 5

    def judge(self, task, completion):
        if hashlib.sha256(completion.encode()).digest()[0] % 100 < self.share:
            return no_verdict("away")
        return super().judge(task, completion)

class MostlyFailing(Failing):
    """Until it is mended."""
    name, share = "mostly_failing", 0 if os.environ.get("MENDED") else 60

class Short:
    """Partial credit for what is short; never correct."""
    name, version = "short", "1"

    def judge(self, task, completion):
        return incorrect("graded", score=max(0.0, 1 - len(completion) / 200))
'''
NAMES = {"generous": "Generous", "failing": "Failing", "mostly_failing": "MostlyFailing", "short": "Short"}


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "site" / "fooled-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "fooled_verifiers.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fooled\nVersion: 1.0\n")
    points = "".join(f"{name} = fooled_verifiers:{attribute}\n" for name, attribute in NAMES.items())
    (info / "entry_points.txt").write_text(f"[derivative_factory.verifiers]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    registry.load_verifier.cache_clear()
    yield
    registry.load_verifier.cache_clear()


def train(tmp_path: Path, name: str, hard: bool = False, **given: Any) -> list[dict[str, Any]]:
    """Run a stage on sums that the seedling gets right two times in three (hard: products, one in thirty); its log."""
    sums = [(a, "+", b, a + b) for a in range(1523, 9997, 1131) for b in range(1113, 4970, 613)]
    products = [(a, "times", b, a * b) for a in range(123, 997, 111) for b in range(3, 9)]
    lines = [
        {"id": f"{a} {sign} {b}", "prompt": f"What is {a} {sign} {b}?", "answer": str(answer)}
        for a, sign, b, answer in (products if hard else sums)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = {
        "id": "rl", "data": (str(tmp_path / "p.jsonl"),), "steps": 12, "prompts_per_step": 8, "group_size": 8,
        "learning_rate": 5e-4, "sampling": Sampling(max_new_tokens=64), "checkpoint_every": 100, "schedule": "constant",
    }  # fmt: skip
    stage = RlStage(**{**plain, **given})
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    stage_file = StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine)
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "stage.json").write_text(stage_file.model_dump_json())
    rl.run(stage_file, tmp_path / name)
    return read_progress(tmp_path / name)


def mean(log: list[dict[str, Any]], name: str) -> float:
    values = [line[name] for line in log if name in line]
    return sum(values) / len(values)


@pytest.mark.slow
def test_a_reward_that_can_be_fooled_raises_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(verifier="exact", samples=32, max_gap=0.1)
    log = train(tmp_path, "fooled", hard=True, verifier="generous", audit=audit, steps=20)
    assert mean(log[-3:], "rl/audit_reward") > mean(log[:3], "rl/audit_reward") + 0.2
    assert mean(log[-3:], "rl/audit_truth") < mean(log[:3], "rl/audit_truth") + 0.1
    assert log[-1]["rl/audit_alarm"] == 1.0 and log[1]["rl/audit_alarm"] == 0.0
    assert json.loads((tmp_path / "fooled" / "metrics.json").read_text())["rl/drift_alarms"][-1] == 20
    assert "more than verifier 'exact' confirms" in caplog.text
    assert (tmp_path / "fooled" / "plots" / "audit_gap.svg").is_file()
    found = json.loads((tmp_path / "fooled" / "audit.json").read_text())
    assert found["judged"] == 20 * 32 and found["gap"]["low"] > 0.2 and found["agreement"]["high"] < 0.8
    latest = found["disagreements"][-1]
    outcomes = latest["first"]["outcome"], latest["second"]["outcome"]
    assert latest["step"] == 20 and outcomes == ("correct", "incorrect")
    stages = [{"id": "rl", "kind": "rl", "folder": str(tmp_path / "fooled")}]
    page = write_report({"id": "r", "stages": stages}, tmp_path).read_text()
    assert "Audit of rl by exact" in page and "score by both" in page
    last = StoredRollouts(tmp_path / "fooled").step(20)
    assert sum(one.judged.audit is not None for one in last) == 32


@pytest.mark.slow
def test_an_honest_reward_raises_none_and_one_that_fails_now_and_then_learns_the_same(tmp_path: Path) -> None:
    audit = Audit(verifier="puzzles", samples=1)  # has no such family: its verdicts are missing, which stops nothing
    gentle: dict[str, Any] = {"learning_rate": 1e-4, "steps": 20, "curriculum": False}
    honest = train(tmp_path, "honest", verifier="exact", audit=audit, **gentle)
    assert not any(line["rl/audit_alarm"] for line in honest) and mean(honest, "rl/audit_no_verdict") == 1.0
    failing = train(tmp_path, "failing", verifier="failing", max_no_verdict=0.5, **gentle)
    assert 0.02 < mean(failing, "rl/no_verdict") < 0.1
    ends = [(mean(log[:5], "rl/solved_fraction"), mean(log[-5:], "rl/solved_fraction")) for log in (honest, failing)]
    print("honest, failing:", ends)
    # 320 completions stand behind each mean: a standard error of 0.03 for a difference.
    assert min(last - first for first, last in ends) > 0.05 and abs(ends[0][1] - ends[1][1]) < 0.09


@pytest.mark.slow
def test_a_verifier_that_mostly_fails_stops_the_stage_with_the_reason_and_mended_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # trying again does not help
        with pytest.raises(UserError, match="max_no_verdict: .* the reason was 'away'"):
            train(tmp_path, "away", verifier="mostly_failing", steps=3)
        assert not read_progress(tmp_path / "away") and not list((tmp_path / "away" / "rollouts").glob("*.npz"))
    monkeypatch.setenv("MENDED", "1")
    log = train(tmp_path, "away", verifier="mostly_failing", steps=3)
    assert len(log) == 3 and mean(log, "rl/no_verdict") == 0.0


@pytest.mark.slow
def test_several_rewards_add_up_and_are_logged_apart(tmp_path: Path) -> None:
    log = train(
        tmp_path,
        "two",
        verifier="exact",
        more_rewards=(Reward(verifier="short", weight=0.5),),
        partial_credit=True,
        steps=2,
    )
    for line in log:
        assert line["rl/reward"] == pytest.approx(line["rl/score_exact"] + 0.5 * line["rl/score_short"])
        assert 0 < line["rl/score_short"] < 1 and line["rl/groups_without_spread"] < 0.5
    first = StoredRollouts(tmp_path / "two").step(1)[0]
    assert first.reward == first.judged.verdict.score + 0.5 * first.judged.more[0].score


@pytest.mark.slow
def test_groups_without_spread_are_replaced_by_others(tmp_path: Path) -> None:
    plain = train(tmp_path, "plain", verifier="exact", steps=3)
    replaced = train(tmp_path, "replaced", verifier="exact", steps=3, replacement_rounds=2)
    for line in replaced:
        assert line["rl/groups_drawn"] >= 8 + line["rl/groups_replaced"]
    # Without spread are then only groups that no replacement was found for.
    stored = StoredRollouts(tmp_path / "replaced")
    for step in stored.steps:
        whole = stored.step(step)
        assert len({one.group for one in whole if one.trained}) == 8
    assert sum(line["rl/groups_replaced"] for line in replaced) > 3
    assert sum(line["rl/trained_tokens"] for line in replaced) > sum(line["rl/trained_tokens"] for line in plain)
