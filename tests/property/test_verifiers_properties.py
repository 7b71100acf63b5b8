"""Verifiers and their parsers on text that nobody thought of."""

from contextlib import suppress
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.answers.clean import clean
from verifiers.answers.equivalence import compare
from verifiers.answers.expression import Unreadable, parse
from verifiers.answers.extract import extract, extract_text
from verifiers.answers.numbers import read_number
from verifiers.api import Outcome, Task
from verifiers.format import FormatVerifier
from verifiers.math import MathVerifier
from verifiers.tasks import normalise_question, split_of

PIECES = [
    "\\frac", "{", "}", "(", ")", "[", "]", "|", "^", "_", "!", "%", "+", "-", "*", "/", "=", "<", ",", ";", " ", "$",
    "1", "23", "0.5", "x", "y", "e", "i", "\\pi", "\\sqrt", "\\sin", "\\log", "\\pm", "\\cup", "\\infty", "\\{", "\\}",
    "\\text{ cm}", "or", "and", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\le", "\\boxed{", "answer:",
    "####",
    "</think>", "<think>", "\n", "\u00b2", "f(x)", "for all ",
]
NOISE = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
FEW = settings(max_examples=120, deadline=None, derandomize=True)


@FEW
@given(NOISE, NOISE)
def test_comparing_raises_nothing_and_any_text_equals_itself(gold: str, answer: str) -> None:
    compare(gold, answer)
    assert compare(gold, gold).equal


@FEW
@given(NOISE)
def test_readers_raise_nothing_but_unreadable(text: str) -> None:
    extract(text)
    extract_text(text)
    read_number(clean(text))
    with suppress(Unreadable):
        parse(clean(text))


@FEW
@given(NOISE, NOISE)
def test_scores_lie_between_zero_and_one_and_no_completion_earns_a_missing_verdict(gold: str, completion: str) -> None:
    task = Task("t", "", gold)
    for verdict in (MathVerifier().judge(task, completion), FormatVerifier().judge(task, completion)):
        assert 0.0 <= verdict.score <= 1.0
        if gold.strip() and not ("boxed" in gold or "####" in gold):
            assert verdict.outcome is not Outcome.NO_VERDICT


@FEW
@given(st.integers(-10**12, 10**12), st.integers(-10**12, 10**12))
def test_integers_are_equal_exactly_when_they_are(first: int, second: int) -> None:
    assert compare(str(first), f"{second:,}").equal == (first == second)
    assert compare(f"{first:,}", f"{first}.0").equal


@FEW
@given(st.integers(-10**6, 10**6), st.integers(1, 10**6), st.integers(2, 50))
def test_a_fraction_equals_its_expansion_and_no_neighbour(top: int, bottom: int, factor: int) -> None:
    gold = f"\\frac{{{top}}}{{{bottom}}}"
    if Fraction(top, bottom).denominator != 1:
        assert compare(gold, f"{top * factor}/{bottom * factor}").equal
        assert not compare(gold, f"{top * factor + 1}/{bottom * factor}").equal


@FEW
@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 99))
def test_an_expanded_product_equals_the_product_and_no_neighbour(a: int, b: int, c: int) -> None:
    gold = f"{c}(x+{a})(x+{b})"
    assert compare(gold, f"{c}x^2+{c * (a + b)}x+{c * a * b}").equal
    assert not compare(gold, f"{c}x^2+{c * (a + b)}x+{c * a * b + 1}").equal


@FEW
@given(st.text(max_size=80))
def test_a_question_stays_on_its_side_however_it_is_spaced(text: str) -> None:
    assert normalise_question(normalise_question(text)) == normalise_question(text)
    assert split_of(text) == split_of(f"  {text}\n")
