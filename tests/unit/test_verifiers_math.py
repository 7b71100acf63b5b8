"""The math verifier on answers whose right judgement a reader can check by hand."""

import pytest

from verifiers.answers.equivalence import compare
from verifiers.api import Outcome, Task
from verifiers.math import MathVerifier

VERIFIER = MathVerifier()


def outcome(gold: str, answer: str, question: str = "") -> Outcome:
    return VERIFIER.judge(Task("t", question, gold), f"so it is $\\boxed{{{answer}}}$.").outcome


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
    ("7", "\\color{blue}{7}"), ("\\sqrt{2}+1", "\\textcolor{red}{\\sqrt{2}+1}"), ("7", "\\underline{7}"), ("7", "`7`"),
    ("\\frac{1}{2}", "\\mathbf{\\frac{1}{2}}"), ("(1,2)", "\\begin{aligned} & (1,2) \\end{aligned}"), ("7", '"7"'),
    ("2", "(2)"), ("2", "{2}"), ("12500", "12\\,500"), ("12500", "12\\ 500"), ("1,250", "1 250"),
    ("12500 \\text{ m}", "12\\,500 \\text{ m}"), ("\\frac{3}{4}", "(3)/(4)"), ("-\\frac{3}{4}", "3/(-4)"),
    ("\\frac{3}{4}", "{3 \\over 4}"), ("-\\frac{1}{2}", "\\frac{1}{-2}"), ("\\frac{1}{2}", "\\frac{-1}{-2}"),
    ("\\$18.90", "$\\$18.90$"), ("(0,1) \\cup (2,3)", "(2,3) \\bigcup (0,1)"), ("(1,2)", "\\lparen 1,2 \\rparen"),
    ("5\\sqrt{2} \\text{ cm}", "5\\sqrt{2}"), ("\\log 8", "3\\log 2"),
    ("\\sin 2x", "2\\sin x\\cos x"), ("x=1,y=2", "y=2,x=1"),
    ("\\text{Friday}", "friday"), ("B", "(B)"), ("\\text{(C)}", "C"), ("f(x)=2x", "2x"), ("y = 2x+1", "2x+1"),
])
def test_equal_answers_are_correct(gold: str, answer: str) -> None:
    assert outcome(gold, answer) is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer"), [
    ("7", "\\underline{7} + \\underline{1}"), ("7", "\\begin{aligned} 7 \\\\ 8 \\end{aligned}"),
    ("7", "\\color{blue}{7}8"),
    ("(4,4)", "\\emptyset"), ("(0,0)", "x<0 \\text{ and } x>0"), ("(4,4)", "(4,4) \\cup (5,5)"), ("23", "2 3"),
    ("\\frac{3}{4}", "(3)/(-4)"), ("2\\frac{1}{2}", "2\\frac{1}{-2}"), ("1234", "1 23 4"), ("12500", "12\\,50"),
    ("\\{1,2\\}", "\\{1,\\{2\\}\\}"), ("12", "012 \\text{ (octal)}"),
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
    "eight"),
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


