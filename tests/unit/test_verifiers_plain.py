"""Plain functions as verifiers: what they may return, how they are told apart, what is the author's fault."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from verifiers.api import Outcome, Task, Verdict, Verifier, correct
from verifiers.plain import PlainVerifier, accept, description, verdict_of

TASK = Task("1", "What is 2 + 3?", "5")


class Five:
    """Correct if it is 5."""

    name, version = "five", "7"

    def judge(self, task: Task, completion: str) -> Verdict:
        return correct(completion)


def wrap(target: Any, **members: Any) -> Verifier:
    module = ModuleType("plugin", members.pop("doc", None))
    vars(module).update(members)
    return accept("five", "1.2", target, module)


@pytest.mark.parametrize(("returned", "outcome", "score"), [
    (True, Outcome.CORRECT, 1.0),
    (False, Outcome.INCORRECT, 0.0),
    (1, Outcome.CORRECT, 1.0),
    (1.0, Outcome.CORRECT, 1.0),
    (0, Outcome.INCORRECT, 0.0),
    (0.25, Outcome.INCORRECT, 0.25),
    (Fraction(1, 2), Outcome.INCORRECT, 0.5),
    (np.True_, Outcome.CORRECT, 1.0),
    (np.isclose(1.0, 2.0), Outcome.INCORRECT, 0.0),
    (np.float32(0.5), Outcome.INCORRECT, 0.5),
    ({"correct": True}, Outcome.CORRECT, 1.0),
    ({"correct": 0}, Outcome.INCORRECT, 0.0),
    ({"correct": np.True_}, Outcome.CORRECT, 1.0),
    ({"correct": False, "score": 0.75}, Outcome.INCORRECT, 0.75),
    ({"outcome": "correct", "score": 1}, Outcome.CORRECT, 1.0),
    ({"outcome": Outcome.INCORRECT}, Outcome.INCORRECT, 0.0),
    ({"score": 0.5}, Outcome.INCORRECT, 0.5),
    ({"score": 1}, Outcome.CORRECT, 1.0),
    ({"outcome": "no_verdict", "reason": "gold_is_no_number"}, Outcome.NO_VERDICT, 0.0),
])  # fmt: skip
def test_what_may_be_returned_becomes_a_verdict(returned: Any, outcome: Outcome, score: float) -> None:
    found = verdict_of(returned)
    assert (found.outcome, found.score) == (outcome, score) and type(found.score) is float
    assert not found.reason.startswith("verify_returned")


def test_a_mapping_brings_what_was_extracted_and_why_and_a_verdict_passes_as_it_is() -> None:
    found = verdict_of({"correct": False, "extracted": "4", "reason": "odd", "score": 0.5})
    assert found == Verdict(Outcome.INCORRECT, 0.5, "4", "odd")
    given = Verdict(Outcome.INCORRECT, 0.5, "4", "odd", 2.0)
    assert verdict_of(given) is given
    assert [verdict_of(each).reason for each in (True, False, 1, 0.5, 0.0)] == [
        "accepted", "refused", "accepted", "partial", "refused"]
    assert len(verdict_of({"correct": False, "reason": "x" * 10_000}).reason) == 200


@pytest.mark.parametrize(("returned", "named"), [
    (None, "None"),
    (1.3, "1.3"),
    (-0.1, "-0.1"),
    (2, "2"),
    (10**400, "a huge int"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (np.float64("nan"), "nan"),
    ("correct", "'correct'"),
    ("I think that it is right", "a text"),
    ([True], "a list"),
    ((True, "odd"), "a tuple"),
    (np.array([True, False]), "a ndarray"),
    (1j, "a complex"),
    ({}, "without outcome, correct and score"),
    ({"reason": "odd"}, "without outcome, correct and score"),
    ({"scor": 1.0}, "the key 'scor'"),
    ({"correct": True, 7: 1}, "the key 7"),
    ({"correct": "yes"}, "correct 'yes'"),
    ({"correct": None}, "correct None"),
    ({"correct": 0.5}, "correct 0.5"),
    ({"correct": True, "score": 0.5}, "score 0.5 with correct"),
    ({"correct": False, "score": 1.0}, "score 1.0 with incorrect"),
    ({"correct": True, "outcome": "correct"}, "both outcome and correct"),
    ({"outcome": "right"}, "outcome 'right'"),
    ({"outcome": "no_verdict", "score": 0.5}, "a score with no_verdict"),
    ({"score": None}, "score None"),
    ({"score": 1.3}, "score 1.3"),
    ({"score": 0.5, "extracted": 42}, "extracted 42"),
    ({"correct": True, "reason": None}, "reason None"),
])
def test_anything_else_is_the_authors_fault_and_is_named(returned: Any, named: str) -> None:
    found = verdict_of(returned)
    assert found.outcome is Outcome.NO_VERDICT and found.score == 0.0
    assert found.reason.startswith("verify_returned: ") and named in found.reason and len(found.reason) < 120


def partial_check(limit: int, completion: str, task: Task) -> bool:
    return completion == task.answer and limit == 3


class Callable5:
    """Not about the verifier that an instance is."""

    def __call__(self, completion: str, task: Task) -> bool:
        return completion == task.answer


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*given: Any, **more: Any) -> Any:
        return function(*given, **more)

    return inner


def with_default(completion: str, task: Task, strict: bool = True, *, spaces: bool = False) -> bool:
    return strict and not spaces and completion == task.answer


@pytest.mark.parametrize("target", [
    with_default,
    lambda completion, task: completion == task.answer,
    functools.partial(partial_check, 3),
    Callable5(),
    logged(with_default),
    Callable5().__call__,
])
def test_whatever_takes_a_completion_and_a_task_is_a_plain_verifier(target: Any) -> None:
    verifier = wrap(target)
    assert isinstance(verifier, PlainVerifier) and isinstance(verifier, Verifier)
    assert (verifier.name, verifier.version) == ("five", "1.2")
    assert verifier.judge(TASK, "5").outcome is Outcome.CORRECT
    assert verifier.judge(TASK, "6").outcome is Outcome.INCORRECT


def make_five() -> Five:
    return Five()


@pytest.mark.parametrize("target", [Five, make_five, lambda: Five(), functools.partial(make_five)])
def test_whatever_takes_nothing_makes_the_verifier(target: Any) -> None:
    verifier = wrap(target)
    assert isinstance(verifier, Five) and verifier.version == "7"


async def asynchronous(completion: str, task: Task) -> bool:
    return True


async def asynchronous_steps(completion: str, task: Task) -> Any:
    yield True


class AsynchronousCall:
    async def __call__(self, completion: str, task: Task) -> bool:
        return True


def reversed_order(task: Task, completion: str) -> bool:
    return True


def unwrapped(function: Any) -> Any:
    return lambda *given, **more: function(*given, **more)


def none_required(completion: str = "", task: Task = TASK) -> bool:
    return True


def keyword_only(completion: str, *, task: Task) -> bool:
    return True


def one(completion: str) -> bool:
    return True


def three(prompt: str, completion: str, answer: str) -> bool:
    return True


def batch(completions: list[str], **columns: Any) -> list[float]:
    return [1.0]


class Empty:
    """Has no members."""


class Needs:
    def __init__(self, first: str, second: str) -> None: ...


@pytest.mark.parametrize(("target", "message"), [
    (asynchronous, "is asynchronous; allowed: a plain `def verify"),
    (asynchronous_steps, "is asynchronous"),
    (AsynchronousCall(), "is asynchronous"),
    (functools.partial(asynchronous), "is asynchronous"),
    (reversed_order, r"takes \(task, completion\); allowed: \(completion, task\), in this order"),
    (unwrapped(with_default), r"takes \(\*given, \*\*more\); allowed: exactly two .*functools.wraps"),
    (none_required, "'five' gives a bool, which lacks name, version or judge"),
    (keyword_only, r"takes \(completion.*\*, task.*\).*; allowed: exactly two required arguments"),
    (one, "takes .*; allowed: exactly two required arguments"),
    (three, "allowed: exactly two required arguments"),
    (batch, "allowed: exactly two required arguments"),
    (Needs, r"takes \(first.*; allowed: .*none for a class"),
    (Empty, "gives a Empty, which lacks name, version or judge"),
    (dict.fromkeys, "allowed: exactly two required arguments"),
    (print, "allowed: exactly two required arguments"),
    (Five(), "is a Five; allowed: a function verify"),
    (None, "is a NoneType; allowed: a function verify"),
    (lambda: Five, "gives a type, which lacks"),
    (lambda: None, "gives a NoneType, which lacks"),
])
def test_any_other_target_is_refused_with_what_is_allowed(target: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        wrap(target)


def test_the_modules_warm_up_is_the_verifiers_and_anything_else_of_that_name_is_not() -> None:
    called: list[int] = []
    warm = wrap(with_default, warm_up=lambda: called.append(1))
    assert isinstance(warm, PlainVerifier) and warm.warm_up is not None
    warm.warm_up()
    assert called == [1]
    cold = wrap(with_default, warm_up="soon")
    assert isinstance(cold, PlainVerifier) and cold.warm_up is None


def documented(completion: str, task: Task) -> bool:
    """Correct if it is 5, or V.
    In Roman numerals. More follows.

    And more.
    """
    return True


def test_its_description_is_the_first_sentence_of_the_function_or_of_its_module() -> None:
    module = ModuleType("plugin", "Roman numerals.\n\nMore.")
    assert description(documented, module) == "Correct if it is 5, or V."
    assert description(with_default, module) == "Roman numerals."
    assert description(Callable5(), module) == "Roman numerals."
    assert description(functools.partial(documented), None) == ""
    assert description(with_default, ModuleType("bare")) == ""


def test_what_the_function_raises_is_passed_on() -> None:
    def broken(completion: str, task: Task) -> bool:
        return bool(1 / len(completion))

    with pytest.raises(ZeroDivisionError):
        wrap(broken).judge(TASK, "")
