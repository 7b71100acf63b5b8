"""Math-Verify as a judge: what it says, killed where it hangs, refused where it is not installed."""

from __future__ import annotations

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from verifiers import math_verify
from verifiers.api import OVER_BUDGET, Outcome, Task
from verifiers.registry import BUILT_IN, load_verifier, names

needs_package = pytest.mark.skipif(
    math_verify.installed() == math_verify.NOT_INSTALLED, reason="math-verify is not installed (the extra `judges`)"
)
HANG = "\\boxed{9^{9^{9^{9^{9^{9}}}}}}"


def verdict(gold: str, completion: str) -> tuple[str, str]:
    found = load_verifier("math_verify").judge(Task("1", "", gold), completion)
    return found.outcome.value, found.reason


@needs_package
@pytest.mark.parametrize(
    ("gold", "completion", "right"),
    [
        ("7", "so it is \\boxed{7}", True),
        ("7", "so it is \\boxed{8}", False),
        ("\\frac{1}{2}", "\\boxed{0.5}", True),
        ("x^2", "\\boxed{x^2+1}", False),
        ("$\\sqrt{2}$", "\\boxed{2^{1/2}}", True),
        ("7", "<think>first \\boxed{7}</think> no, \\boxed{8}", False),
        ("7", "<think>first \\boxed{8}</think> no, \\boxed{7}", True),
        ("7", "I do not know.", False),
    ],
)
def test_it_judges_the_answer_after_the_thought(gold: str, completion: str, right: bool) -> None:
    assert verdict(gold, completion)[0] == ("correct" if right else "incorrect")


@needs_package
def test_what_cannot_be_judged_is_told_apart_from_what_is_wrong() -> None:
    assert verdict(" ", "\\boxed{7}") == ("no_verdict", "empty_gold")
    assert verdict("7", "nothing") == ("incorrect", "no_answer")
    assert verdict("7", "x" * (math_verify.MAX_COMPLETION + 1)) == ("incorrect", OVER_BUDGET)


@needs_package
@pytest.mark.slow
def test_a_hang_is_killed_by_the_pool_and_is_a_wrong_answer() -> None:
    from verifiers.pool import VerifierPool

    task = Task("1", "", "7", "math_verify")
    with VerifierPool(1, deadline_s=3.0) as pool:
        hung, after = pool.judge([(task, HANG), (task, "\\boxed{7}")])
    assert hung.outcome is Outcome.INCORRECT and after.outcome is Outcome.CORRECT


def test_it_is_a_judge_and_no_certified_reward() -> None:
    assert "math_verify" in names() and "math_verify" not in BUILT_IN
    assert load_verifier("math_verify").version == f"1+math-verify-{math_verify.installed()}"


def test_without_its_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.certified import missing_package

    monkeypatch.setattr(math_verify, "installed", lambda: math_verify.NOT_INSTALLED)
    asked = load_recipe("math/tiny").stage("evaluate")
    assert missing_package(asked) is None
    refused = missing_package(asked.model_copy(update={"judge": "math_verify"}))
    assert "pip install 'derivative-factory[judges]'" in str(refused)
    monkeypatch.setattr(math_verify.importlib.util, "find_spec", lambda name: None)
    math_verify._library.cache_clear()
    with pytest.raises(UserError, match="needs the package math-verify"):
        math_verify._library()
    math_verify._library.cache_clear()
