"""The math verifier on answers whose right judgement a reader can check by hand."""

import pytest

from verifiers.api import Outcome, Task
from verifiers.math import MathVerifier

VERIFIER = MathVerifier()


def outcome(gold: str, answer: str) -> Outcome:
    return VERIFIER.judge(Task("t", "", gold), f"so it is $\\boxed{{{answer}}}$.").outcome


@pytest.mark.parametrize(("gold", "answer"), [
    ("18", "18"), ("18", "18.00"), ("18", "$18"), ("18", "\\$18"), ("18", "18 dollars"), ("18", "+18"), ("18", "018"),
    ("1000", "1,000"), ("1,234,567", "1234567"), ("10000", "10{,}000"), ("10000", "10,\\!000"), ("-5", "\u22125"),
    ("0.5", "1/2"), ("0.5", "\\frac{1}{2}"), ("0.5", "\\dfrac12"), ("1/2", "50%"), ("0.5", "50\\%"), ("1/2", "2/4"),
    ("50%", "0.5"), ("\\frac{14}{3}", "14/3"), ("-\\frac{3}{4}", "\\frac{-3}{4}"), ("1\\frac{1}{2}", "1.5"),
    ("2500", "2.5 \\times 10^3"), ("1500", "1.5e3"), ("0.001", "10^{-3}".replace("10", "1 \\times 10")),
    ("5", "x = 5"), ("x=5", "5"), ("5 cm", "5"), ("5 cm", "5\\text{ cm}"), ("90^\\circ", "90"), ("12", "12 apples"),
    ("$18", "18"), ("2\\sqrt{3}", "\\sqrt{12}"), ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"), ("2\\pi", "\\pi*2"),
    ("x^2+2x+1", "(x+1)^2"), ("\\frac{x}{2}", "0.5x"), ("\\sin^2 x", "1-\\cos^2 x"), ("2^{-99}", "\\frac{1}{2^{99}}"),
    ("\\log_2 8 + \\sqrt2", "3+\\sqrt{2}"), ("\\binom{5}{2}\\pi", "10\\pi"), ("3+4i", "4i+3"), ("|x|", "\\sqrt{x^2}"),
    ("(3, \\frac{\\pi}{2})", "\\left(3,\\frac{\\pi}{2}\\right)"), ("1,-2", "-2, 1"), ("\\{1,2\\}", "\\{2,1\\}"),
    ("1 \\text{ and } 2", "1, 2"), ("3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2"), ("[0, 1)", "[0,1)"),
    ("(-\\infty, 3)", "(-\\infty,3)"), ("(0,1)\\cup(2,3)", "(2,3) \\cup (0,1)"), ("x+2y=3", "2x+4y=6"),
    ("x > 5", "5 < x"), ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
    "\\begin{bmatrix}1&2\\\\3&\\frac{8}{2}\\end{bmatrix}".replace("\\frac{8}{2}", "4")),
    ("3 < x \\le 4", "(3, 4]"), ("[0,\\infty)", "a \\ge 0"), ("\\{x|-1<x<1\\}", "(-1,1)"), ("f(z)=z^2", "f(x)=x^2"),
    ("(x,y)=(1,2)", "(1,2)"), ("$1$, $2$", "2, 1"), ("f(x)=1", "f(x)=1 \\text{ for all } x"),
    ("2", "(2)"), ("2", "{2}"),
    ("5\\sqrt{2} \\text{ cm}", "5\\sqrt{2}"), ("\\log 8", "3\\log 2"),
    ("\\sin 2x", "2\\sin x\\cos x"), ("x=1,y=2", "y=2,x=1"),
    ("\\text{Friday}", "friday"), ("B", "(B)"), ("\\text{(C)}", "C"), ("f(x)=2x", "2x"), ("y = 2x+1", "2x+1"),
])
def test_equal_answers_are_correct(gold: str, answer: str) -> None:
    assert outcome(gold, answer) is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer"), [
    ("18", "19"), ("18", "-18"), ("18", "180"), ("18", "1.8"), ("18", "18 or 19"), ("18", "17, 18"), ("18", "(18)(1)"),
    ("10", "10%"), ("10%", "10"), ("5 m", "5 cm"), ("5 cm", "5 m"), ("$5", "\u20ac5"), ("5", "5 million"), ("5",
    "5 dozen"),
    ("5", "5x"), ("5", "5\\pi"), ("5", "5!"), ("5", "5^1"), ("5", "x=5=6=5"), ("x=5", "x=5=6=5"), ("5", "4=5"),
    ("3x+4y+14=0", "3*x-1*y+13=0"), ("2^{-98}", "2^{-99}"), ("1/3", "0.333"), ("\\pi", "3.14159265"), ("\\sqrt{2}",
    "1.41421356"),
    ("-4", "4 - 1 - 7"), ("4", "8/2"), ("4", "2^2"), ("4", "\\sqrt{16}"), ("120", "\\binom{10}{3}"), ("1024", "2^{10}"),
    ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("[0,1)", "[0,1]"), ("1,2", "1"), ("1,2", "1,2,3"), ("1,1,2", "1,2,2"),
    ("\\log x", "\\ln x"), ("2x", "x2"), ("5\\sqrt{2} \\text{ cm}", "5\\sqrt{2} \\text{ mm}"), ("6", "6 for all but 7"),
    ("5", "5 or 6"), ("x", "\\sqrt{x^2}"), ("x+1", "x-1"), ("x^2", "x^3"), ("x > 5", "x < 5"), ("x > 5", "x \\ge 5"),
    ("Friday", "Monday"), ("B", "C"), ("x", "X"), ("\\infty", "oo"), ("7", "NaN"), ("7", "inf"), ("3", "\u0663"),
    ("5", "\uff15"),
    ("52", "5\u00b2"), ("0", "10^{-99}"), ("\\sqrt{2}", "\\sqrt{2}+10^{-30}"), ("1,000", "1"), ("12", "1 2"), ("7",
    "seven"),
    ("-7", "7"), ("7", "--7"), ("(0,1)\\cup(2,3)", "(0,1)"), ("3 \\pm 1", "3+1"), ("a_1", "a_2"), ("1e10", "1e1"),
])
def test_near_misses_are_incorrect(gold: str, answer: str) -> None:
    assert outcome(gold, answer) is Outcome.INCORRECT


