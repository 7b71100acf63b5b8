"""Task sets: distinct questions, a split by question, and errors that say what to do."""

import json
import math
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings.common import TaskSource
from verifiers.tasks import load_tasks, normalise_question, split_of, task_set_names


def draw(name: str, **fields: object) -> list:
    return load_tasks(TaskSource(name=name, **fields))


def test_spacing_case_and_closing_marks_do_not_make_another_question() -> None:
    assert normalise_question("What  is 3 - 4 ?") == normalise_question("what is 3-4")
    assert normalise_question("Calculate 5 - 3.") == normalise_question("Calculate 5 - 3")


def test_digits_signs_and_words_do_make_another_question() -> None:
    texts = ["3 - 4", "3 + 4", "3 - 5", "34", "3 4", "three - 4", "-3 - 4"]
    assert len({normalise_question(text) for text in texts}) == len(texts)


def test_a_draw_has_as_many_distinct_questions_as_asked_and_is_deterministic() -> None:
    tasks = draw("reasoning_gym/chain_sum", count=300, seed=1, params={"max_terms": 3})
    assert len({normalise_question(task.prompt) for task in tasks}) == len({task.id for task in tasks}) == 300
    assert tasks == draw("reasoning_gym/chain_sum", count=300, seed=1, params={"max_terms": 3})
    assert tasks[:100] == draw("reasoning_gym/chain_sum", count=100, seed=1, params={"max_terms": 3})


def test_train_and_heldout_share_no_question_whatever_the_seed() -> None:
    train = {normalise_question(task.prompt) for seed in (0, 1) for task in draw(
        "reasoning_gym/gcd", count=500, seed=seed, params={"max_value": 60})}
    heldout = {normalise_question(task.prompt) for seed in (0, 1, 2) for task in draw(
        "reasoning_gym/gcd", split="heldout", count=200, seed=seed, params={"max_value": 60})}
    assert not train & heldout
    assert len(train) > 500 and len(heldout) > 200  # seeds draw different questions


def test_one_question_in_five_is_held_out() -> None:
    heldout = sum(split_of(f"What is {index} + {index}?") == "heldout" for index in range(5_000))
    assert abs(heldout / 5_000 - 0.2) < 0.02


def test_a_task_is_plain_json_and_names_its_family() -> None:
    task = draw("reasoning_gym/leg_counting", count=1)[0]
    assert task.metadata["family"] == "leg_counting" and task.verifier == "puzzles"
    assert json.loads(json.dumps(task.metadata)) == task.metadata
    assert task.source == "reasoning_gym/leg_counting" and task.id.startswith("reasoning_gym/leg_counting/")


def test_a_family_that_prepares_a_fixed_number_of_entries_goes_on_beyond_them() -> None:
    tasks = draw("reasoning_gym/gsm_symbolic", split="all", count=2_500)
    assert len({task.id for task in tasks}) == 2_500


def test_six_thousand_tasks_take_seconds() -> None:
    draw("reasoning_gym/chain_sum", count=1)  # imports reasoning-gym
    started = time.process_time()
    assert len(draw("reasoning_gym/chain_sum", count=6_000)) == 6_000
    assert time.process_time() - started < 10


def test_arithmetic_whose_gold_answer_is_wrong_is_passed_over() -> None:
    tasks = draw("reasoning_gym/basic_arithmetic", count=100,
                 params={"allow_parentheses": False, "operators": ["+", "*"], "max_digits": 1})
    assert any(" + " in task.prompt and " * " in task.prompt for task in tasks)
    for task in tasks:
        terms = task.metadata["expression"].split(" + ")
        assert int(task.answer) == sum(math.prod(map(int, term.split(" * "))) for term in terms)


