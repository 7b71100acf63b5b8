"""Rewards of several verifiers, and groups that are replaced."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Group, Judged, roll_out_step
from verifiers.api import Verdict, correct, incorrect, no_verdict


def judged(verdict: Verdict, *more: Verdict) -> Judged:
    return Judged(Completion([1], [-1.0], "stop", "x"), verdict, more)


def test_a_reward_is_the_weighted_sum_of_all_scores() -> None:
    one = judged(correct(), incorrect("half", score=0.5), incorrect("part", score=0.25))
    assert one.reward([2.0, -1.0], partial_credit=True) == 1 + 2 * 0.5 - 0.25
    assert judged(correct()).reward() == 1.0
    assert judged(incorrect("x", score=0.5)).reward() == 0.0
    assert judged(incorrect("x", score=0.5)).reward(partial_credit=True) == 0.5


def test_equal_sums_in_another_order_are_equal() -> None:
    tenth, fifth = incorrect("x", score=0.1), incorrect("x", score=0.2)
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    first = judged(tenth, fifth, incorrect("x", score=0.3)).reward([1.0, 1.0], partial_credit=True)
    assert first == judged(incorrect("x", score=0.3), fifth, tenth).reward([1.0, 1.0], partial_credit=True)


def test_one_missing_verdict_leaves_the_completion_without_a_reward() -> None:
    one = judged(correct(), incorrect("wrong"), no_verdict("worker died"))
    assert one.missing and one.missing_reason == "worker died"
    assert not judged(correct(), incorrect("wrong")).missing


def rolled_with(rates: Sequence[int], count: int, rounds: int) -> tuple[list[int], list[int], list[Sequence[int]]]:
    """A step over problems of which `rates` says how many of two completions are right; all calls of `roll`."""
    calls: list[Sequence[int]] = []

    def roll(problems: Sequence[int], before: int) -> list[Group]:
        assert before == sum(map(len, calls))
        calls.append(problems)
        return [[judged(correct() if place < rates[p] else incorrect("x")) for place in (0, 1)] for p in problems]

    def more(wanted: int, already: int) -> list[int]:
        return list(range(len(rates)))[count + already : count + already + wanted]

    rolled = roll_out_step(range(count), roll, more, lambda group: len({one.reward() for one in group}) > 1, rounds)
    return rolled.problems, rolled.trained, calls


def test_groups_without_spread_are_replaced_in_rounds() -> None:
    rates = [1, 0, 2, 1, 0, 1, 2, 1, 1]
    problems, trained, calls = rolled_with(rates, count=4, rounds=3)
    # 1 and 2 teach nothing: 4 and 5 come, of which 5 takes the place of 1; then 6 (nothing), then 7.
    assert calls == [range(4), [4, 5], [6], [7]]
    assert problems == [0, 1, 2, 3, 4, 5, 6, 7]
    assert trained == [0, 5, 7, 3]


def test_replacement_is_bounded_and_the_rest_stays() -> None:
    assert rolled_with([0] * 20, count=2, rounds=0)[0] == [0, 1]
    problems, trained, calls = rolled_with([0] * 20, count=2, rounds=2)
    assert len(calls) == 3 and problems == [0, 1, 2, 3, 4, 5] and trained == [0, 1]
    assert rolled_with([0, 0, 1], count=2, rounds=5) == ([0, 1, 2], [2, 1], [range(2), [2]])  # no more problems


@pytest.mark.parametrize("rates", [[1, 1, 1, 0], [1, 1]])
def test_nothing_more_is_drawn_where_all_groups_teach(rates: list[int]) -> None:
    assert rolled_with(rates, count=2, rounds=3)[2] == [range(2)]
