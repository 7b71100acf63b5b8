"""The drift alarm: what it compares, when it speaks, and that a resumed run hears the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.settings.reinforcement import Audit
from derivatives.rollout.audit import MIN_SAMPLES, Auditor, Drift
from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Group, Judged
from flows.stages import waiting_lines
from verifiers.api import Task, Verdict, correct, incorrect, no_verdict

RIGHT, WRONG = correct(), incorrect("wrong")


def group(*pairs: tuple[Verdict, Verdict | None], cut: bool = False) -> Group:
    return [
        Judged(Completion([1, 2], [-1.0, -1.0], "length" if cut else "stop", "\\boxed{2}"), first, audit=second)
        for first, second in pairs
    ]


def auditor(every: int = 1, samples: int = 32, max_gap: float = 0.1) -> Auditor:
    return Auditor(Audit(verifier="exact", every=every, samples=samples, max_gap=max_gap), seed=0)


def half(num_fooled: int, num_right: int, num: int = 32) -> list[Group]:
    """Completions of which some are right to both, some to the first alone."""
    pairs = [(RIGHT, RIGHT)] * num_right + [(RIGHT, WRONG)] * num_fooled
    return [group(*pairs, *[(WRONG, WRONG)] * (num - len(pairs)))]


def test_a_step_s_gap_is_over_the_completions_that_both_judged() -> None:
    judge = Auditor(Audit(verifier="exact"), seed=0, partial_credit=True)
    pairs = [(RIGHT, RIGHT), (RIGHT, WRONG), (incorrect("close", score=0.5), WRONG), (WRONG, no_verdict("away")),
             (RIGHT, None)]  # fmt: skip
    found = judge.note(1, [group(*pairs)])
    assert found["audit_reward"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["audit_truth"] == pytest.approx(1 / 3)
    assert found["audit_gap"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert found["audit_no_verdict"] == 1 / 4 and found["audit_alarm"] == 0.0
    assert auditor().note(1, [group(*pairs)])["audit_reward"] == pytest.approx(2 / 3)  # only what is right pays


def test_a_reward_that_rises_without_truth_raises_the_alarm_and_a_person_hears_of_it(tmp_path: Path) -> None:
    judge = auditor()
    alarms = [judge.note(step, half(num_fooled=2 * step, num_right=8))["audit_alarm"] for step in range(1, 9)]
    # The first 64 samples: 2 + 4 fooled. The latest at step 4: 6 + 8, so the gap grew by (14 - 6) / 64 = 0.125, but its
    # deviation is sqrt(0.2188 * 0.7812 / 64 + 0.0938 * 0.9062 / 64) = 0.063, and two of those are more.
    assert alarms == [0, 0, 0, 0, 1, 1, 1, 1]
    assert judge.alarms == [5, 6, 7, 8]
    log = tmp_path / "stage.log"
    log.write_text(f"{judge.warning()}\nanother line\n")
    told, _ = waiting_lines(log, 0)
    assert told == [judge.warning()] and "step 8: the score rose by 0.375" in told[0]
    judge.pool.close()


def test_a_gap_that_stays_and_a_reward_that_rises_with_the_truth_raise_none() -> None:
    stays, honest = auditor(), auditor()
    for step in range(1, 13):
        assert stays.note(step, half(num_fooled=10, num_right=5))["audit_alarm"] == 0.0
        assert honest.note(step, half(num_fooled=1, num_right=2 * step))["audit_alarm"] == 0.0
    falls = auditor()
    for step in range(1, 7):  # the second verifier sees less and less, but the reward does not rise
        pairs = [(RIGHT, RIGHT)] * (20 - 3 * step) + [(RIGHT, WRONG)] * (3 * step) + [(WRONG, WRONG)] * 12
        assert falls.note(step, [group(*pairs)])["audit_alarm"] == 0.0


def test_chance_alone_raises_none() -> None:
    assert not Drift(rise=0.2, growth=0.12, deviation=0.07).alarms(0.1)
    assert Drift(rise=0.2, growth=0.15, deviation=0.07).alarms(0.1)
    assert not Drift(rise=0.2, growth=0.09, deviation=0.0).alarms(0.1)


def test_the_first_and_the_latest_samples_are_never_the_same() -> None:
    judge = auditor()
    for step in (1, 2, 3):
        judge.note(step, half(num_fooled=step, num_right=1))
        assert judge.drift() is None
    judge.note(4, half(num_fooled=4, num_right=1))
    drift = judge.drift()
    assert MIN_SAMPLES == 2 * 32 and drift is not None and drift.growth == pytest.approx((3 + 4 - 1 - 2) / 64)


def test_samples_are_of_due_steps_and_of_what_was_judged_whole() -> None:
    tasks = [Task("a", "1 + 1?", "2"), Task("b", "1 + 2?", "3"), Task("c", "1 + 3?", "4")]
    groups = [group(*[(RIGHT, None)] * 8), group(*[(no_verdict("away"), None)] * 8), group((WRONG, None), cut=True)]
    with auditor(every=3, samples=5) as judge:
        assert judge.judge(1, tasks, groups) == groups and judge.note(1, groups) == {}
        found = judge.judge(3, tasks, groups)
        again = judge.judge(3, tasks, groups)
    asked = [[one.audit is not None for one in each] for each in found]
    assert sum(asked[0]) == 5 and not any(asked[1]) and not any(asked[2])
    assert asked == [[one.audit is not None for one in each] for each in again]
    assert {one.audit.outcome.value for one in found[0] if one.audit is not None} == {"correct"}


def test_a_restored_auditor_says_the_same_and_one_of_another_verifier_begins_anew() -> None:
    first, second = auditor(), auditor()
    for step in range(1, 5):
        first.note(step, half(num_fooled=2 * step, num_right=8))
    second.restore(first.state())
    assert first.note(5, half(10, 8)) == second.note(5, half(10, 8)) and second.alarms == [5]
    other = Auditor(Audit(verifier="math"), seed=0)
    other.restore(first.state())
    assert other.history == []
