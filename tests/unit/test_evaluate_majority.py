"""maj@k by hand: what agrees, who wins a tie, what cannot vote."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derivatives.evaluation.answers import Answer
from derivatives.evaluation.majority import NO_FINAL_ANSWER, ballot, majority, votes, without_vote
from derivatives.evaluation.report import ModelAnswers, Questions, gain, model_figures
from verifiers.api import Task
from verifiers.pool import VerifierPool


def said(extracted: str | None, right: bool = False, outcome: str = "") -> Answer:
    return Answer(f"text {extracted}", extracted, outcome or ("correct" if right else "incorrect"), "reason", 5, False)


def winner(*extracted: str | None) -> str | None:
    found = majority([said(one) for one in extracted])
    return None if found is None else found.extracted


@pytest.mark.parametrize(
    ("samples", "wins"),
    [
        (["3", "4", "4"], "4"),
        (["3", "4", "4", "3"], "3"),  # two each: the first that was seen
        (["4", "3", "3", "4"], "4"),
        (["1/2", "3", "0.5"], "1/2"),  # one number, written in two ways
        (["Blue", "red", "\\text{blue}."], "Blue"),
        ([None, None, "7"], "7"),  # a missing answer votes for nothing, and never wins
        ([None, "", " "], None),
        (["x+1", "1+x", "y"], "x+1"),  # not compared by algebra: three answers, the first wins
    ],
)
def test_the_answer_that_most_samples_agree_on_wins(samples: list[str | None], wins: str | None) -> None:
    assert winner(*samples) == wins


def test_ballots_are_numbers_or_cleaned_texts_and_single_letters_keep_their_case() -> None:
    assert ballot("$1,250.00$") == ballot("1250") == Fraction(1250)
    assert ballot("75\\%") == Fraction(3, 4)
    assert ballot("a") != ballot("A")
    assert ballot("not prime") == ballot("Not  prime")


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[-+0-9.,/^{}%$ \\a-z]{0,40}", fullmatch=True)))
def test_any_text_has_a_ballot_and_agrees_with_itself(text: str) -> None:
    assert ballot(text) == ballot(text) and hash(ballot(text)) == hash(ballot(text))


def test_the_verdict_of_a_vote_is_that_on_the_first_sample_of_the_winner() -> None:
    right_then_cut = [said("4", right=True), said("4"), said("5"), said(None)]
    cut_then_right = [said("4"), said("4", right=True), said("5"), said(None)]
    unjudged = [said("4", outcome="no_verdict"), said("4", right=True)]
    assert votes([right_then_cut, cut_then_right, unjudged, [said(None)]]) == [1.0, 0.0, 0.0, 0.0]


def test_figures_hold_the_vote_over_the_sets_that_have_one_and_the_paired_gain() -> None:
    tasks = [Task(f"t{n}", "q", "4", source="numbers" if n < 2 else "programs") for n in range(3)]
    asked = Questions(tasks, [0, 1, 2], not_voted={"programs": NO_FINAL_ANSWER})
    once = [said("4", right=True)] * 3
    before = ModelAnswers("chat", once, [[said("3"), said("3"), said("4", right=True)]] * 3)
    after = ModelAnswers("chat", once, [[said("4", right=True), said("3"), said("4", right=True)]] * 3)
    first, second = (model_figures(model, asked)["maj@k"] for model in (before, after))
    assert (first["k"], first["value"], first["problems"]) == (3, 0.0, 2)
    assert (second["value"], second["problems"]) == (1.0, 2)
    assert gain(before, after, asked)["maj@k"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert gain(before, after, asked)["pass@k"]["value"] == 0.0, "each has the right answer among its samples"
    nothing = Questions(tasks[2:], [0], not_voted={"programs": NO_FINAL_ANSWER})
    assert model_figures(ModelAnswers("chat", once[:1], [once]), nothing)["maj@k"] is None
    single = ModelAnswers("chat", once[:1], [once[:1]])
    assert "maj@k" not in model_figures(single, nothing), "one sample agrees with itself"


def test_problems_that_a_missing_verdict_may_have_cost_are_counted() -> None:
    tasks = [Task(f"t{n}", "q", "4", source="numbers") for n in range(3)]
    lost, wrong, right = said(None, outcome="no_verdict"), said("3"), said("4", right=True)
    model = ModelAnswers("chat", [right] * 3, [[lost, wrong, wrong], [lost, wrong, right], [wrong, wrong, right]])
    found = model_figures(model, Questions(tasks, [0, 1, 2]))
    assert (found["pass@k"]["value"], found["pass@k"]["no_verdict"]) == (2 / 3, 1), "of the first, which is not solved"
    assert (found["maj@k"]["value"], found["maj@k"]["no_verdict"]) == (0.0, 2), "the second may turn as well"


def test_sets_without_a_final_answer_are_found_by_their_judge() -> None:
    add = {"kind": "calls", "entry_point": "f", "calls": [{"args": [1], "expected": 2}]}
    tasks = [
        Task("p", "q", "def f(n):\n    return n + 1", "code", add, "programs"),
        Task("n", "q", "3", "math", source="numbers"),
        Task("t", "q", "3", "think_math", source="thought over"),
        Task("e", "q", "", "instructions", {"constraints": []}, "empty"),
    ]
    with VerifierPool(num_workers=1) as pool:
        assert without_vote(tasks, pool.judge) == {"programs": NO_FINAL_ANSWER, "empty": NO_FINAL_ANSWER}