@pytest.mark.parametrize("answer", [
    "9^9^9^9^9", "9^{9^{9^{9}}}", "10^{10^{10}}\\sqrt{2}", "((((9!)!)!)!)!", "100000!", "2^{100000000}",
    "(x+1)^{99999999}",
    "\\sin(10^{10^{5}})", "e^{e^{e^{e^{9}}}}", "(" * 5_000 + "1" + ")" * 5_000, "\\sqrt{" * 900 + "2" + "}" * 900,
    "1" * 1_000_000, "x+" * 100_000 + "x",
    ",".join(["1"] * 5_000), "\\frac{1}{" * 500 + "2" + "}" * 500, "-" * 3_000 + "1",
])
def test_what_is_too_much_to_compute_is_incorrect_and_quick(answer: str) -> None:
    verdict = VERIFIER.judge(Task("t", "", "3\\sqrt{2}"), f"\\boxed{{{answer}}}")
    assert verdict.outcome is Outcome.INCORRECT
    assert len(verdict.extracted or "") <= 200


def test_an_overlong_answer_says_over_budget() -> None:
    assert VERIFIER.judge(Task("t", "", "7"), "\\boxed{" + "7" * 10_000 + "}").reason == "over_budget"


def test_an_empty_gold_answer_gives_no_verdict() -> None:
    assert VERIFIER.judge(Task("t", "", "  "), "\\boxed{5}").outcome is Outcome.NO_VERDICT


def test_an_unreadable_gold_answer_is_compared_as_text() -> None:
    gold = "\\int_0^1 f(t)\\,dt"
    assert outcome(gold, "\\int_0^1 f(t) \\, dt") is Outcome.CORRECT
    assert outcome(gold, "\\int_0^2 f(t)\\,dt") is Outcome.INCORRECT


def test_a_gold_answer_may_be_a_worked_solution() -> None:
    task = Task("t", "", "He has 2+3=<<2+3=5>>5 apples.\n#### 5")
    assert VERIFIER.judge(task, "\\boxed{5}").outcome is Outcome.CORRECT
    assert VERIFIER.judge(task, "\\boxed{2}").outcome is Outcome.INCORRECT


def test_the_reason_names_the_comparison_and_where_the_answer_stood() -> None:
    verdict = VERIFIER.judge(Task("t", "", "0.5"), "The final answer is $\\frac{1}{2}$.")
    assert (verdict.reason, verdict.extracted, verdict.score) == ("same_number_marked", "\\frac{1}{2}", 1.0)


def test_a_right_answer_that_stands_only_inside_the_thought_does_not_count() -> None:
    task = Task("t", "", "5")
    assert VERIFIER.judge(task, "<think>\\boxed{5}</think> The answer is 6.").outcome is Outcome.INCORRECT
    assert VERIFIER.judge(task, "<think>\\boxed{6}</think> The answer is 5.").outcome is Outcome.CORRECT
    assert VERIFIER.judge(task, "<think>so \\boxed{5}").outcome is Outcome.CORRECT
