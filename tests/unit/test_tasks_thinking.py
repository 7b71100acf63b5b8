"""Worked solutions inside <think> tags, and the exact judge that reads what follows them."""

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from configs.names import check_source
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource, CorpusStage
from corpora.dropped import DropLog
from corpora.sources import open_source
from verifiers.api import Outcome, Task
from verifiers.exact import ExactVerifier
from verifiers.format import FormatVerifier
from verifiers.registry import load_verifier
from verifiers.tasks import load_tasks, worked_solution
from verifiers.tasks.solution import NoSolution, written

SEVEN = Task("t", "", "7", metadata={"family": "chain_sum", "expression": "3 + 4"})
COLD_START = [
    source
    for stage in load_recipe("reasoning/tiny").stages
    if isinstance(stage, CorpusStage) and stage.output == "examples"
    for source in stage.sources
]


def test_a_thought_holds_the_steps_and_the_box_comes_after_it() -> None:
    assert worked_solution(SEVEN) == "3 + 4 = 7\n\\boxed{7}"
    assert worked_solution(SEVEN, "think") == "<think>\n3 + 4 = 7\n</think>\n\\boxed{7}"


def test_a_solution_without_steps_is_no_thought() -> None:
    assert written([], "7", "plain") == "\\boxed{7}"
    with pytest.raises(NoSolution):
        written([" "], "7", "think")


@pytest.mark.parametrize("source", COLD_START, ids=lambda source: source.name.partition("/")[2])
def test_every_thought_of_the_cold_start_is_well_formed_and_right_to_reward_and_judge(source: CorpusSource) -> None:
    drawn = source.model_copy(update={"count": 60})
    documents = list(open_source(drawn, "examples", DropLog()))
    tasks = {task.prompt: task for task in load_tasks(
        TaskSource(name=source.name, count=60, params=source.params, seed=source.seed))}
    assert len(documents) == 60
    for document in documents:
        for verifier in (FormatVerifier(), load_verifier("think_own"), load_verifier("counterpart")):
            verdict = verifier.judge(tasks[document.prompt], document.completion)
            assert verdict.outcome is Outcome.CORRECT, (verifier.name, document.completion, verdict)


def test_the_rewards_pay_for_a_thought_with_the_right_answer_and_for_nothing_less() -> None:
    legs = load_tasks(TaskSource(name="reasoning_gym/leg_counting", count=1))[0]
    thought, plain = worked_solution(legs, "think"), worked_solution(legs)
    assert thought and plain
    for name in ("think_math", "think_puzzles", "think_own"):
        reward = load_verifier(name)
        assert reward.judge(legs, thought).score == 1.0
        assert reward.judge(legs, plain).score == 0.0
        assert reward.judge(legs, thought.replace("\\boxed{", "\\boxed{9")).score < 1.0


@pytest.mark.parametrize("name", ["structured/orders", "python_stdlib", "gsm8k", "own.jsonl"])
def test_only_worked_solutions_of_our_own_can_be_thought(name: str) -> None:
    with pytest.raises(UserError, match=r"examples.sources\[0\].style: 'think' was given to '.*'; allowed: plain"):
        check_source("examples.sources[0]", CorpusSource(name=name, count=3, style="think"))


@pytest.mark.parametrize(("gold", "completion", "reason"), [
    ("7", "\\boxed{7}", "same_text"),
    ("7", "<think>\n\\boxed{8}\n</think>\n\\boxed{ 7 }", "same_text"),
    ("['18', '-4']", "so \\boxed{['18',  '-4']}", "same_text"),
    ("Sir, is", "\\boxed{sir, is}", "same_text"),
    ("{1}", "\\boxed{0} \\boxed{{1}}", "same_text"),
    ("7", "\\boxed{7.0}", "other_text"),
    ("7", "\\boxed{7}, no, \\boxed{8}", "other_text"),
    ("7", "\\boxed{3 + 4}", "other_text"),
    ("7", "<think>\\boxed{7}</think>", "no_box"),
    ("7", "<think>\\boxed{7}</think> it is 7", "no_box"),
    ("7", "\\boxed{7", "no_box"),
    ("7", "7", "no_box"),
    ("7", "", "no_box"),
])  # fmt: skip
def test_the_exact_judge_reads_the_last_box_after_the_thought(gold: str, completion: str, reason: str) -> None:
    verdict = ExactVerifier().judge(Task("t", "", gold), completion)
    assert verdict.reason == reason
    assert (verdict.outcome is Outcome.CORRECT) == (reason == "same_text") == (verdict.score == 1.0)


def test_an_empty_gold_answer_gives_no_verdict() -> None:
    assert ExactVerifier().judge(Task("t", "", " "), "\\boxed{}").outcome is Outcome.NO_VERDICT


def test_the_exact_judge_is_linear_in_a_completion_of_boxes() -> None:
    for text in ("\\boxed{" * 100_000, "\\boxed{1}" * 100_000, "{" * 1_000_000, "</think>" * 100_000):
        assert ExactVerifier().judge(Task("t", "", "7"), text).outcome is Outcome.INCORRECT
