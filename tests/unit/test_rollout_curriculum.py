"""Which problems a step draws."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import UserError
from derivatives.rollout.curriculum import RARE, Curriculum, limit_at


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


def retiring(num_problems: int = 6, after: int = 2) -> Curriculum:
    return Curriculum(num_problems, seed=2, adaptive=True, retire_after=after)


def test_a_problem_that_is_always_or_never_solved_is_drawn_no_more() -> None:
    curriculum = retiring()
    for problem, rates in {0: [1.0, 1.0], 1: [0.0, 0.0], 2: [1.0, 0.0], 3: [0.0, 0.5, 0.0], 4: [1.0]}.items():
        for rate in rates:
            curriculum.note(problem, rate)
    assert curriculum.retired().tolist() == [True, True, False, False, False, False]
    assert all(not {0, 1} & set(curriculum.draw(step, 4)) for step in range(1, 50))


def test_the_retired_come_back_when_too_few_are_left_and_the_impossible_when_lengths_grow() -> None:
    curriculum = retiring(num_problems=3, after=1)
    curriculum.note(0, 1.0)
    curriculum.note(1, 0.0)
    assert set(curriculum.draw(1, 3)) == {0, 1, 2} and curriculum.draw(1, 3)[0] == 2
    curriculum.note_longer()
    assert curriculum.retired().tolist() == [True, False, False]


def test_what_replaces_is_what_would_have_been_drawn_next() -> None:
    curriculum = retiring()
    order = curriculum.draw(5, 6)
    assert curriculum.more(5, 2, wanted=2, already=0) == order[2:4]
    assert curriculum.more(5, 2, wanted=3, already=2) == order[4:]
    assert curriculum.more(5, 2, wanted=1, already=4) == []


def test_in_epochs_what_replaces_is_taken_from_the_steps_to_come() -> None:
    curriculum, plain = Curriculum(12, seed=0, adaptive=False), Curriculum(12, seed=0, adaptive=False)
    epoch = [problem for step in (1, 2, 3) for problem in plain.draw(step, 4)]
    assert curriculum.draw(1, 4) == epoch[:4]
    assert curriculum.more(1, 4, wanted=2, already=0) == epoch[4:6]
    assert len(curriculum.more(1, 4, wanted=20, already=2)) == 6  # a step never sees a problem twice
    curriculum.num_extra += 2
    assert curriculum.draw(2, 4) == epoch[6:10]


def test_all_of_its_state_is_restored_and_only_to_as_many_problems() -> None:
    first, second = retiring(), retiring()
    for problem, rate in [(0, 1.0), (0, 1.0), (3, 0.0), (4, 0.5)]:
        first.note(problem, rate)
    first.num_extra = 3
    second.restore(first.state())
    assert second.retired().tolist() == first.retired().tolist() and second.num_extra == 3
    second.note(3, 0.0)
    assert not first.retired()[3] and second.retired()[3]
    with pytest.raises(UserError, match="data: 7 problems, but the state to go on from knows 6"):
        retiring(num_problems=7).restore(first.state())


def test_lengths_grow_in_equal_parts() -> None:
    assert [limit_at(step, 7, [8, 16, 32]) for step in range(1, 8)] == [8, 8, 8, 16, 16, 32, 32]
    assert {limit_at(step, 5, [64]) for step in range(1, 6)} == {64}
