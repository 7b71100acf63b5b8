"""The multiple-choice verifier: letters in every dress, options by their text, and nothing by accident."""

import pytest

from verifiers.api import Outcome, Task
from verifiers.choice import ChoiceVerifier

CITIES = ["London", "Paris", "Rome", "None of these."]
LISTED = "Which city is the capital of France?\n(A) London\n(B) Paris\n(C) Rome\n(D) none of these"


def judge(completion: str, gold: str = "B", prompt: str = "", **metadata: object) -> tuple[str, str]:
    verdict = ChoiceVerifier().judge(Task("t", prompt, gold, "choice", metadata), completion)
    return verdict.outcome.value, verdict.reason


@pytest.mark.parametrize("completion", [
    "\\boxed{B}", "\\boxed{b}", "\\boxed{(B)}", "\\boxed{\\text{B}}", "\\boxed{\\text{(B) Paris}}", "\\boxed{Paris}",
    "The answer is B.", "The answer is (B) because it lies on the Seine.", "**Answer: B**", "answer: **(B)** Paris",
    "The correct option is B", "Final answer: B) Paris", "\u7b54\u6848\u662fB", "\u7b54\u6848\uff1aB\u3002",
    "B", "(B)", "b", "B.", "**B**", "B) Paris", "B. Paris", "Paris", "I think.\n\nSo (B) is right.", "Hence option B.",
    "A is wrong, as is C.\nSo B it is", "The answer is A. No: the answer is B.", "The answer is:\n\nB",
    "<think>The answer is A.</think> The answer is B.", "<think>A or B?</think>\\boxed{B}",
])
def test_the_gold_choice_in_any_dress_is_correct(completion: str) -> None:
    assert judge(completion, choices=CITIES)[0] == "correct"
    assert judge(completion, prompt=LISTED)[0] == "correct"


@pytest.mark.parametrize(("completion", "reason"), [
    ("\\boxed{A}", "other_choice_boxed"), ("The answer is C.", "other_choice_marked"), ("C", "other_choice_last_line"),
    ("\\boxed{A or B}", "several_choices_boxed"), ("The answer is B or C", "several_choices_marked"),
    ("A, B, C, D", "several_choices_last_line"), ("(A) or (B)", "several_choices_last_line"),
    ("\\boxed{ABCD}", "several_choices_boxed"), ("The answer is not B", "no_choice_marked"),
    ("It is not B", "no_choice_last_line"), ("", "no_answer"), ("\\boxed{}", "no_answer"),
    ("A good question", "no_choice_last_line"), ("The answer is a city", "no_choice_marked"),
    ("The answer is A city", "no_choice_marked"), ("\\boxed{A) Paris}", "letter_and_text_differ"),
    ("The answer is (C) Paris.", "letter_and_text_differ"), ("\\boxed{E}", "no_choice_boxed"),
    ("\\boxed{Berlin}", "no_choice_boxed"), ("Because.", "no_choice_last_line"), ("\\boxed{BB}", "no_choice_boxed"),
    ("so B or C is right", "several_choices_last_line"), ("\\boxed{42}", "no_choice_boxed"),
])
def test_anything_else_is_incorrect_with_its_reason(completion: str, reason: str) -> None:
    assert judge(completion, choices=CITIES) == ("incorrect", reason)


def test_several_gold_letters_must_all_be_chosen_and_no_other() -> None:
    for right in ("\\boxed{A, C}", "\\boxed{AC}", "The answer is C and A", "Answer: (A), (C)", "A and C"):
        assert judge(right, "A, C")[0] == "correct", right
    for wrong in ("\\boxed{A}", "\\boxed{A, B, C}", "\\boxed{A, D}"):
        assert judge(wrong, "A, C")[0] == "incorrect", wrong


@pytest.mark.parametrize("gold", ["B", "(B)", "b", "B) Paris", "Paris", "\\text{B}"])
def test_gold_answers_are_read_in_any_dress(gold: str) -> None:
    assert judge("\\boxed{B}", gold, choices={"A": "London", "B": "Paris"})[0] == "correct"
    assert judge("\\boxed{A}", gold, choices={"A": "London", "B": "Paris"})[0] == "incorrect"


@pytest.mark.parametrize(("gold", "choices", "reason"), [
    ("", CITIES, "empty_gold"), ("Berlin", CITIES, "gold_is_no_choice"), ("F", CITIES, "gold_is_no_choice"),
    ("B", 7, "choices_unreadable"), ("B", {"first": "x"}, "choices_unreadable"), ("B", [], "choices_unreadable"),
])
def test_a_fault_of_the_data_gives_no_verdict(gold: str, choices: object, reason: str) -> None:
    assert judge("\\boxed{B}", gold, choices=choices) == ("no_verdict", reason)


def test_long_and_odd_completions_are_incorrect() -> None:
    odd = ["A" * 5_000_000, "(" * 50_000, "answer is " * 20_000, "\x00", "\ud800", "A, " * 30_000, "\\boxed{" * 9_000]
    for completion in odd:
        task = Task("t", "", "B", "choice")
        assert ChoiceVerifier().judge(task, completion).outcome is Outcome.INCORRECT