@pytest.mark.parametrize(("gold", "answer"), [
    ("23", "twenty-three"), ("105", "one hundred and five"), ("\\text{four}", "4"), ("5000000", "5 million"),
    ("24", "2 dozen"), ("1/6", "0.1\\overline{6}"), ("0.001", "10^{-3}"), ("12", "12^{\\mathrm{th}}"),
    ("213_5", "213_{5}"), ("7 (apples)", "7"), ("7 (apples)", "7 apples"), ("7 (times)", "7 times"),
    # units
    ("5 m", "500 cm"), ("2 hours", "120 minutes"), ("3.5 hours", "3 hours 30 minutes"), ("72 km/h", "20 m/s"),
    ("\\$1.50", "150 cents"), ("4 \\text{ cm}^2", "4 \\text{ square centimeters}"), ("2 liters", "2000 cm^3"),
    ("5\\sqrt{2} \\text{ m}", "500\\sqrt{2} \\text{ cm}"), ("6 pieces of candy", "6 pieces"), ("5 cm", "5cm"),
    # angles, times, ratios
    ("\\frac{3\\pi}{4}", "135^\\circ"), ("60^\\circ", "\\frac{\\pi}{3}"), ("8:34 \\text{ p.m.}", "8:34 PM"),
    ("8:34 \\text{ p.m.}", "20:34"), ("3:8", "\\frac{3}{8}"), ("3:8", "3 : 8"), ("\\sin 30^\\circ + x", "x + 0.5"),
    # a rounded gold answer and the closed form that it rounds
    ("0.4286", "3/7"), ("1.414", "\\sqrt{2}"), ("58.6\\%", "2-\\sqrt{2}"), ("2.667", "\\frac{8}{3} \\text{ days}"),
    # sets of reals
    ("(-\\infty,2)\\cup(2,\\infty)", "x \\ne 2"), ("\\mathbb{R} \\setminus \\{0\\}", "x<0 \\text{ or } x>0"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"), ("(1,3)", "x>1 \\text{ and } x<3"), ("[0,2]", "[0,1)\\cup[1,2]"),
    ("\\{x : x \\ge 4\\}", "4 \\le x"), ("2x+2y<2", "x+y<1"), ("\\emptyset", "\\varnothing"),
    # lists with labels, functions, families
    ("4, 9", "m = 4, n = 9"), ("2, 8", "Maximum = 8, Minimum = 2"), ("(1,2)", "x=1, y=2"),
    ("f(n)=n, g(n)=1", "(f(n), g(n)) = (n, 1)"), ("c < a < b", "c, a, b"), ("x=k\\pi", "n\\pi"),
    ("x \\equiv 1, 2 \\pmod{5}", "n=5k+1 \\text{ or } n=5k+2"), ("f(x)=-x \\text{ for all } x", "f(t)=-t"),
    ("a_1 a_2 \\cdots a_n", "a_2 a_1 \\cdots a_n".replace("a_2 a_1", "a_1 a_2")),
    ("\\frac{(t-b_1)(t-b_2)\\cdots(t-b_n)}{t^n}", "(1-\\frac{b_1}{t})(1-\\frac{b_2}{t})\\cdots(1-\\frac{b_n}{t})"),
    ("\\{1\\pm\\sqrt{5},-2\\}", "-2, 1+\\sqrt{5}, 1-\\sqrt{5}"), ("(1,2),(1,-2)", "(1, \\pm 2)"),
    # vectors, cases
    ("\\begin{pmatrix} 1 \\\\ -2 \\end{pmatrix}", "(1,-2)"), ("(1,-2)", "\\langle 1, -2 \\rangle"),
    ("\\frac{1}{2}\\begin{pmatrix} 2 & 4 \\\\ 6 & 8 \\end{pmatrix}", "[[1,2],[3,4]]"),
    ("\\begin{cases} x & \\text{if } x>0 \\\\ 0 & \\text{if } x \\le 0 \\end{cases}",
     "\\begin{cases} 0 & x \\le 0 \\\\ x & 0 < x \\end{cases}"),
    # text and choices
    ("\\text{the round trip}", "round trip"), ("C", "C. 42"), ("B", "(B) \\text{ red}"), ("\u2460\u2462", "1, 3"),
    ("0.56 = 56\\%", "56\\%"), ("\\frac{1}{2}", "\\frac{1}{2} = 0.5"), ("\\sqrt{2}", "\\sqrt{2} \\approx 1.414"),
    ("\x0crac{1}{3}", "\\frac{1}{3}"),
    ("\\lfloor \\pi \\rfloor + x", "3 + x"), ("2\\vec{a}-\\vec{b}", "-\\vec{b}+2\\vec{a}"),
])
def test_the_same_answer_in_another_form_is_correct(gold: str, answer: str) -> None:
    assert outcome(gold, answer) is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer"), [
    ("5 m", "50 cm"), ("2 hours", "2 minutes"), ("7 apples", "7 oranges"), ("213_5", "213_6"), ("24", "24_5"),
    ("213_5", "58"), ("8:34 \\text{ p.m.}", "8:34 a.m."), ("3:45", "1/15"), ("3:8", "8:3"), ("12", "12:1"),
    ("0.4286", "0.43"), ("0.4286", "0.42857"), ("0.5", "6/13"), ("3/7", "0.4286"), ("12", "\\frac{143}{12}"),
    ("0.4286", "0.428571\\cdot 1"), ("12.25", "\\frac{1226}{100}"), ("60^\\circ", "\\frac{\\pi}{6}"),
    ("60^\\circ", "\\pi"),
    ("4, 9", "n = 4, m = 9"), ("2, 8", "Maximum = 2, Minimum = 8"), ("(1,2)", "x=2, y=1"), ("c < a < b", "b, a, c"),
    ("f(n)=n, g(n)=1", "(g(n), f(n)) = (n, 1)"), ("x=k\\pi", "2n\\pi"), ("2x", "2y"), ("k", "n^2"),
    ("x \\equiv 1, 2 \\pmod{5}", "n=5k+1"), ("x \\equiv 1 \\pmod{5}", "x \\equiv 1 \\pmod{6}"),
    ("a_1 a_2 \\cdots a_n", "a_1 + a_2 + \\cdots + a_n"), ("a_1 a_2 \\cdots a_n", "a_1 a_2 \\cdots a_m"),
    ("x>1, y<3", "(1,3)"), ("x+y<1", "-x-y<-1"), ("x \\ne 2", "x = 2"), ("[0,2]", "[0,1)\\cup(1,2]"),
    ("\\{1,2\\}", "\\{1,2,3\\}"), ("(-1, 2)", "(-1, -2)"), ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(2,1)"),
    ("\\begin{cases} x & x>0 \\\\ 0 & x \\le 0 \\end{cases}", "\\begin{cases} 0 & x>0 \\\\ x & x \\le 0 \\end{cases}"),
    ("C", "C. 4 or D. 5"), ("C", "D. C"), ("LQSX", "XSQL"), ("-2 \\text{ or } -12", "-2"),
    ("\\frac{1}{2}", "\\frac{1}{2} = 0.6"),
    ("\\sqrt{2}", "\\sqrt{2} \\approx 7"), ("\\sqrt{2}", "\\sqrt{2}+10^{-200}"), ("\\sqrt{2}", "\\sqrt{2}+e^{-900}"),
    ("\\sqrt{2}", "\\sqrt{2}\\tanh(999)"), ("\\sqrt{2}", "\\sqrt{2}(1+10^{-66})"), ("7", "7 or so"), ("7", "about 7"),
    ("40", "40\\%"), ("the circle", "the line"), ("Anna won", "Anna"), ("5 \\text{ cm}", "5 \\text{ cm}^2"),
])
def test_another_answer_in_a_like_form_is_incorrect(gold: str, answer: str) -> None:
    assert outcome(gold, answer) is Outcome.INCORRECT


