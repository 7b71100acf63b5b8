"""Structured tasks: gold answers that their verifiers accept, a split by content, and wrong answers that earn less."""

import json
import random
from typing import Any

import pytest

from configs.errors import UserError
from configs.names import STRUCTURED_FAMILIES, check_source
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora.dropped import DropLog
from corpora.sources import open_source
from verifiers.api import Outcome, Task
from verifiers.registry import load_verifier
from verifiers.tasks import load_tasks, normalise_question, split_of, task_set_names, worked_solution
from verifiers.tasks.structured import LIMITS

FAMILIES = [f"structured/{family}" for family in STRUCTURED_FAMILIES]


def draw(name: str, **fields: Any) -> list[Task]:
    return load_tasks(TaskSource(name=name, **fields))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_draw_is_distinct_deterministic_plain_json_and_named(name: str) -> None:
    tasks = draw(name, count=120, seed=3)
    assert tasks == draw(name, count=120, seed=3) and tasks[:40] == draw(name, count=40, seed=3)
    assert len({task.id for task in tasks}) == len({normalise_question(task.prompt) for task in tasks}) == 120
    assert len({task.answer for task in tasks}) > 100
    for task in tasks:
        assert json.loads(json.dumps(task.metadata)) == task.metadata
        assert (task.source, task.metadata["family"]) == (name, name) and name in task_set_names()
    assert tasks[:20] != draw(name, count=20, seed=4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gold_answer_is_correct_and_changed_ones_are_not(name: str) -> None:
    rng = random.Random(5)
    for task in draw(name, count=60):
        verifier = load_verifier(task.verifier)
        solution = worked_solution(task) or ""
        assert verifier.judge(task, solution).outcome is Outcome.CORRECT, (task, solution)
        assert verifier.judge(task, f"<think>hm</think>Here it is:\n\n{solution}\n").outcome is Outcome.CORRECT
        digits = [place for place, character in enumerate(solution) if character in "123456789"]
        place = rng.choice(digits)
        changed = solution[:place] + str(int(solution[place]) % 9 + 1) + solution[place + 1 :]
        verdict = verifier.judge(task, changed)
        assert verdict.outcome is Outcome.INCORRECT and 0.0 < verdict.score < 1.0, (changed, verdict)
        assert verifier.judge(task, "I cannot say.").score == 0.0
        assert worked_solution(task, "think") is None


def test_the_order_of_items_is_free_and_that_of_a_sorted_table_is_not() -> None:
    order = next(task for task in draw("structured/orders", count=40) if len(json.loads(task.answer)["items"]) > 1)
    answer = json.loads(order.answer)
    answer["items"].reverse()
    assert load_verifier("json_schema").judge(order, json.dumps(answer)).outcome is Outcome.CORRECT
    tables = draw("structured/tables", count=60)
    assert {str(task.metadata["rows"]) for task in tables} == {"fixed", "free"}
    assert {str(task.metadata["format"]) for task in tables} == {"csv", "markdown"}
    for task in tables:
        header, *rows = task.answer.split("\n")
        text = "\n".join([header, *reversed(rows)])
        plain = Task("t", "", task.answer, "table", {"rows": task.metadata["rows"]})
        outcome = load_verifier("table").judge(plain, f"```csv\n{text}\n```").outcome
        assert (outcome is Outcome.CORRECT) == (task.metadata["rows"] == "free" or len(rows) == 1)


def test_an_orders_total_is_what_its_items_cost_and_all_of_it_is_told() -> None:
    for task in draw("structured/orders", count=50):
        order = json.loads(task.answer)
        cents = sum(round(item["price"] * 100) * item["quantity"] for item in order["items"])
        assert round(order["total"] * 100) == cents
        assert order["customer"] in task.prompt
        for item in order["items"]:
            told = (item["product"], f"{item['price']:.2f}", str(item["quantity"]))
            assert all(part in task.prompt for part in told)


def test_a_table_is_computed_from_the_one_that_is_shown() -> None:
    for task in draw("structured/tables", count=60):
        lines = [line.strip("| ").replace(" | ", ",") for line in task.prompt.split("\n\n")[1].split("\n")]
        shown = {tuple(line.split(",")) for line in lines if "---" not in line}
        header, *rows = [tuple(line.split(",")) for line in task.answer.split("\n")]
        if len(header) == 4:
            assert set(rows) <= shown and header in shown and rows
            if "at least" not in task.prompt:
                assert len(rows) == len(shown) - 1
        else:
            sold = {product: sum(int(row[2]) for row in shown if row[1] == product) for product, _ in rows}
            assert {product: int(total) for product, total in rows} == sold


@pytest.mark.parametrize("name", FAMILIES)
def test_train_and_heldout_share_neither_question_nor_answer_text(name: str) -> None:
    sides = {split: draw(name, split=split, count=150) for split in ("train", "heldout")}
    for split, tasks in sides.items():
        assert {split_of(task.prompt) for task in tasks} == {split}
    prompts = {split: {normalise_question(task.prompt) for task in tasks} for split, tasks in sides.items()}
    assert not prompts["train"] & prompts["heldout"]
    drawn = draw(name, split="all", count=1_000)
    assert abs(sum(split_of(task.prompt) == "heldout" for task in drawn) / 1_000 - 0.2) < 0.05


def test_a_corpus_has_them_as_examples_and_as_problems() -> None:
    for name in FAMILIES:
        source = CorpusSource(name=name, count=4)
        tasks = draw(name, count=4)
        examples, problems = (list(open_source(source, output, DropLog())) for output in ("examples", "problems"))
        assert [one.completion for one in examples] == [worked_solution(task) for task in tasks]
        assert [(one.answer, one.verifier, one.metadata) for one in problems] == [
            (task.answer, task.verifier, dict(task.metadata)) for task in tasks]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("structured/order", {"count": 1}, "did you mean 'structured/orders'"), ("structured/orders", {}, "count: empty"),
    ("structured/orders", {"count": 1, "split": "test"}, "use heldout"),
    ("structured/orders", {"count": 1, "params": {"max_item": 3}}, "did you mean 'max_items'"),
    ("structured/orders", {"count": 1, "params": {"max_items": 7}}, "max_items: 7 .* allowed: 1 to 6"),
    ("structured/tables", {"count": 1, "params": {"min_rows": True}}, "min_rows: True"),
    ("structured/tables", {"count": 1, "params": {"min_rows": 8}}, "max_rows: 6 .* below min_rows 8; raise it"),
])  # fmt: skip
def test_what_does_not_fit_is_named_with_a_remedy(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(name, **fields)


def test_a_recipe_knows_the_sets_and_their_settings() -> None:
    for family in STRUCTURED_FAMILIES:
        low, high = LIMITS[family]
        least = "min_items" if family == "orders" else "min_rows"
        check_source("rl.tasks[0]", TaskSource(name=f"structured/{family}", count=5, params={least: low}))
        assert len(draw(f"structured/{family}", count=5, params={least: high, least.replace("min", "max"): high})) == 5
    with pytest.raises(UserError, match="did you mean 'structured/tables'"):
        check_source("rl.tasks[0]", TaskSource(name="structured/table", count=5))
    with pytest.raises(UserError, match="no setting of structured/tables; did you mean 'max_rows'"):
        check_source("rl.tasks[0]", TaskSource(name="structured/tables", count=5, params={"max_row": 5}))
