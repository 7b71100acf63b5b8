"""The math verifier on the public data sets of the mirror (`$DERIVE_DATA`)."""

import json
import os
from pathlib import Path

import pytest

from configs.settings.common import TaskSource
from verifiers.api import Outcome, Task
from verifiers.math import MathVerifier
from verifiers.tasks import load_tasks

MIRROR = os.environ.get("DERIVE_DATA")
pytestmark = pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")
VERIFIER = MathVerifier()


def read(name: str) -> list[dict]:
    path = Path(str(MIRROR)) / name
    if not path.exists():
        pytest.skip(f"the mirror has no {name}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "split", "count"), [
    ("gsm8k", "train", 7473), ("gsm8k", "test", 1319), ("math", "train", None), ("math500", "test", 500), ("asdiv",
    "test", None),
    ("aime24", "test", 30), ("aime25", "test", 30)])
def test_every_gold_answer_equals_itself(name: str, split: str, count: int | None) -> None:
    tasks = load_tasks(TaskSource(name=name, split=split))  # type: ignore[arg-type]
    assert len(tasks) == count or count is None and len(tasks) > 2_000
    verdicts = [(task, VERIFIER.judge(task, f"so $\\boxed{{{task.answer}}}$.")) for task in tasks]
    assert [task.answer for task, verdict in verdicts if verdict.outcome is not Outcome.CORRECT] == []


def test_labels_of_real_model_solutions_are_reproduced_without_exception() -> None:
    rows = read("verify/gsm8k_model_solutions.jsonl")
    judged = [(row, VERIFIER.judge(Task("t", "", row["gold"]), row["completion"])) for row in rows]
    assert [row for row, verdict in judged if (verdict.score == 1.0) != row["correct"]] == []
    assert len(rows) > 2_000


@pytest.mark.parametrize(("with_question", "least"), [(True, 107), (False, 105)])
def test_hard_pairs_are_never_wrongly_accepted_and_recall_stays(with_question: bool, least: int) -> None:
    rows = read("verify/hard_math_pairs.jsonl")
    assert [row["correct"] for row in rows].count(True) == [row["correct"] for row in rows].count(False) == 125
    accepted = [row["correct"] for row in rows
                if VERIFIER.judge(Task("t", row["question"] if with_question else "", row["gold"]),
                                  row["completion"]).score == 1.0]
    assert accepted.count(False) == 0
    assert accepted.count(True) >= least  # 107 of 125 is 85.6%


def test_a_box_around_the_answer_changes_no_verdict_on_the_hard_pairs() -> None:
    for row in read("verify/hard_math_pairs.jsonl"):
        task = Task("t", row["question"], row["gold"])
        boxed = VERIFIER.judge(task, f"So it is \\boxed{{{row['completion']}}}.")
        assert boxed.score == VERIFIER.judge(task, row["completion"]).score


def test_answers_of_different_problems_are_not_taken_for_each_other() -> None:
    answers = sorted({task.answer for task in load_tasks(TaskSource(name="math500", split="test"))})
    numbers = [answer for answer in answers if answer.isdecimal()]
    assert len(numbers) > 50
    for gold, other in zip(numbers, numbers[1:], strict=False):
        assert VERIFIER.judge(Task("t", "", gold), f"\\boxed{{{other}}}").outcome is Outcome.INCORRECT
