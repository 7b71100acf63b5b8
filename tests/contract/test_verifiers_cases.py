"""Every case of every built-in verifier gets the verdict that it expects."""

from __future__ import annotations

import pytest

from verifiers.api import Outcome
from verifiers.cases import Case, cases_path, read_cases
from verifiers.pool import VerifierPool
from verifiers.registry import BUILT_IN

AT_LEAST = 8


def cases_of(name: str) -> list[Case]:
    path = cases_path(name)
    return [] if path is None else read_cases(path)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_verifier_has_gold_cases_and_near_misses_that_say_why(name: str) -> None:
    cases = cases_of(name)
    for expected in (Outcome.CORRECT, Outcome.INCORRECT):
        assert sum(case.expect is expected for case in cases) >= AT_LEAST
    near_misses = [case for case in cases if case.expect is Outcome.INCORRECT and case.completion]
    assert [case.task.id for case in near_misses if not case.why] == []


def test_every_case_gets_the_verdict_that_it_expects() -> None:
    wrong = []
    with VerifierPool(num_workers=2, deadline_s=60.0) as pool:
        asked = [(name, case) for name in sorted(BUILT_IN) for case in cases_of(name)]
        futures = [pool.submit(case.task, case.completion, name) for name, case in asked]
        for (name, case), future in zip(asked, futures, strict=True):
            verdict = future.result()
            if verdict.outcome is not case.expect:
                wrong.append(f"{name}, {case.task.id} ({case.why}): {verdict.outcome.value}, {verdict.reason}")
    assert wrong == []
