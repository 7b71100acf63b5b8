"""Verifiers that go by what a task names as its own: in the pool, in files, and without a sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verifiers.api import Outcome, Task, Verdict, correct, incorrect
from verifiers.cases import read_cases
from verifiers.judging import judge_file
from verifiers.own import OwnVerifier
from verifiers.pool import VerifierPool
from verifiers.registry import load_verifier
from verifiers.sandbox.host import SandboxUnavailable

SUM = Task("1", "3 + 4 =", "7")
RULE = Task("2", "", "", "instructions", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})


class Fixed:
    version = "1"

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name, self.verdict = name, verdict

    def judge(self, task: Task, completion: str) -> Verdict:
        return self.verdict

    def warm_up(self) -> None:
        raise SandboxUnavailable("no such layer")


def test_the_task_s_own_part_decides_and_any_other_gives_no_verdict() -> None:
    own = OwnVerifier("own", {"math": Fixed("a", correct("7")), "code": Fixed("b", incorrect("wrong"))})
    assert own.judge(SUM, "").outcome is Outcome.CORRECT
    assert own.judge(Task("1", "", "", "code"), "").reason == "wrong"
    verdict = own.judge(RULE, "")
    assert (verdict.outcome, verdict.reason) == (Outcome.NO_VERDICT, "no_part_for_verifier: instructions")
    assert own.version == "1+math:a-1+code:b-1"


def test_a_missing_sandbox_keeps_nobody_from_the_other_parts() -> None:
    OwnVerifier("own", {"math": Fixed("a", correct("7"))}).warm_up()


def test_the_version_names_every_part() -> None:
    version = load_verifier("think_own").version
    for part in ("format", "math", "puzzles", "code", "instructions", "choice", "json_schema", "table"):
        assert f"{part}-{load_verifier(part).version}" in version


def test_a_pool_keeps_what_a_task_names_whoever_is_asked_to_judge() -> None:
    with VerifierPool(1) as pool:
        asked = [pool.submit(SUM, "<think>a</think>\\boxed{7}", "think_own"), pool.submit(SUM, "\\boxed{7}"),
                 pool.submit(RULE, "<think>a, b</think>No comma.", "think_own"),
                 pool.submit(RULE, "<think>a</think>One, two.", "think_own")]  # fmt: skip
        verdicts = [one.result() for one in asked]
    assert [one.outcome.value for one in verdicts] == ["correct", "correct", "correct", "incorrect"]
    assert verdicts[3].reason == "own:not_followed: punctuation:no_comma"


def test_a_file_s_lines_may_name_their_own_verifier(tmp_path: Path) -> None:
    rows = [
        {"completion": "<think>a</think>\\boxed{7}", "gold": "7"},
        {"completion": "<think>a</think>None.", "verifier": "instructions", **RULE.metadata},
        {"completion": "<think>a</think>One, two.", "verifier": "think_own", "task_verifier": "instructions",
         **RULE.metadata},
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge_file("think_own", tmp_path / "in.jsonl", tmp_path / "out.jsonl", num_workers=1)
    judged = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["outcome"] for one in judged] == ["correct", "correct", "incorrect"]


def test_cases_may_name_a_verifier_and_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    line = {"completion": "x", "answer": "", "expect": "correct", "verifier": "code"}
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "verifier": "math"}) + "\n")
    first, second = read_cases(path)
    assert (first.task.verifier, second.task.verifier) == ("code", "math")
    assert first.as_dict() == line and "verifier" not in second.as_dict()


@pytest.mark.parametrize(("answer", "reason"), [
    ("a lamp", "all_patterns_matched"),
    ("A lamp", "pattern_2_not_matched"),
    ("<think>a lamp", "no_answer"),
    ("x" * 100_001, "over_budget"),
])  # fmt: skip
def test_patterns_read_the_answer_alone_from_end_to_end(answer: str, reason: str) -> None:
    task = Task("1", "", "", "instructions", {"patterns": [".*lamp.*|x*", "[^A-Z]*"]})
    assert load_verifier("counterpart").judge(task, answer).reason == reason
