"""Worked solutions: their style by example, and that both judges find them right."""

import pytest

from configs.schema import TaskSource
from verifiers.api import Outcome, Task
from verifiers.math import MathVerifier
from verifiers.puzzles import PuzzleVerifier
from verifiers.tasks import load_tasks, worked_solution
from verifiers.tasks.worked import SOLVERS

EXAMPLES = {
    "chain_sum": ({"expression": "43 - 7 + 12"}, "48", "43 - 7 = 36\n36 + 12 = 48\n\\boxed{48}"),
    "decimal_chain_sum": ({"expression": "1.42 + 5.720"}, "7.140", "1.42 + 5.720 = 7.140\n\\boxed{7.140}"),
    "basic_arithmetic": (
        {"expression": "8 - -( 2 + 3 ) * 4 / 10"},
        "10",
        "2 + 3 = 5\n-(5) = -5\n-5 * 4 = -20\n-20 / 10 = -2\n8 - -2 = 10\n\\boxed{10}",
    ),
    "products": ({"expression": "34 * 27"}, "918", "34 * 27 = 34 * 20 + 34 * 7 = 680 + 238 = 918\n\\boxed{918}"),
    "leg_counting": (
        {"animals": {"sea slug": 3, "deer": 12, "bee": 1}},
        "54",
        "3 sea slugs: 3 * 0 = 0\n12 deers: 12 * 4 = 48\n1 bee: 1 * 6 = 6\n0 + 48 = 48\n48 + 6 = 54\n\\boxed{54}",
    ),
    "gcd": (
        {"numbers": [60, 84]},
        "12",
        "84 - 60 x 1 = 84 - 60 = 24\n60 - 24 x 2 = 60 - 48 = 12\n24 - 12 x 2 = 24 - 24 = 0\n\\boxed{12}",
    ),
    "lcm": (
        {"numbers": [8, 6]},
        "24",
        "8 - 6 x 1 = 8 - 6 = 2\n6 - 2 x 3 = 6 - 6 = 0\n8 / 2 = 4\n4 * 6 = 24\n\\boxed{24}",
    ),
    "simple_equations": (
        {"equation": "56 - 98*e = -1218", "variable": "e"},
        "13",
        "-98*e + 56 = -1218\n-98*e = -1218 - 56 = -1274\ne = -1274 / -98 = 13\n\\boxed{13}",
    ),
    "gsm_symbolic": (
        {"answer_cot": "She has 3 + 4 + 1 = 8 eggs.\n#### 8.0"},
        "8",
        "She has 3 + 4 + 1 = 8 eggs.\n\\boxed{8}",
    ),
}


@pytest.mark.parametrize("family", sorted(EXAMPLES))
def test_a_solution_reads_as_in_the_example(family: str) -> None:
    metadata, answer, solution = EXAMPLES[family]
    assert worked_solution(Task("t", "", answer, metadata={**metadata, "family": family})) == solution


@pytest.mark.parametrize(
    ("family", "metadata", "answer"),
    [
        ("basic_arithmetic", {"expression": "7 / 2"}, "3"),
        ("chain_sum", {"expression": "1 + 1"}, "3"),
        ("gsm_symbolic", {"answer_cot": "3 + 4 = 8\n#### 8"}, "8"),
        ("gsm_symbolic", {"answer_cot": "3 + 4 = 7\n#### 7"}, "8"),
        ("gsm_symbolic", {"answer_cot": "3 + 4 = 7"}, "7"),
        ("word_ladder", {}, "A,B"),
    ],
)
def test_there_is_no_solution_where_the_steps_do_not_reach_the_gold_answer(
    family: str, metadata: dict, answer: str
) -> None:
    assert worked_solution(Task("t", "", answer, metadata={**metadata, "family": family})) is None


def test_a_longer_product_takes_a_line_a_digit() -> None:
    task = Task("t", "", "28782", metadata={"family": "products", "expression": "234 * 123"})
    assert worked_solution(task) == (
        "234 * 100 = 23400\n234 * 20 = 4680\n234 * 3 = 702\n23400 + 4680 = 28080\n28080 + 702 = 28782\n\\boxed{28782}"
    )


PARAMS = {
    "basic_arithmetic": [{}, {"allow_parentheses": False}, {"format_style": "natural", "whitespace": "no_space"}],
    "products": [{}, {"allow_negation": True, "max_terms": 3}],
    "chain_sum": [{}, {"allow_negation": True}],
    "gcd": [{}, {"max_numbers": 4}],
    "lcm": [{}, {"max_numbers": 4}],
}


@pytest.mark.parametrize(
    ("family", "params"), [(family, params) for family in sorted(SOLVERS) for params in PARAMS.get(family, [{}])]
)
def test_both_judges_find_200_solutions_right(family: str, params: dict) -> None:
    tasks = load_tasks(TaskSource(name=f"reasoning_gym/{family}", split="all", count=200, seed=5, params=params))
    solutions = [(task, worked_solution(task)) for task in tasks]
    written = [(task, solution) for task, solution in solutions if solution is not None]
    assert len(written) >= 170
    for task, solution in written:
        for verifier in (MathVerifier(), PuzzleVerifier()):
            verdict = verifier.judge(task, solution)
            assert verdict.outcome is Outcome.CORRECT, (verifier.name, task.prompt, solution, verdict)
