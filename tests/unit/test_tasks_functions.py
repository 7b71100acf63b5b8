"""Function tasks: steps against values made by hand, a split by program, calls that no table or constant passes."""

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from configs.errors import UserError
from configs.names import FUNCTION_FAMILIES
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora.dropped import DropLog
from corpora.sources import open_source
from verifiers.api import Outcome
from verifiers.code import CodeVerifier
from verifiers.code_hidden import CodeHiddenVerifier
from verifiers.tasks import load_tasks, normalise_question, programs, split_of, task_set_names, worked_solution
from verifiers.tasks.functions import NUM_HIDDEN, NUM_REWARDED
from verifiers.tasks.programs import Step

FAMILIES = [f"functions/{family}" for family in FUNCTION_FAMILIES]
XS = [3, -4, 12, 3, 5, 8]
S = "staple"
BY_HAND: list[tuple[str, str, Any, Any]] = [
    ("keep the even ones", "", XS, [-4, 12, 8]),
    ("keep the odd ones", "", XS, [3, 3, 5]),
    ("keep those above {k}", "3", XS, [12, 5, 8]),
    ("keep those below {k}", "5", XS, [3, -4, 3]),
    ("keep the multiples of {k}", "4", XS, [-4, 12, 8]),
    ("multiply each by {k}", "3", XS, [9, -12, 36, 9, 15, 24]),
    ("add {k} to each", "2", XS, [5, -2, 14, 5, 7, 10]),
    ("take {k} from each", "2", XS, [1, -6, 10, 1, 3, 6]),
    ("square each", "", XS, [9, 16, 144, 9, 25, 64]),
    ("flip the sign of each", "", XS, [-3, 4, -12, -3, -5, -8]),
    ("put them in rising order", "", XS, [-4, 3, 3, 5, 8, 12]),
    ("put them in falling order", "", XS, [12, 8, 5, 3, 3, -4]),
    ("turn the order around", "", XS, [8, 5, 3, 12, -4, 3]),
    ("keep the first {k}", "2", XS, [3, -4]),
    ("keep the last {k}", "2", XS, [5, 8]),
    ("drop the first one", "", XS, [-4, 12, 3, 5, 8]),
    ("drop the last one", "", XS, [3, -4, 12, 3, 5]),
    ("keep every second one", "", XS, [3, 12, 5]),
    ("put {k} at the end", "7", XS, [3, -4, 12, 3, 5, 8, 7]),
    ("put {k} at the front", "7", XS, [7, 3, -4, 12, 3, 5, 8]),
    ("add them all up", "", XS, 3 - 4 + 12 + 3 + 5 + 8),
    ("count them", "", XS, 6),
    ("take the largest, or 0 if none is left", "", XS, 12),
    ("take the largest, or 0 if none is left", "", [], 0),
    ("take the smallest, or 0 if none is left", "", XS, -4),
    ("take the smallest, or 0 if none is left", "", [], 0),
    ("count the {k}s", "3", XS, 2),
    ("make it upper case", "", S, "STAPLE"),
    ("turn it around", "", S, "elpats"),
    ("keep the first {k} letters", "4", S, "stap"),
    ("keep the last {k} letters", "4", S, "aple"),
    ("drop the first letter", "", S, "taple"),
    ("drop the last letter", "", S, "stapl"),
    ("keep every second letter", "", S, "sal"),
    ("write it {k} times in a row", "2", S, "staplestaple"),
    ("put {k} at the end", '"x"', S, "staplex"),
    ("put {k} at the front", '"x"', S, "xstaple"),
    ("take out every {k}", '"a"', "banana", "bnn"),
    ('put "-" for every {k}', '"a"', "banana", "b-n-n-"),
    ("put its letters in order", "", S, "aelpst"),
    ("count its letters", "", S, 6),
    ("count each {k} in it", '"a"', "banana", 3),
    ("add {k}", "7", 5, 12),
    ("take away {k}", "7", 5, -2),
    ("multiply by {k}", "7", 5, 35),
    ("square it", "", -5, 25),
    ("take the rest after dividing by {k}", "4", 11, 3),
    ("divide by {k} and round down", "4", 11, 2),
    ("divide by {k} and round down", "4", -11, -3),
    ("drop its sign", "", -5, 5),
    ("flip its sign", "", -5, 5),
    ("raise it to {k} if it is less", "9", 5, 9),
    ("raise it to {k} if it is less", "9", 15, 15),
    ("cut it to {k} if it is more", "9", 15, 9),
    ("cut it to {k} if it is more", "9", 5, 5),
    ("say if that is even", "", 6, True),
    ("say if that is above {k}", "9", 9, False),
    ("say if {k} divides that", "4", 10, False),
    ("list its digits", "", -305, [3, 0, 5]),
]
FORMS = [
    *programs.LISTS, *programs.LISTS_TO_NUMBER, *programs.TEXTS, *programs.TEXTS_TO_NUMBER, *programs.NUMBERS,
    *programs.NUMBERS_TO_FLAG, *programs.NUMBERS_TO_LIST,
]  # fmt: skip
KINDS = {list: "list", str: "text", int: "number"}


