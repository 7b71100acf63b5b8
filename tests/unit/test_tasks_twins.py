"""Twins: other numbers, the answer by the problem's own steps, and no twin where a number's meaning is not certain."""

from __future__ import annotations

import itertools
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from configs.catalogue import open_rows
from configs.errors import UserError
from configs.names import check_source
from configs.settings.common import TaskSource
from verifiers.tasks import load_tasks, task_set_names
from verifiers.tasks.number_words import NoTwin, mentions
from verifiers.tasks.renumber import Step, renumber
from verifiers.tasks.twins import holds_for_row, twin_of_row


def step(text: str) -> Step:
    expression, _, result = text.partition("=")
    return Step(expression, Fraction(result))


def twin(question: str, *steps: str, seed: int = 0, spelled: bool = False) -> tuple[str, str]:
    found = renumber(question, [step(one) for one in steps], steps[-1].partition("=")[2], random.Random(seed), spelled)
    return found.question, found.answer


def numbers(text: str) -> list[int]:
    return [int(one.value) for one in mentions(text)]


PENS = "Ada buys 20 pens at $7 each and pays with $200. How much change does she get?"


def test_a_twin_has_other_numbers_and_the_answer_that_its_own_steps_give() -> None:
    for seed in range(30):
        question, answer = twin(PENS, "20*7=140", "200-140=60", seed=seed)
        pens, price, paid = numbers(question)
        assert pens != 20 and price != 7 and paid != 200
        assert int(answer) == paid - pens * price > 0 != 60
        assert price < pens < paid  # the order stays
        assert question == f"Ada buys {pens} pens at ${price} each and pays with ${paid}. How much change does she get?"


