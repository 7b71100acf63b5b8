"""Which problems a step draws."""

from __future__ import annotations

import numpy as np
import pytest

from derivatives.rollout.curriculum import RARE, Curriculum


def test_a_step_draws_distinct_problems_that_depend_on_seed_and_step_alone() -> None:
    drawn = Curriculum(50, seed=3, adaptive=True).draw(7, 20)
    assert len(set(drawn)) == 20
    assert drawn == Curriculum(50, seed=3, adaptive=True).draw(7, 20)
    assert drawn != Curriculum(50, seed=3, adaptive=True).draw(8, 20)
    assert drawn != Curriculum(50, seed=4, adaptive=True).draw(7, 20)


def test_weights_follow_the_spread_that_a_group_would_have() -> None:
    curriculum = Curriculum(5, seed=0, adaptive=True)
    for problem, rate in enumerate([0.0, 1.0, 0.5, 0.25]):
        curriculum.note(problem, rate)
    assert curriculum.weights() == pytest.approx([RARE, RARE, 1.0, 4 * 0.25 * 0.75, 1.0])


def test_a_second_visit_counts_half() -> None:
    curriculum = Curriculum(1, seed=0, adaptive=True)
    curriculum.note(0, 1.0)
    curriculum.note(0, 0.0)
    assert curriculum.rates.tolist() == [0.5]


def test_problems_that_teach_nothing_are_drawn_about_a_tenth_as_often() -> None:
    curriculum = Curriculum(200, seed=1, adaptive=True)
    for problem in range(100):
        curriculum.note(problem, float(problem % 2))
        curriculum.note(problem + 100, 0.5)
    drawn = np.concatenate([curriculum.draw(step, 2) for step in range(1, 2001)])
    # One draw in eleven is expected to be of the first hundred; 4,000 draws have a deviation of 18.
    assert abs(int((drawn < 100).sum()) - 4000 / 11) < 4 * 18.2


def test_a_restored_curriculum_goes_on_alike() -> None:
    first, second = Curriculum(30, seed=5, adaptive=True), Curriculum(30, seed=5, adaptive=True)
    for problem in range(10):
        first.note(problem, problem / 9)
    second.restore(first.state())
    assert second.draw(3, 10) == first.draw(3, 10)
    second.note(0, 1.0)
    assert first.rates[0] == 0.0


def test_without_adaptation_every_problem_comes_once_an_epoch() -> None:
    curriculum = Curriculum(12, seed=0, adaptive=False)
    for problem in range(12):
        curriculum.note(problem, 0.0)
    epoch = [problem for step in (1, 2, 3) for problem in curriculum.draw(step, 4)]
    assert sorted(epoch) == list(range(12)) and epoch != list(range(12))
