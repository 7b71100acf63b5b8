"""Suites stand for their sets from the moment a recipe is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import check_recipe, load_recipe
from configs.names import check_source, natural_task_sets
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.suites import expand, members_of, suite_names, suite_title
from flows.evaluate_command import task_source
from verifiers.tasks import load_tasks


def stage(**fields: Any) -> EvaluateStage:
    return EvaluateStage.model_validate_json(json.dumps({"id": "evaluate", "models": ["base"], **fields}), strict=True)


@pytest.mark.parametrize("name", suite_names())
def test_every_set_of_a_suite_exists_with_its_split_style_and_judge(name: str) -> None:
    assert suite_title(name)
    for place, member in enumerate(members_of(TaskSource(name=name))):
        check_source(f"{name}[{place}]", member)
        assert member.split in ("test", "heldout")
        assert (member.style == "published") == (member.name in natural_task_sets())


def test_a_stage_knows_the_sets_alone_and_reads_itself_back() -> None:
    tasks = [{"name": "suite/math"}, {"name": "asdiv", "split": "test"}]
    read = stage(tasks=tasks, kept_tasks=[{"name": "suite/code"}])
    assert [source.name for source in read.tasks] == ["gsm8k", "asdiv", "math500", "aime24", "aime25", "asdiv"]
    assert [source.style for source in read.tasks] == ["published"] * 5 + ["plain"]
    assert [source.name for source in read.kept_tasks] == ["humaneval", "mbpp", "fim/python_stdlib"]
    assert stage(**read.model_dump(mode="json", exclude={"id", "kind", "models"})) == read


def test_what_a_corpus_is_cleaned_of_may_be_a_suite_too() -> None:
    corpus = CorpusStage(id="corpus", output="tokens", sources=({"name": "python_stdlib"},),  # type: ignore[arg-type]
                         decontaminate=(TaskSource(name="suite/code"), TaskSource(name="suite/math")))  # fmt: skip
    assert len(corpus.decontaminate) == 3 + 5


def test_a_count_asks_every_set_for_as_many_as_it_has() -> None:
    counts = {source.name: source.count for source in members_of(TaskSource(name="suite/math", count=100, seed=7))}
    assert counts == {"gsm8k": 100, "asdiv": 100, "math500": 100, "aime24": 30, "aime25": 30}
    assert {source.seed for source in members_of(TaskSource(name="suite/math", count=100, seed=7))} == {7}
    assert {source.count for source in members_of(TaskSource(name="suite/fim", count=1000))} == {500}
    assert {source.count for source in members_of(TaskSource(name="suite/math"))} == {None}


def test_a_set_that_came_before_is_asked_once() -> None:
    both = expand([TaskSource(name="suite/math"), TaskSource(name="suite/reasoning", count=20)])
    assert [source.name for source in both].count("math500") == 1
    assert expand([TaskSource(name="gsm8k")] * 2) == (TaskSource(name="gsm8k"),) * 2  # without suites all is as it was


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "suite/nath"}, r"suite: 'suite/nath' is not known; did you mean 'suite/math'\?; allowed: "),
        ({"name": "suite/math", "split": "test"}, r"suite/math: split: 'test' was given to a suite.*allowed: count, "),
    ],
)
def test_errors_name_the_suite_the_field_and_the_way_out(source: dict[str, str], message: str) -> None:
    raw = load_recipe("math/tiny").model_dump(mode="json")
    next(one for one in raw["stages"] if one["id"] == "evaluate")["tasks"] = [source]
    with pytest.raises(UserError, match=message):
        check_recipe(raw)
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(**source))  # type: ignore[arg-type]


def test_a_recipe_may_name_suites_and_copy_them() -> None:
    raw = load_recipe("math/tiny").model_dump(mode="json")
    evaluate = next(one for one in raw["stages"] if one["id"] == "evaluate")
    evaluate |= {"tasks": [{"name": "suite/math"}], "judge": None, "audit": None}
    next(one for one in raw["stages"] if one["id"] == "corpus")["decontaminate"] = {"same_as": "evaluate.tasks"}
    next(one for one in raw["stages"] if one["kind"] == "release")["allow_same_judge"] = True
    recipe = check_recipe(raw)
    assert [one.name for one in recipe.stage("corpus").decontaminate] == [  # type: ignore[union-attr]
        "gsm8k", "asdiv", "math500", "aime24", "aime25"]  # fmt: skip


def test_a_style_or_judge_that_does_not_fit_a_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"tasks\[0\]\.style: published was given to 'functions/lists'.*remove style"):
        check_source("tasks[0]", TaskSource(name="functions/lists", split="heldout", count=3, style="published"))
    with pytest.raises(UserError, match=r"tasks\[0\]\.verifier: 'exakt' is no verifier; did you mean 'exact'"):
        check_source("tasks[0]", TaskSource(name="gsm8k", split="test", verifier="exakt"))
    raw = load_recipe("coder/tiny").model_dump(mode="json")
    evaluate = next(one for one in raw["stages"] if one["id"] == "evaluate")
    evaluate["tasks"] = [{"name": "fim/python_stdlib", "split": "heldout", "count": 5}]
    evaluate["judge"] = "code_hidden"
    with pytest.raises(UserError, match=r"evaluate\.judge: 'code_hidden' cannot judge 'fim/python_stdlib'.*verifier: "):
        check_recipe(raw)


def test_a_source_may_name_who_judges_its_problems() -> None:
    drawn = TaskSource(name="functions/lists", split="heldout", count=2, verifier="code_hidden")
    assert [task.verifier for task in load_tasks(drawn)] == ["code_hidden"] * 2
    games = load_tasks(TaskSource(name="suite/gym_games", count=2))
    assert len(games) == 2 * len(members_of(TaskSource(name="suite/gym_games")))
    assert len({task.source for task in games}) == len(games) // 2


def test_the_command_takes_suites_and_gaps() -> None:
    assert task_source("suite/math", 20) == TaskSource(name="suite/math", count=20)
    assert task_source("fim/python_stdlib", 20) == TaskSource(name="fim/python_stdlib", split="heldout", count=20)
    assert task_source("humaneval", None) == TaskSource(name="humaneval", split="test")


def test_twins_share_the_protocol_of_their_set() -> None:
    check_source("tasks[0]", TaskSource(name="twins/gsm8k", split="test", style="published"))
    other = TaskSource(name="twins/reasoning_gym/gcd", split="heldout", count=3, style="published")
    with pytest.raises(UserError, match=r"published was given to 'twins/reasoning_gym/gcd'"):
        check_source("tasks[0]", other)