def draw(name: str, **fields: Any) -> list:
    return load_tasks(TaskSource(name=name, **fields))


@pytest.mark.parametrize(("words", "constant", "given", "expected"), BY_HAND)
def test_a_step_does_what_its_words_say(words: str, constant: str, given: Any, expected: Any) -> None:
    form = next(form for form in FORMS if form.words[0] == words and form.takes == KINDS[type(given)])
    assert Step(form, constant).run(given) == expected


def test_every_step_has_a_value_made_by_hand() -> None:
    done = {(words, KINDS[type(given)]) for words, _, given, _ in BY_HAND}
    assert {(form.words[0], form.takes) for form in FORMS} == done


def test_two_wordings_of_one_family_never_say_two_things() -> None:
    said = [(form.takes, words) for form in FORMS for words in form.words]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_draw_is_deterministic_and_has_no_program_twice(name: str) -> None:
    tasks = draw(name, count=150, seed=1)
    assert tasks == draw(name, count=150, seed=1) and tasks[:40] == draw(name, count=40, seed=1)
    assert len({program_of(task) for task in tasks}) == len({task.id for task in tasks}) == 150
    assert tasks != draw(name, count=150, seed=2)


def program_of(task: Any) -> str:
    """The reference program without its name."""
    return str(task.answer).replace(f"def {task.metadata['entry_point']}(", "def f(")


@pytest.mark.parametrize("name", FAMILIES)
def test_train_and_heldout_share_no_program_whatever_the_seed_and_the_words(name: str) -> None:
    train = [task for seed in (0, 1) for task in draw(name, count=150, seed=seed, params={"min_steps": 2})]
    held = [task for seed in (0, 1, 2) for task in draw(name, split="heldout", count=100, seed=seed)]
    assert not {program_of(task) for task in train} & {program_of(task) for task in held}
    assert {split_of(task.prompt) for task in train} == {"train"}
    assert {split_of(task.prompt) for task in held} == {"heldout"}
    assert not {normalise_question(task.prompt) for task in train} & {normalise_question(task.prompt) for task in held}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_program_gives_every_expected_value(name: str) -> None:
    for task in draw(name, count=100, split="all", params={"max_steps": 4}):
        space: dict[str, Any] = {}
        exec(task.answer, space)  # a program of our own
        made = space[task.metadata["entry_point"]]
        for call in [*task.metadata["calls"], *task.metadata["hidden_calls"]]:
            found = made(*call["args"])
            assert found == call["expected"] and type(found) is type(call["expected"]), (task.answer, call)


@pytest.mark.parametrize("name", FAMILIES)
def test_neither_a_constant_nor_a_table_of_the_rewarded_calls_gives_the_hidden_values(name: str) -> None:
    for task in draw(name, count=100):
        rewarded, hidden = task.metadata["calls"], task.metadata["hidden_calls"]
        assert (len(rewarded), len(hidden)) == (NUM_REWARDED, NUM_HIDDEN)
        table = {repr(call["args"]) for call in rewarded}
        assert not table & {repr(call["args"]) for call in hidden}
        for calls in (rewarded, hidden):
            assert len({repr(call["expected"]) for call in calls}) > 1, task.answer


def test_a_step_that_changes_nothing_is_found() -> None:
    sort, total = programs.LISTS[10], programs.LISTS_TO_NUMBER[0]
    assert (sort.line, total.line) == ("sorted(xs)", "sum(xs)")
    idle, useful = (Step(sort, ""), Step(total, "")), (Step(programs.LISTS[0], ""), Step(total, ""))
    assert not programs.every_step_matters(idle, [[3, 1, 2], [5, 4, 6]])
    assert programs.every_step_matters(useful, [[3, 1, 2], [5, 4, 6]])


def test_programs_have_the_asked_number_of_steps() -> None:
    for name in FAMILIES:
        tasks = draw(name, count=60, params={"min_steps": 3, "max_steps": 4})
        assert {task.metadata["num_steps"] for task in tasks} == {3, 4}
        assert all(task.answer.count("\n") == task.metadata["num_steps"] + 1 for task in tasks)


def test_a_task_is_plain_json_and_names_code_as_its_verifier() -> None:
    task = draw("functions/texts", count=1)[0]
    assert json.loads(json.dumps(task.metadata)) == task.metadata
    assert (task.verifier, task.source, task.metadata["family"]) == ("code", "functions/texts", "functions/texts")
    assert task.metadata["kind"] == "calls" and f"{task.metadata['entry_point']}(s)" in task.prompt


