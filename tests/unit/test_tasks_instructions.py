"""Instruction tasks: by whom they are judged, that their texts follow their rules, and how they are split."""

from __future__ import annotations

import json
import re

import pytest

from configs.errors import UserError
from configs.names import check_source
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from verifiers.api import Outcome, Task
from verifiers.registry import load_verifier
from verifiers.tasks import load_tasks, split_of, worked_solution

FAMILIES = {"instructions/simple": 4, "instructions/form": 3}


def draw(name: str, split: str = "heldout", count: int = 150, **params: int) -> list[Task]:
    return load_tasks(TaskSource(name=name, split=split, count=count, seed=5, params=params))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_gold_text_and_thought_follows_all_rules_to_both_judges(name: str) -> None:
    instructions, counterpart = load_verifier("instructions"), load_verifier("counterpart")
    thinking = load_verifier("think_own")
    for task in draw(name, max_rules=FAMILIES[name]):
        plain, thought = worked_solution(task), worked_solution(task, "think")
        assert plain == task.answer and thought is not None and thought.endswith(f"</think>\n{task.answer}")
        assert worked_solution(task, "tools") is None
        for verifier in (instructions, counterpart):
            assert verifier.judge(task, task.answer).outcome is Outcome.CORRECT, (task.prompt, task.answer)
        assert thinking.judge(task, thought).outcome is Outcome.CORRECT
        assert thinking.judge(task, plain).outcome is Outcome.INCORRECT


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_that_breaks_a_rule_is_refused_by_both_judges(name: str) -> None:
    """Every near miss breaks something; the two judges, which share no code, must not part on any of them."""
    instructions, counterpart = load_verifier("instructions"), load_verifier("counterpart")
    told = 0
    for task in draw(name, max_rules=FAMILIES[name]):
        text = task.answer
        misses = [text.swapcase(), text + " Yes.", text.replace(" is ", " "), text.replace("- ", "", 1),
                  text.strip('"'), text.replace("<<", "").replace(">>", ""), text.partition("P.S.")[0],
                  "The sun is out today."]  # fmt: skip
        for miss in misses:
            first, second = instructions.judge(task, miss).outcome, counterpart.judge(task, miss).outcome
            assert first is second, (task.prompt, miss)
            told += first is Outcome.INCORRECT
    assert told > 300


@pytest.mark.parametrize("name", FAMILIES)
def test_train_and_heldout_share_neither_questions_nor_contents(name: str) -> None:
    def contents(task: Task) -> str:
        return json.dumps([task.metadata["patterns"][0], sorted(task.metadata["patterns"][1:])])

    train, heldout = draw(name, "train", 300), draw(name, "heldout", 100)
    assert {split_of(task.prompt) for task in train} == {"train"}
    assert {split_of(task.prompt) for task in heldout} == {"heldout"}
    assert not {contents(task) for task in train} & {contents(task) for task in heldout}
    assert draw(name, "train", 20) == train[:20]


def test_an_exact_number_of_words_is_two_published_rules() -> None:
    tasks = [task for task in draw("instructions/simple") if "length_constraints:number_words" in str(task.metadata)]
    for task in tasks:
        names, kwargs = task.metadata["instruction_id_list"], task.metadata["kwargs"]
        given = [one for name, one in zip(names, kwargs, strict=True) if name == "length_constraints:number_words"]
        assert [one["relation"] for one in given] == ["at least", "less than"]
        assert given[1]["num_words"] == given[0]["num_words"] + 1 == len(re.findall(r"\w+", task.answer)) + 1
    assert tasks


@pytest.mark.parametrize(("name", "fields", "complaint"), [
    ("instructions/plain", {"count": 3}, "allowed: instructions/form, instructions/simple"),
    ("instructions/simple", {}, "count: empty"),
    ("instructions/simple", {"count": 3, "split": "test"}, "split: 'test'"),
    ("instructions/simple", {"count": 3, "params": {"max_rule": 3}}, "did you mean 'max_rules'"),
    ("instructions/form", {"count": 3, "params": {"max_rules": 4}}, "allowed: 1 to 3"),
    ("instructions/form", {"count": 3, "params": {"min_rules": 3}}, "below min_rules 3"),
    ("instructions/form", {"count": 9_000, "params": {"max_rules": 1}}, "distinct tasks were found"),
])  # fmt: skip
def test_what_does_not_fit_is_named(name: str, fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_tasks(TaskSource.model_validate({"name": name, **fields}))


def test_recipes_may_think_over_functions_and_instructions_and_use_tools_on_neither() -> None:
    for name in ("functions/numbers", "instructions/form"):
        check_source("examples.sources[0]", CorpusSource(name=name, count=3, style="think"))
        with pytest.raises(UserError, match=r"style: 'tools' was given to '.*'; allowed: plain"):
            check_source("examples.sources[0]", CorpusSource(name=name, count=3, style="tools"))


def test_a_thought_before_a_program_holds_the_expressions_of_its_steps() -> None:
    task = Task("t", "", "def pick(n):\n    n = n * 3\n    yes = n > 5\n    return yes", "code",
                {"family": "functions/numbers"})  # fmt: skip
    assert worked_solution(task, "think") == f"<think>\n1 n * 3\n2 n > 5\n</think>\n```python\n{task.answer}\n```"