def test_twins_are_determined_by_their_seed_and_differ_between_seeds() -> None:
    drawn = [twin(PENS, "20*7=140", "200-140=60", seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2


def test_a_number_that_is_written_twice_stays_the_same_in_both_places() -> None:
    question, answer = twin("Bo packs 35 boxes, then another 35 boxes. Each takes 9 jars. How many jars?", "35+35=70",
                            "70*9=630")  # fmt: skip
    first, second, jars = numbers(question)
    assert first == second != 35 and int(answer) == 2 * first * jars


def test_constants_that_words_stand_for_stay() -> None:
    question, answer = twin("Cy runs 40 minutes daily, twice as long on Sunday. How many minutes are that on Sunday?",
                            "40*2=80")  # fmt: skip
    assert int(answer) == 2 * numbers(question)[0]
    for seed in range(20):  # a week's days are at most seven
        question, _ = twin("Di works 5 hours on each of 6 days of the week. How many hours?", "5*6=30", seed=seed)
        hours, days = numbers(question)
        assert days <= 7 and hours < days


def test_money_keeps_its_decimals_and_large_numbers_their_separators() -> None:
    question, answer = twin("Ed sells 1,250 cups of tea at $2.50 each. How much is that?", "1250*2.5=3125")
    cups, price = question.split(" cups")[0].split()[-1], question.split("$")[1].split()[0]
    assert "," in cups and len(price.partition(".")[2]) == 2
    assert Fraction(answer) == Fraction(cups.replace(",", "")) * Fraction(price)


def test_numbers_in_words_change_only_where_asked_for() -> None:
    text = "Flo has thirty-four shells and finds fifteen more. How many has she?"
    with pytest.raises(NoTwin, match="no number that may change"):
        twin(text, "34+15=49")
    question, answer = twin(text, "34+15=49", spelled=True)
    assert "thirty-four" not in question and answer != "49" and "shells and finds" in question


@pytest.mark.parametrize(("question", "steps", "why"), [
    ("Gus has 20 apples, eats 6 and sells 8. How many has he left?", ["20-6=14"], "not used"),
    ("Hal has 20 apples in 5 bags. How many are in 3 bags?", ["4*3=12"], "neither in the question nor a result"),
    ("Ida leaves at 7:30 with 20 apples and eats 6. How many has she?", ["20-6=14"], "time of the day"),
    ("On May 12 Jo has 20 apples and buys 30. How many has he?", ["20+30=50"], "date"),
    ("Kim has 20 apples, 6 red ones and 14 others. She eats the 6, then the 14, of 20. Left?", ["20-6=14", "14-14=0"],
     "sum of two others"),
    ("Lea has 20 apples in bags of 6. Rounded, how many bags?", ["20/6=3.33"], "rounding"),
    ("Moe has 20 apples in bags of 6. How many bags?", ["20/6=3"], "do not give their own results"),
    ("Mia has 1 cake, 3 guests and 0.33 left. How much is it in all?", ["1/3=0.33", "0.33+0.33=0.66"],
     "do not give their own results"),
    ("Ned has 20 apples and buys 6. How many?", ["20+6=26", "20-6=14"], "step's result is not used"),
    ("Ola has 20 apples. What is 20 of them?", ["x=20"], "no plain arithmetic"),
])  # fmt: skip
def test_what_is_not_certain_has_no_twin(question: str, steps: list[str], why: str) -> None:
    with pytest.raises(NoTwin, match=why):
        twin(question, *steps)


def test_a_number_that_could_be_two_things_comes_out_the_same_under_both() -> None:
    # 12 is asked for, and 3 * 4 makes 12: whichever the last step means, its result is the same
    for seed in range(10):
        try:
            question, answer = twin("Pam fills 30 rows with 40 seeds, then 1200 more. How many?", "30*40=1200",
                                    "1200+1200=2400", seed=seed)  # fmt: skip
        except NoTwin:
            continue
        rows, seeds, more = numbers(question)
        assert rows * seeds == more and int(answer) == 2 * more


def mirror_of(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


MADE_UP = [
    {"question": PENS, "answer": "She pays 20*7=$<<20*7=140>>140.\nShe gets 200-140=$<<200-140=60>>60 back.\n#### 60"},
    {"question": "Quin reads 12 pages a day for 30 days. How many pages?", "answer": "It is 12 x 30 = 360.\n#### 360"},
    {"question": "Rae thinks of a number. Twice it is 8. What is it?", "answer": "2x = 8, so x is <<8/2=4>>4\n#### 4"},
    {"question": "Sam has 20 nuts and gets some until 50. How many?", "answer": "Say 31, or <<50-20=30>>30\n#### 30"},
]  # fmt: skip


def test_the_set_gives_the_twins_of_what_its_original_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror_of(tmp_path, MADE_UP)
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path))
    source = TaskSource(name="twins/gsm8k", split="test")
    check_source("tasks[0]", source)
    twins = load_tasks(source)
    # the third is solved with an unknown; the fourth's solution has a 31 that comes from nowhere
    assert [task.metadata["twin_of"] for task in twins] == ["gsm8k/test/0", "gsm8k/test/1"]
    assert [task.id for task in twins] == ["twins/gsm8k/test/0", "twins/gsm8k/test/1"]
    pages, days = numbers(twins[1].prompt)
    assert int(twins[1].answer) == pages * days and (pages, days) != (12, 30)
    assert all(task.source == "twins/gsm8k" and task.verifier == "math" for task in twins)
    assert load_tasks(source) == twins
    assert load_tasks(source.model_copy(update={"seed": 1})) != twins
    drawn = {task.id for task in load_tasks(TaskSource(name="gsm8k", split="test", count=2))}
    few = load_tasks(TaskSource(name="twins/gsm8k", split="test", count=2))
    assert {task.metadata["twin_of"] for task in few} <= drawn


def test_twins_of_a_generated_set_are_other_questions_of_the_same_side() -> None:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    source = TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=8, params=params)
    originals = load_tasks(source)
    twins = load_tasks(source.model_copy(update={"name": "twins/reasoning_gym/chain_sum"}))
    assert [task.metadata["twin_of"] for task in twins] == [task.id for task in originals]
    assert not {task.prompt for task in twins} & {task.prompt for task in originals}
    assert {task.verifier for task in twins} == {task.verifier for task in originals}


def test_sets_without_worked_steps_have_no_twins() -> None:
    for name in ("twins/math500", "twins/aime24"):
        with pytest.raises(UserError, match="twins/gsm8k"):
            check_source("tasks[0]", TaskSource(name=name, split="test"))
        with pytest.raises(UserError, match="worked steps"):
            load_tasks(TaskSource(name=name, split="test"))
    assert {"twins/gsm8k", "twins/asdiv"} <= set(task_set_names())


@pytest.mark.parametrize(("name", "least"), [("gsm8k", 140), ("asdiv", 290)])
def test_every_kept_problem_gives_its_gold_answer_by_its_own_numbers(name: str, least: int, data_mirror: Path) -> None:
    kept = 0
    for row in itertools.islice(open_rows(name, "test"), 0, None, 4):
        try:
            found = twin_of_row(name, row, 0)
        except NoTwin:
            continue
        assert found.answer != row["answer"] and found.question != row["question"].strip()
        assert holds_for_row(name, row)
        kept += 1
    assert kept >= least
