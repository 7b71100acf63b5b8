"""What every registered verifier must do: gold answers right, near misses wrong, hostile text survived."""

import pytest

from verifiers.api import Outcome, Task, Verdict, Verifier
from verifiers.registry import identity, load_verifier, names

LEGS = {"family": "leg_counting"}
CASES: dict[str, list[tuple[Task, list[str], list[str]]]] = {
    "math": [
        (Task("1", "", "42"), ["\\boxed{42}", "answer: 42.0", "#### 42"], ["\\boxed{24}", "\\boxed{-42}",
        "\\boxed{42%}", "\\boxed{40+2}", ""]),
        (Task("2", "", "\\frac{\\pi}{2}"), ["\\boxed{\\pi/2}"], ["\\boxed{1.5708}", "\\boxed{\\pi}",
        "\\boxed{\\frac{2}{\\pi}}"]),
    ],
    "format": [
        (Task("1", "", ""), ["<think>a</think>b"], ["a", "<think>a", "<think></think>b", "<think>a</think>", ""]),
    ],
    "puzzles": [
        (Task("1", "", "42", "puzzles", LEGS), ["\\boxed{42}", "It has 42 legs."], ["\\boxed{24}",
        "\\boxed{42 or 43}", "\\boxed{40+2}", ""]),
    ],
}
HOSTILE = [
    "", " ", "\x00", "\ud800", "\\boxed{", "\\boxed{}", "}" * 1_000, "\\boxed{" * 10_000, "\\boxed{1}" * 10_000,
    "\\boxed{" + "9" * 1_000_000 + "}", "\\boxed{9^9^9^9^9}", "\\boxed{((9!)!)!}",
    "\\boxed{" + "(" * 9_999 + ")" * 9_999 + "}",
    "\\boxed{NaN}", "\\boxed{inf}", "\\boxed{oo}", "\\boxed{\u0664\u0662}", "\\boxed{\uff14\uff12}",
    "\\boxed{1/0}", "\\boxed{0^{-1}}",
    "\\boxed{5 or 6}", "\\boxed{x=5=6=5}", "\\boxed{__import__('os').system('false')}", "\\boxed{\\frac}",
    "\\boxed{\\sqrt}",
    "\\boxed{\\log_1 5}", "\\boxed{\\tan(\\pi/2)}", "\\boxed{" + "\\frac{1}{" * 300 + "1" + "}" * 300 + "}",
    "answer is " * 5_000,
    "<think>" * 5_000, "</think>" * 5_000, "\\boxed{" + ",".join("1234567890") * 500 + "}", "\\boxed{1e999999999}",
    "\\boxed{" + "\\pm" * 500 + "1}", "\\boxed{" + "1=" * 500 + "1}", "\\boxed{|||||||x|||||||}",
    "\\boxed{\\begin{pmatrix}\\end{pmatrix}}",
]


def test_every_registered_verifier_of_ours_has_cases() -> None:
    assert set(CASES) <= set(names())


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_verifier_keeps_the_protocol(name: str) -> None:
    verifier = load_verifier(name)
    assert isinstance(verifier, Verifier) and verifier.name == name
    assert identity(name) == identity(name)


@pytest.mark.parametrize("name", sorted(CASES))
def test_gold_answers_score_one_and_near_misses_do_not(name: str) -> None:
    verifier = load_verifier(name)
    for task, right, wrong in CASES[name]:
        for completion in right:
            assert verifier.judge(task, completion).score == 1.0, completion
        for completion in wrong:
            verdict = verifier.judge(task, completion)
            assert verdict.outcome is Outcome.INCORRECT and verdict.score < 1.0, completion


@pytest.mark.parametrize("name", sorted(CASES))
def test_hostile_completions_are_incorrect_and_raise_nothing(name: str) -> None:
    verifier = load_verifier(name)
    for task, _, _ in CASES[name]:
        for completion in HOSTILE:
            verdict = verifier.judge(task, completion)
            assert isinstance(verdict, Verdict)
            assert verdict.outcome is Outcome.INCORRECT, completion[:60]


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_same_completion_gets_the_same_verdict(name: str) -> None:
    verifier = load_verifier(name)
    for task, right, wrong in CASES[name]:
        for completion in right + wrong:
            assert verifier.judge(task, completion) == verifier.judge(task, completion)