def test_calls_are_shown_where_asked_for() -> None:
    plain, shown = (draw("functions/numbers", count=20, params={"num_shown": num})[0] for num in (0, 2))
    first, second, third = (call["args"][0] for call in shown.metadata["calls"])
    name = shown.metadata["entry_point"]
    assert f"\n{name}({first}) is {shown.metadata['calls'][0]['expected']}\n{name}({second}) is " in shown.prompt
    assert f"{name}({third})" not in shown.prompt and "\n" not in plain.prompt
    assert [call.get("visible", False) for call in shown.metadata["calls"]] == [True, True, False]


def test_the_words_are_not_those_of_the_seedling_s_pretraining() -> None:
    from derivatives.seedling.sources import functions

    read = [words.split("{k}")[0].strip() for form in functions.FORMS for words in form.words]
    phrases = [words for words in read if len(words.split()) >= 3]
    rng = Random(0)
    openings = {document.split("\n")[0][:20] for document in (functions.document(rng) for _ in range(300))}
    for name in FAMILIES:
        for task in draw(name, count=150, split="heldout"):
            assert not [phrase for phrase in phrases if phrase in task.prompt], task.prompt
            assert task.prompt[:20] not in openings


def test_a_corpus_has_tasks_as_examples_as_problems_and_as_text() -> None:
    source = CorpusSource(name="functions/lists", count=5, params={"min_steps": 1, "max_steps": 2})
    tasks = draw("functions/lists", count=5, params={"min_steps": 1, "max_steps": 2})
    examples, problems, texts = (
        list(open_source(source, output, DropLog())) for output in ("examples", "problems", "tokens")
    )
    assert [one.completion for one in examples] == [worked_solution(task) for task in tasks]
    assert examples[0].completion == f"```python\n{tasks[0].answer}\n```"
    assert [(one.answer, one.verifier, one.metadata) for one in problems] == [
        (task.answer, "code", dict(task.metadata)) for task in tasks
    ]
    assert texts[0].text == f"{tasks[0].prompt}\n{examples[0].completion}\n"


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("functions/list", {"count": 1}, "did you mean 'functions/lists'"),
    ("functions/lists", {}, "count: empty"),
    ("functions/lists", {"count": 1, "split": "test"}, "use heldout"),
    ("functions/lists", {"count": 1, "params": {"max_step": 3}}, "did you mean 'max_steps'"),
    ("functions/lists", {"count": 1, "params": {"max_steps": 9}}, "max_steps: 9 .* allowed: 1 to 6"),
    ("functions/lists", {"count": 1, "params": {"num_shown": True}}, "num_shown: True"),
    ("functions/lists", {"count": 1, "params": {"min_steps": 4}}, "below min_steps 4; raise it"),
    ("functions/numbers", {"count": 900, "params": {"min_steps": 1, "max_steps": 1}}, r"only \d+ distinct programs"),
])  # fmt: skip
def test_what_does_not_fit_is_named_with_a_remedy(name: str, fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(name, **fields)


def test_the_families_are_among_the_named_task_sets() -> None:
    assert set(FAMILIES) <= set(task_set_names())


def test_the_code_verifiers_accept_every_reference_program_and_the_judge_no_table() -> None:
    reward, judge = CodeVerifier(), CodeHiddenVerifier()
    first = draw("functions/lists", count=1)[0]
    if "sandbox_unavailable" in (reason := reward.judge(first, "").reason):
        pytest.skip(reason)
    for name in FAMILIES:
        for task in draw(name, count=4):
            solution, table = worked_solution(task), lookup_table(task)
            assert solution
            assert reward.judge(task, solution).score == judge.judge(task, solution).score == 1.0, solution
            assert reward.judge(task, table).score == 1.0, table
            assert judge.judge(task, table).score == 0.0, table


@pytest.mark.parametrize("hidden", [None, [], "3"])
def test_the_judge_of_hidden_calls_gives_no_verdict_where_there_are_none(hidden: Any) -> None:
    task = draw("functions/numbers", count=1)[0]
    without = replace(task, metadata={**task.metadata, "hidden_calls": hidden})
    verdict = CodeHiddenVerifier().judge(without, worked_solution(task) or "")
    assert verdict.outcome is Outcome.NO_VERDICT and "hidden_calls" in verdict.reason


def lookup_table(task: Any) -> str:
    """A program that knows the rewarded calls by heart."""
    known = {repr(call["args"][0]): call["expected"] for call in task.metadata["calls"]}
    return f"```python\ndef {task.metadata['entry_point']}(value):\n    return {known!r}[repr(value)]\n```"
