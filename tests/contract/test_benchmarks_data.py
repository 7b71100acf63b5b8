"""HumanEval, MBPP and IFEval of the mirror (`$DERIVE_DATA`) as task sets: golds pass, published verdicts are met."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from configs.settings.common import TaskSource
from configs.settings.evaluation import EvaluateStage
from configs.suites import members_of
from derivatives.evaluation.formats import FEW_SHOT, examples_for, gather_examples, own_answer, stops_of
from derivatives.evaluation.styles import STYLES, style_of
from verifiers.api import Outcome, Task
from verifiers.code import judge_many
from verifiers.code_hidden import CodeHiddenVerifier
from verifiers.instructions import StrictInstructions, read_constraints
from verifiers.tasks import load_tasks

MIRROR = os.environ.get("DERIVE_DATA")
pytestmark = pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")


def load(name: str, split: str = "test", **fields: object) -> list[Task]:
    return load_tasks(TaskSource(name=name, split=split, **fields))  # type: ignore[arg-type]


def published() -> tuple[dict[str, str], dict[str, bool]]:
    """Qwen2.5-Coder-7B's completions of HumanEval, and the verdicts that were published for them."""
    folder = Path(str(MIRROR)) / "qwen2.5-coder-7b-base"
    if not folder.is_dir():
        pytest.skip("the mirror has no qwen2.5-coder-7b-base")
    completions, verdicts = (
        [json.loads(line) for line in (folder / f"humaneval_{what}.jsonl").read_text(encoding="utf-8").splitlines()]
        for what in ("completions", "expected")
    )
    return ({row["task_id"]: row["completion"] for row in completions},
            {row["task_id"]: row["base_pass"] for row in verdicts})  # fmt: skip


def failed(tasks: list[Task]) -> list[tuple[str, str]]:
    """Tasks whose reference program is not found right, with the reason."""
    verdicts = judge_many([(task, task.answer) for task in tasks])
    return [(task.id, found.reason) for task, found in zip(tasks, verdicts, strict=True) if found.score < 1.0]


def test_all_164_reference_programs_of_humaneval_pass() -> None:
    tasks = load("humaneval")
    assert len(tasks) == 164 and failed(tasks) == []


def test_verdicts_of_published_completions_are_met_one_and_all() -> None:
    completions, verdicts = published()
    tasks = load("humaneval", style="published")
    answers, num_alike = [], 0
    for number, task in enumerate(tasks):
        style = style_of(task)
        assert style is not None
        whole = completions[f"HumanEval/{number}"]
        prompt = style.plain(task)
        _, prompted, rest = whole.partition(prompt)
        answers.append(own_answer(rest, stops_of(task, FEW_SHOT)) if prompted else whole)
        num_alike += bool(prompted)
    assert num_alike > 150  # asked as our style asks, but for a few prompts that HumanEval+ has mended
    found = judge_many(list(zip(tasks, answers, strict=True)))
    ours = {f"HumanEval/{number}": verdict.score == 1.0 for number, verdict in enumerate(found)}
    assert ours == verdicts and sum(ours.values()) == 101


def test_a_benchmarks_tests_are_hidden_from_every_reward() -> None:
    task = load("humaneval", count=1)[0]
    judge = CodeHiddenVerifier()
    assert judge.judge(task, task.answer).score == 1.0
    assert judge.judge(task, "    return None\n").outcome is Outcome.INCORRECT
    unmarked = {key: value for key, value in task.metadata.items() if key != "hidden_tests"}
    assert judge.judge(Task("t", "", "", "code", unmarked), task.answer).outcome is Outcome.NO_VERDICT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "count"),
    [("mbpp", "train", 374), ("mbpp", "test", 500), ("mbpp_sanitized", "train", 120), ("mbpp_sanitized", "test", 257)],
)
def test_all_reference_programs_of_mbpp_pass(name: str, split: str, count: int) -> None:
    tasks = load(name, split)
    assert len(tasks) == count and failed(tasks) == []


def test_tests_that_need_the_candidates_own_classes_are_few_and_marked() -> None:
    shared = {split: [task.id for task in load("mbpp", split) if "isolation" in task.metadata]
              for split in ("train", "test")}  # fmt: skip
    assert {split: len(found) for split, found in shared.items()} == {"train": 2, "test": 1}
    tasks = [task for split in shared for task in load("mbpp", split) if task.id in shared[split]]
    assert failed(tasks) == []
    wrong = [(task, task.answer.replace("return ", "return not ")) for task in tasks]
    assert [verdict.score for verdict in judge_many(wrong)] == [0.0] * 3


def test_every_constraint_of_ifeval_can_be_read_and_none_is_met_by_nothing() -> None:
    tasks = load("ifeval")
    kinds = {name for task in tasks for name, _, _ in read_constraints(task.metadata)}
    assert (len(tasks), len(kinds)) == (541, 25)
    assert {StrictInstructions().judge(task, " ").reason for task in tasks} == {"empty_response"}


def test_styles_have_the_published_number_of_examples_and_no_held_out_one() -> None:
    sources = (*members_of(TaskSource(name="suite/math", count=5)), *members_of(TaskSource(name="suite/code", count=5)))
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=sources)
    tasks = [task for source in stage.tasks for task in load_tasks(source)]
    examples = gather_examples(stage, tasks, 0)
    asked = {task.prompt for task in tasks}
    for task in tasks:
        style = style_of(task)
        if style is None:
            continue
        chosen = examples_for(task, examples, 0)
        assert len(chosen) == style.num_examples == {"humaneval": 0, "mbpp": 3}.get(task.source, 4)
        assert not asked & {one.prompt for one in chosen}
    assert set(STYLES) >= {task.source for task in tasks if style_of(task)}
