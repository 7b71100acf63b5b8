"""The verifiers on fuzzed input (`tests.fuzzing`): a crash, a hang, a verdict out of contract or kept memory fails.

    make fuzz                                       two minutes, on a seed that was never tried
    make fuzz FUZZ_SECONDS=600                      longer
    make fuzz FUZZ_SEED=123                         the same cases again
    FUZZ_SEED=123 FUZZ_CASE=4567 make fuzz          from the case on that a failure named

A failure names seed and case. Without FUZZ_SECONDS, as in `make test`, few cases of one seed are judged.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.fuzzing import (
    ANSWER_LIMIT_S,
    Broken,
    Fuzzed,
    fuzz_answers,
    fuzz_documents,
    fuzz_mutated_golds,
    fuzz_programs,
)
from verifiers.answers.equivalence import Match

SECONDS = float(os.environ.get("FUZZ_SECONDS") or 0)
SEED = int(os.environ.get("FUZZ_SEED") or (random.SystemRandom().randrange(10**9) if SECONDS else 1))
FIRST = int(os.environ.get("FUZZ_CASE") or 0)
SHARES: dict[Callable[..., Fuzzed], tuple[float, int]] = {
    fuzz_answers: (0.25, 1_000),
    fuzz_documents: (0.1, 2_000),
    fuzz_mutated_golds: (0.15, 1_000),
    fuzz_programs: (0.5, 60),
}
"""Of FUZZ_SECONDS; and the number of cases where that is not set."""
MAX_GROWN_MB = 48.0
"""Memory that may stay in use between the first tenth and the end; a cache that is bounded fills for longer than that.
A leak of one answer's text in each case would pass it within a minute."""


@pytest.mark.timeout(300 + 2 * SECONDS)
@pytest.mark.parametrize("fuzz", SHARES, ids=lambda fuzz: fuzz.__name__)
def test_fuzzed_input_is_judged_and_nothing_breaks(
    fuzz: Callable[..., Fuzzed], capsys: pytest.CaptureFixture[str]
) -> None:
    share, count = SHARES[fuzz]
    if not SECONDS:
        assert_flat(fuzz(SEED, count=count, first=FIRST))
        return
    with capsys.disabled():
        print(f"\n{fuzz.__name__}: FUZZ_SEED={SEED}, {share * SECONDS:g} s", flush=True)
        found = fuzz(SEED, seconds=share * SECONDS, first=FIRST)
        print(f"{found}", flush=True)
    assert_flat(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("fuzz", "count"), [(fuzz_answers, 100_000), (fuzz_mutated_golds, 100_000), (fuzz_programs, 10_000)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_large_counts_are_judged_and_nothing_breaks(fuzz: Callable[..., Fuzzed], count: int) -> None:
    found = fuzz(2, count=count)
    assert_flat(found)
    assert found.count == count and found.accepted < 0.05 * count


def test_a_failure_names_seed_and_case_and_both_bring_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzzing.compare", lambda gold, answer: Match("9" in answer, "same_number"))
    with pytest.raises(Broken, match=r"FUZZ_SEED=5 FUZZ_CASE=\d+: .*accepted, though") as failure:
        fuzz_mutated_golds(5, count=1_000)
    number = int(str(failure.value).split("FUZZ_CASE=")[1].split(":")[0])
    with pytest.raises(Broken) as again:
        fuzz_mutated_golds(5, count=1, first=number)
    assert str(again.value) == str(failure.value)


def test_a_hang_is_told_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(gold: str, answer: str) -> Match:
        while True:
            pass

    monkeypatch.setattr("tests.fuzzing.compare", hang)
    monkeypatch.setattr("tests.fuzzing.HANG_S", 0.1)
    with pytest.raises(Broken, match="FUZZ_SEED=5 FUZZ_CASE=0: .*not done after 0.1 s"):
        fuzz_mutated_golds(5, count=1)


def assert_flat(found: Fuzzed) -> None:
    assert found.count > 0
    assert found.slowest_s < ANSWER_LIMIT_S
    assert found.grown_mb < MAX_GROWN_MB
    assert found.left == 0
