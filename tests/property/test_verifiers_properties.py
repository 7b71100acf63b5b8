"""Verifiers and their parsers on text that nobody thought of."""

import json
import os
import random
import re
import resource
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.mutated_answers import Mutated, changed_number, mutation, numeral, respelled
from verifiers.answers.clean import clean
from verifiers.answers.equivalence import compare
from verifiers.answers.expression import Unreadable, parse
from verifiers.answers.extract import extract, extract_text
from verifiers.answers.numbers import read_number
from verifiers.answers.reading import reads_as
from verifiers.api import Outcome, Task
from verifiers.format import FormatVerifier
from verifiers.math import MathVerifier
from verifiers.tasks import normalise_question, split_of

MIRROR = os.environ.get("DERIVE_DATA")
PIECES = [
    "\\frac", "{", "}", "(", ")", "[", "]", "|", "^", "_", "!", "%", "+", "-", "*", "/", "=", "<", ",", ";", " ", "$",
    "1", "23", "0.5", "x", "y", "e", "i", "\\pi", "\\sqrt", "\\sin", "\\log", "\\pm", "\\cup", "\\infty", "\\{", "\\}",
    "\\text{ cm}", "or", "and", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\le", "\\boxed{", "answer:",
    "####",
    " cm", " and ", "\\begin{cases}", "\\end{cases}", "\\cdots", "\\approx", "twenty", "max ", ":", "degrees",
    "\\mathbb{R}",
    "\\setminus", "\\pmod{4}", "\\overline{3}", "A) ",
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


def wrongly_accepted(count: int, seed: int) -> list[Mutated]:
    rng = random.Random(seed)
    return [pair for pair in (mutation(rng) for _ in range(count)) if compare(pair.gold, pair.answer).equal]


def test_no_mutated_gold_answer_is_accepted() -> None:
    assert wrongly_accepted(600, seed=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_no_mutated_gold_answer_of_a_hundred_thousand_is_accepted(seed: int) -> None:
    assert wrongly_accepted(10_000, seed=100 + seed) == []


def test_the_makers_of_mutations_write_what_the_verifier_reads() -> None:
    rng = random.Random(3)
    pairs = [respelled(rng) for _ in range(300)]
    assert [pair for pair in pairs if not compare(*pair).equal] == []


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")
def test_no_changed_number_in_a_public_gold_answer_is_accepted() -> None:
    rng, accepted, tried = random.Random(5), [], 0
    for gold in public_golds(Path(str(MIRROR))):
        number = read_number(clean(gold))
        places = list(re.finditer(r"(?<![\w.^{/\\-])[0-9]+(?![\w.^{/])", gold))
        if number is not None:
            other = changed_number(number.value, rng)
            answer = numeral(other, rng) if other != number.value else ""
        elif places and reads_as(gold) in ("list", "matrix"):
            place = rng.choice(places)
            answer = gold[: place.start()] + str(int(place[0]) + rng.choice((1, 2, 10))) + gold[place.end():]
        else:
            continue
        tried += 1
        if answer and compare(gold, answer).equal:
            accepted.append((gold, answer))
    assert accepted == []
    assert tried > 1_500


def public_golds(folder: Path) -> list[str]:
    rows = json.loads((folder / "math/math_train.json").read_text())
    return list(dict.fromkeys(row["answer"] for row in rows if row["answer"]))


def fuzzed(count: int, seed: int) -> tuple[float, int]:
    """The slowest comparison in seconds of this process, and how many were accepted."""
    rng, slowest, accepted = random.Random(seed), 0.0, 0
    golds = ["7", "-\\frac{3}{4}", "3\\sqrt{2}", "0.458", "(1,2)", "\\{1,2\\}", "(-\\infty,2)\\cup(3,5)", "x+2y=3", "C",
             "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "n=4k+2", "3:45", "a cat", "5 cm", "f(x)=2x", "a<b<c", "x=k\\pi"]
    for _ in range(count):
        pieces = rng.choices(PIECES, k=rng.choice((3, 6, 12, 40)))
        answer = "".join(pieces) * rng.choice((1, 1, 1, 20))
        if rng.random() < 0.1:
            answer += "".join(map(chr, rng.choices(range(0x20, 0x3000), k=8)))
        started = time.process_time()
        verdict = MathVerifier().judge(Task("t", "Which $k$?", rng.choice(golds)), f"\\boxed{{{answer}}}")
        slowest = max(slowest, time.process_time() - started)
        accepted += verdict.outcome is Outcome.CORRECT
        assert verdict.outcome is not Outcome.NO_VERDICT
    return slowest, accepted


def test_fuzzed_answers_neither_crash_nor_hang() -> None:
    slowest, accepted = fuzzed(500, seed=1)
    assert slowest < 2.0
    assert accepted < 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_thousand_fuzzed_answers_neither_crash_nor_hang_nor_keep_memory(seed: int) -> None:
    fuzzed(2_000, seed=50 + seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest, accepted = fuzzed(20_000, seed=10 + seed)
    assert slowest < 2.0
    assert accepted < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