def test_a_small_family_says_that_it_is_exhausted() -> None:
    with pytest.raises(UserError, match=r"only \d+ distinct questions were found; lower the count or widen the params"):
        draw("reasoning_gym/products", count=500, params={"max_digits": 1})


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("reasoning_gym/chain_summ", {"count": 1}, "did you mean 'chain_sum'"),
    ("reasoning_gym/chain_sum", {}, "count: empty"),
    ("reasoning_gym/chain_sum", {"count": 1, "split": "test"}, "use heldout"),
    ("reasoning_gym/chain_sum", {"count": 1, "params": {"max_term": 3}}, "did you mean 'max_terms'"),
    ("reasoning_gym/chain_sum", {"count": 1, "params": {"max_terms": 1}}, "max_terms must be"),
    ("reasoning_gym/chain_sum", {"count": 1, "params": {"seed": 1}}, "params.seed: not a setting"),
    ("gsm9k", {}, "did you mean 'gsm8k'"),
    ("nowhere.jsonl", {}, "nowhere.jsonl: cannot be read"),
])
def test_what_does_not_fit_is_named_with_a_remedy(name: str, fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(name, **fields)


def test_names_cover_the_catalogue_and_every_family() -> None:
    names = task_set_names()
    assert {"gsm8k", "math500", "math", "asdiv", "aime24", "aime25", "reasoning_gym/chain_sum"} <= set(names)
    assert {"humaneval", "mbpp", "mbpp_sanitized", "ifeval", "fim/python_stdlib"} <= set(names)
    assert "fineweb_edu" not in names and "reasoning_gym/composite" not in names
    assert len([name for name in names if name.startswith("reasoning_gym/")]) > 90


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_a_jsonl_file_gives_its_lines_as_tasks(tmp_path: Path) -> None:
    name = write(tmp_path / "own.jsonl", [
        '{"prompt": "2+3?", "answer": 5}', "",
        '{"prompt": "Even?", "answer": "4", "id": "e", "verifier": "format", "metadata": {"a": 1}}'])
    first, second = draw(name, split="all")
    assert (first.id, first.answer, first.verifier, first.source) == ("own.jsonl:1", "5", "math", "own.jsonl")
    assert (second.id, second.answer, second.verifier, second.metadata) == ("e", "4", "format", {"a": 1})


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    name = write(tmp_path / "own.jsonl", ["\ufeff" + json.dumps({"prompt": "1+1?", "answer": 2})])
    assert [task.prompt for task in load_tasks(TaskSource(name=name, split="all"))] == ["1+1?"]


def test_a_file_is_divided_between_train_and_heldout_without_overlap(tmp_path: Path) -> None:
    name = write(tmp_path / "own.jsonl", [json.dumps({"prompt": f"{n}+1?", "answer": n + 1}) for n in range(200)])
    train, heldout = draw(name), draw(name, split="heldout")
    assert len(train) + len(heldout) == 200 == len(draw(name, split="test"))
    assert not {task.prompt for task in train} & {task.prompt for task in heldout}


def test_a_count_draws_a_seeded_sample_in_the_files_order(tmp_path: Path) -> None:
    name = write(tmp_path / "own.jsonl", [json.dumps({"prompt": f"{n}", "answer": n}) for n in range(50)])
    drawn = [int(task.answer) for task in draw(name, split="all", count=10, seed=3)]
    assert drawn == sorted(drawn) and len(drawn) == 10
    assert drawn != [int(task.answer) for task in draw(name, split="all", count=10, seed=4)]


@pytest.mark.parametrize(("line", "message"), [
    ('{"prompt": "2+3?", "ans', r"own.jsonl:2: not whole JSON .*cut off"),
    ('["2+3?", 5]', "own.jsonl:2: a list"),
    ('{"answer": 5}', "own.jsonl:2: prompt: None"),
    ('{"prompt": "2+3?"}', "own.jsonl:2: answer: None"),
    ('{"prompt": "2+3?", "answer": true}', "own.jsonl:2: answer: True"),
    ('{"prompt": "2+3?", "answer": 5, "metadata": 1}', "own.jsonl:2: metadata"),
    ('{"prompt": "2+3?", "answer": %s}' % ("9" * 5000), "own.jsonl:2: cannot be read .*4300 digits"),
    ('{"prompt": "\\ud800", "answer": 5}', r"own.jsonl:2: prompt: '\\ud800' holds half of a surrogate pair"),
    ('{"prompt": %s' % ("[" * 100_000), "own.jsonl:2: "),
])
def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    name = write(tmp_path / "own.jsonl", ['{"prompt": "1+1?", "answer": 2}', line])
    with pytest.raises(UserError, match=message):
        draw(name)


def test_a_file_or_set_has_no_generator_settings_and_no_more_than_it_has(tmp_path: Path) -> None:
    name = write(tmp_path / "own.jsonl", ['{"prompt": "1+1?", "answer": 2}'])
    with pytest.raises(UserError, match="only procedural sets have settings"):
        draw(name, params={"max_terms": 3})
    with pytest.raises(UserError, match="which has only 1"):
        draw(name, split="all", count=2)
    with pytest.raises(UserError, match="no line"):
        draw(write(tmp_path / "empty.jsonl", [""]))
