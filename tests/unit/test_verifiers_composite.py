"""Composites: any correct completion outranks any wrong one, and nobody is paid for form alone."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.api import Outcome, Task, Verdict, Verifier, correct, incorrect, no_verdict
from verifiers.composite import Composite
from verifiers.registry import load_verifier

TASK = Task("t", "", "5")


class Fixed:
    """A part that always says the same."""

    version = "1"

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name, self.verdict = name, verdict

    def judge(self, task: Task, completion: str) -> Verdict:
        return self.verdict


class Echo:
    """A part that shows what it was given to read."""

    name, version = "echo", "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        return correct(completion)


SCORES = st.floats(0.0, 1.0)
VERDICTS = st.one_of(st.just(correct("x", "good")), SCORES.map(lambda score: incorrect("bad", "x", score)))
WEIGHTS = st.floats(1e-6, 1e6)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.data())
def test_any_correct_completion_outranks_any_wrong_one(data: st.DataObject) -> None:
    names = [f"p{number}" for number in range(data.draw(st.integers(1, 4)))]
    num_gates = data.draw(st.integers(0, len(names) - 1))
    weights = data.draw(st.dictionaries(st.sampled_from(names), WEIGHTS))
    ceiling = data.draw(st.floats(0.0, 1.0, exclude_max=True))

    def judged(verdicts: list[Verdict]) -> Verdict:
        parts: list[Verifier] = [Fixed(name, verdict) for name, verdict in zip(names, verdicts, strict=True)]
        return Composite("c", parts[num_gates:], parts[:num_gates], weights, ceiling).judge(TASK, "")

    verdicts = data.draw(st.lists(VERDICTS, min_size=len(names), max_size=len(names)))
    found = judged(verdicts)
    all_right = all(verdict.outcome is Outcome.CORRECT for verdict in verdicts)
    assert (found.outcome is Outcome.CORRECT) == all_right
    best = judged([correct()] * len(names))
    assert best.score == 1.0
    if not all_right:
        assert 0.0 <= found.score <= ceiling < best.score
    if any(verdict.outcome is not Outcome.CORRECT for verdict in verdicts[:num_gates]):
        assert found.score == 0.0


def test_a_wrong_answer_earns_the_weighted_mean_under_the_ceiling() -> None:
    parts = [Fixed("a", incorrect("near", "4", 0.8)), Fixed("b", correct("5", "good"))]
    verdict = Composite("c", parts, weights={"a": 3.0, "b": 1.0}, ceiling=0.4).judge(TASK, "")
    assert verdict.score == pytest.approx(0.4 * (3 * 0.8 + 1 * 1.0) / 4)
    assert (verdict.reason, verdict.extracted) == ("a:near", "4")
    assert Composite("c", parts).judge(TASK, "").score == 0.0  # no weights, no partial credit


def test_a_missing_verdict_of_any_part_is_the_composites_too() -> None:
    lost, bad = Fixed("lost", no_verdict("empty_gold")), Fixed("bad", incorrect("no_think_tag"))
    for composite in (Composite("c", [lost], [bad]), Composite("c", [bad], [lost])):
        verdict = composite.judge(TASK, "")
        assert (verdict.outcome, verdict.reason) == (Outcome.NO_VERDICT, "lost:empty_gold")


def test_over_budget_keeps_its_name() -> None:
    parts = [Fixed("slow", incorrect("over_budget")), Fixed("bad", incorrect("other"))]
    assert Composite("c", parts[:1], parts[1:]).judge(TASK, "").reason == "over_budget"


def test_what_decides_reads_the_answer_and_not_the_thought() -> None:
    verdict = Composite("c", [Echo()]).judge(TASK, "<think>\\boxed{6}</think> so 5")
    assert verdict.extracted == " so 5"


@pytest.mark.parametrize("settings_", [
    {"decides": []}, {"decides": [Echo(), Echo()]}, {"decides": [Echo()], "weights": {"other": 1.0}},
    {"decides": [Echo()], "weights": {"echo": 0.0}}, {"decides": [Echo()], "weights": {"echo": float("inf")}},
    {"decides": [Echo()], "ceiling": 1.0}, {"decides": [Echo()], "ceiling": -0.1},
    {"decides": [Echo()], "ceiling": float("nan")},
])
def test_a_composite_that_could_rank_wrong_above_right_cannot_be_made(settings_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Composite("c", **settings_)


@pytest.mark.parametrize(("completion", "outcome", "reason"), [
    ("<think>2 + 3</think>\\boxed{5}", "correct", "same_"),
    ("<think>2 + 3</think>\nThe answer is 5.", "correct", "same_"),
    ("<think>2 + 3 = 5, \\boxed{5}</think>\\boxed{6}", "incorrect", "math:"),
    ("\\boxed{5}", "incorrect", "format:no_think_tag"),
    ("<think>\\boxed{5}", "incorrect", "format:unclosed_think_tag"),
    ("<think>2 + 3 = 5</think>", "incorrect", "format:no_answer_after_thought"),
    ("<think></think>\\boxed{5}", "incorrect", "format:empty_thought"),
    ("<think>a</think><think>b</think>\\boxed{5}", "incorrect", "format:repeated_think_tag"),
])
def test_think_math_wants_form_and_answer(completion: str, outcome: str, reason: str) -> None:
    verdict = load_verifier("think_math").judge(TASK, completion)
    assert verdict.outcome.value == outcome and verdict.reason.startswith(reason)
    assert verdict.score == (1.0 if outcome == "correct" else 0.0)


def test_think_puzzles_grades_wrong_solutions_only_when_the_form_is_right() -> None:
    task = Task("t", "", "a, b, c", "puzzles", {"family": "word_sorting", "sorted_words": ["a", "b", "c"]})
    verifier = load_verifier("think_puzzles")
    assert verifier.judge(task, "<think>sort</think>\\boxed{a, b, c}").score == 1.0
    wrong = verifier.judge(task, "<think>sort</think>\\boxed{a, c, b}")
    assert wrong.outcome is Outcome.INCORRECT and 0.0 < wrong.score <= 0.5
    assert verifier.judge(task, "\\boxed{a, c, b}").score == 0.0
    assert verifier.judge(task, "\\boxed{a, b, c}").reason == "format:no_think_tag"


def test_the_version_names_every_part_and_weight() -> None:
    assert load_verifier("think_math").version == "1+format-2+math-" + load_verifier("math").version
    light, heavy = (Composite("c", [Echo()], weights={"echo": 1.0}, ceiling=ceiling) for ceiling in (0.1, 0.2))
    assert light.version != heavy.version


def test_the_readmes_composite_works_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "verifiers" / "README.md").read_text(encoding="utf-8")
    even, think_even = types.ModuleType("even_verifier.typed"), types.ModuleType("think_even")
    monkeypatch.setitem(sys.modules, "even_verifier", types.ModuleType("even_verifier"))
    monkeypatch.setitem(sys.modules, "even_verifier.typed", even)
    blocks = re.findall(r"```(?:python|py)\n(.*?)```", page, re.DOTALL)
    for name, module in (("class EvenVerifier", even), ("def think_even", think_even)):
        (block,) = [block for block in blocks if name in block]
        exec(block, module.__dict__)
    verifier, task = think_even.think_even(), Task("t", "", "3")
    scores = [verifier.judge(task, f"{thought}\\boxed{{{answer}}}").score
              for thought in ("<think>hm</think>", "") for answer in (248, 24, 247)]
    assert scores == [1.0, 0.4 * 0.5, 0.0, 0.0, 0.0, 0.0]