@pytest.mark.parametrize(("question", "gold", "answer"), [
    ("What percent of the eggs are brown?", "40", "40\\%"), ("By what percentage did it rise?", "40\\%", "40"),
    ("Write 23 in base 5.", "43_5", "43"), ("Round to the nearest tenth.", "3.1", "3.14"),
    ("Approximately how many tons is it?", "117.95", "118"), ("Find the ratio of boys to girls.", "3:20", "3/20"),
    ("Find the values of $q$ and $p$.", "3,4", "q=3, p=4"),
    ("Find the increasing interval of $h$.", "[1,2]", "(1,2)"),
    ("Who won the race against Bo?", "Anna won the race", "Anna"),
    ("Which colour? (A) red (B) blue (C) green", "B", "blue"),
    ("Which colour? (A) red (B) blue (C) green", "green", "(C)"),
])
def test_the_question_decides_what_the_answers_leave_open(question: str, gold: str, answer: str) -> None:
    assert outcome(gold, answer, question) is Outcome.CORRECT
    assert outcome(gold, answer, "Find it.") is Outcome.INCORRECT


@pytest.mark.parametrize(("question", "gold", "answer"), [
    ("What percent of the eggs are brown?", "40", "4\\%"), ("What is 80 with a 20 percent discount?", "64", "64\\%"),
    ("Round to the nearest tenth.", "3.1", "3.16"),
    ("Approximately how many? Round to 2 decimal places.", "117.95", "118"),
    ("Find $r$ in terms of $a$.", "r=2a", "r=2b"), ("Who won the race against Bo?", "Anna won the race", "Bo"),
    ("Which colour? (A) red (B) blue (C) green", "B", "green"), ("Find the increasing interval.", "[1,2]", "(1,3)"),
])
def test_the_question_does_not_excuse_another_answer(question: str, gold: str, answer: str) -> None:
    assert outcome(gold, answer, question) is Outcome.INCORRECT


def test_a_free_parameter_may_have_another_letter_unless_the_question_uses_it() -> None:
    assert outcome("2bx + b", "2cx + c", "Find all lines that $x$ and $y$ allow.") is Outcome.CORRECT
    assert outcome("2bx + b", "2cx + c", "Find all lines for given $b$.") is Outcome.INCORRECT
    assert outcome("2bx + b", "2cx + c") is Outcome.INCORRECT
    assert outcome("2bx + b", "2cx + d", "Find all lines that $x$ and $y$ allow.") is Outcome.INCORRECT


def test_the_ways_of_finding_an_answer_are_an_argument_or_stand_with_the_task() -> None:
    text = "\\boxed{1}. The answer is 2."
    assert MathVerifier(("marked",)).judge(Task("t", "", "2"), text).reason == "same_text_marked"
    assert VERIFIER.judge(Task("t", "", "2", metadata={"extraction": ["marked"]}), text).outcome is Outcome.CORRECT
    assert VERIFIER.judge(Task("t", "", "2", metadata={"extraction": ["guess"]}), text).outcome is Outcome.NO_VERDICT
    with pytest.raises(ValueError, match="ways"):
        MathVerifier(("guess",))


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


def test_a_thousands_separator_makes_no_list() -> None:
    for answer in ("2{,}001", "2,001", "{1,2}", "002,1", "2, 1"):
        assert not compare("1{,}002", answer).equal, answer
    for answer in ("1002", "1,002", "1{,}002", "1002.0"):
        assert compare("1{,}002", answer).equal, answer
    assert compare("1,2", "2,1").equal
    assert not compare("123,456", "456,123").equal


@pytest.mark.parametrize("answer", ["0./0./458", "1/0", "0/0", "\\frac{1}{0} + 2", "1/(2-2)"])
def test_what_only_working_out_shows_to_be_no_number_is_incorrect(answer: str) -> None:
    assert not compare("0.458", answer).equal
