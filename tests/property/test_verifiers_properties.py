"""Verifiers and their parsers on text that nobody thought of."""

import json
import os
import random
import re
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import ANSWER_PIECES
from tests.property.mutated_answers import changed_number, numeral, respelled
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
NOISE = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(ANSWER_PIECES), max_size=14).map("".join))
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
