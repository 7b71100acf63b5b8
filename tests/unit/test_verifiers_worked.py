"""Worked solutions: their style by example, and that both judges find them right."""

import pytest

from configs.settings.common import TaskSource
from verifiers.api import Outcome, Task
from verifiers.exact import ExactVerifier
from verifiers.math import MathVerifier
from verifiers.puzzles import PuzzleVerifier
from verifiers.tasks import load_tasks, worked_solution
from verifiers.tasks.worked import SOLVERS
from verifiers.tasks.worked_puzzles import PUZZLE_SOLVERS

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
    "number_filtering": (
        {"operation": "remove_smaller", "filter_value": "17", "original_numbers": ["21", "-6", "17"]},
        "['21', '17']",
        "drop < 17\n21 > 17: keep\n-6 < 17: drop\n17 = 17: keep\n\\boxed{['21', '17']}",
    ),
    "number_sorting": (
        {"direction": "descending", "original_numbers": ["30.0", "47.0", "-7.0"]},
        "['47.0', '30.0', '-7.0']",
        "47.0; left 30.0, -7.0\n30.0; left -7.0\n-7.0\n\\boxed{['47.0', '30.0', '-7.0']}",
    ),
    "count_bits": ({"number": 25}, "3", "1: 25 - 16 = 9\n2: 9 - 8 = 1\n3: 1 - 1 = 0\n\\boxed{3}"),
    "prime_factorization": (
        {"number": 90},
        "2 \u00d7 3 \u00d7 3 \u00d7 5",
        "90 / 2 = 45\n45 / 3 = 15\n15 / 3 = 5\n5 is prime\n\\boxed{2 \u00d7 3 \u00d7 3 \u00d7 5}",
    ),
    "word_sequence_reversal": (
        {"words": ["to", "Sir", "is"]},
        "is, Sir, to",
        "1 to\n2 Sir\n3 is\n\\boxed{is, Sir, to}",
    ),
    "spell_backward": ({"word": "tolly"}, "yllot", "t-o-l-l-y\ny-l-l-o-t\n\\boxed{yllot}"),
    "letter_counting": (
        {"target_letter": "e", "span": ["Even", "the", "sky"]},
        "3",
        "E-v-e-n: 0 + 2 = 2\nt-h-e: 2 + 1 = 3\ns-k-y: 3 + 0 = 3\n\\boxed{3}",
    ),
    "simple_geometry": (
        {"n_sides": 4, "known_angles": [80.0, 100.0, 70.0]},
        "110",
        "2 * 180 = 360\n360 - 80 = 280\n280 - 100 = 180\n180 - 70 = 110\n\\boxed{110}",
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
        ("count_bits", {"number": 0}, "0"),
        ("simple_geometry", {"n_sides": 3, "known_angles": [80.5, 40.0]}, "60"),
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
    "number_filtering": [{}, {"max_decimals": 0, "min_value": -9, "max_value": 9}],
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
        for verifier in (ExactVerifier() if family in PUZZLE_SOLVERS else MathVerifier(), PuzzleVerifier()):
            verdict = verifier.judge(task, solution)
            assert verdict.outcome is Outcome.CORRECT, (verifier.name, task.prompt, solution, verdict)
