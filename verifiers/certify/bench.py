"""What the checks share: the verifier's name, its cases, its limits, and a pool of killable workers that judges.

Every completion is judged in a worker of `verifiers.pool`, with the pool's own deadline and memory limit, so that a
verifier that hangs, ends its process or eats memory costs a worker and never the certifier. A check that meets faults
stops after a few: each costs the deadline twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from verifiers.api import OVER_BUDGET, Outcome, Task, Verdict
from verifiers.cases import Case
from verifiers.certify import texts
from verifiers.pool import DEADLINES_S, DEFAULT_DEADLINE_S, VerifierPool

WORKERS = 2
MAX_FAULTS = 3
"""Judgements without a verdict, or over the deadline, after which a check has seen enough."""


@dataclass(frozen=True)
class Limits:
    """How far the checks go. The defaults certify; smaller ones are for tests.

    Attributes:
        deadline_s: Seconds for one judgement; None for what the pool allows this verifier.
        memory_mb: Megabytes that judging may take above what the imported verifier takes at rest.
        memory_calls: Calls over which memory is watched.
        memory_s: Seconds after which fewer must do.
        latency_calls: Judgements that are timed.
        repeat_s: Seconds that each of the checks of determinism, order, threads and forks may judge, by estimate.
    """

    deadline_s: float | None = None
    memory_mb: int = 2048
    memory_calls: int = 10_000
    memory_s: float = 15.0
    latency_calls: int = 1_000
    repeat_s: float = 3.0


@dataclass(frozen=True)
class Judged:
    """A verdict and what it took.

    Attributes:
        verdict: As the pool gave it.
        wall_s: Seconds until it came.
        timed_out: The pool killed the worker at its deadline.
    """

    verdict: Verdict
    wall_s: float
    timed_out: bool

    @property
    def is_fault(self) -> bool:
        """No verdict, or none in time."""
        return self.timed_out or self.verdict.outcome is Outcome.NO_VERDICT


@dataclass
class Bench:
    """One verifier on its way to a card; a context manager.

    Attributes:
        name: Registry name.
        cases: All cases; `gold` and `near_misses` are its parts.
        limits: How far the checks go.
        reasons: Reasons of the verdicts on gold cases, once they are judged.
        mean_s: Seconds that one judgement of a case takes, once some are judged.
        baseline: The pool's verdicts on the cases, once they are judged.
    """

    name: str
    cases: list[Case]
    limits: Limits = field(default_factory=Limits)
    cases_file: Path | None = None
    reasons: list[str] = field(default_factory=list)
    mean_s: float = 0.0
    baseline: list[Verdict | None] = field(default_factory=list)
    _pool: VerifierPool | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    @property
    def gold(self) -> list[Case]:
        """Cases that are right."""
        return [case for case in self.cases if case.expect is Outcome.CORRECT]

    @property
    def near_misses(self) -> list[Case]:
        """Cases that are wrong."""
        return [case for case in self.cases if case.expect is Outcome.INCORRECT]

    @property
    def deadline_s(self) -> float:
        """Seconds that the pool allows one judgement."""
        return self.limits.deadline_s or DEADLINES_S.get(self.name, DEFAULT_DEADLINE_S)

    def new_pool(self, num_workers: int = WORKERS) -> VerifierPool:
        """A pool of this verifier's own, for a check that disturbs it."""
        return VerifierPool(num_workers, self.deadline_s, self.limits.memory_mb, verifier=self.name)

    def judge(self, cases: Sequence[Case], max_faults: int = MAX_FAULTS) -> list[Judged | None]:
        """Verdicts in order; None for what was not judged any more after so many faults."""
        if self._pool is None:
            self._pool = self.new_pool()
        pool, faults = self._pool, 0

        def one(case: Case) -> Judged | None:
            nonlocal faults
            if faults >= max_faults:
                return None
            started = time.monotonic()
            try:
                verdict = pool.submit(case.task, case.completion).result()
            except CancelledError:  # the pool closes: an interrupt
                return None
            wall_s = time.monotonic() - started
            ended = verdict.reason == OVER_BUDGET and verdict.seconds == 0.0  # by the pool, not by the verifier
            judged = Judged(verdict, wall_s, ended and wall_s >= self.deadline_s)
            faults += judged.is_fault
            return judged

        with ThreadPoolExecutor(WORKERS) as executor:
            try:
                return list(executor.map(one, cases))
            except BaseException:  # an interrupt: what is queued is not judged, what is judged is cancelled
                faults = max_faults
                pool.close()
                self._pool = None
                raise

    def remember(self, cases: Sequence[Case]) -> list[Judged | None]:
        """`judge`, and its verdicts are what later checks compare with."""
        judged = self.judge(cases)
        if not self.baseline:
            self.baseline = [None] * len(self.cases)
        places = {id(case): place for place, case in enumerate(self.cases)}
        for case, one in zip(cases, judged, strict=True):
            if one is not None:
                self.baseline[places[id(case)]] = one.verdict
        known = [verdict.seconds for verdict in self.baseline if verdict is not None]
        self.mean_s = sum(known) / len(known) if known else 0.0
        return judged

    def expected(self, case: Case) -> Outcome | None:
        """What the cases say of exactly this completion of this task; None where they say nothing."""
        key = _key(case.task, case.completion)
        return next((known.expect for known in self.cases if _key(known.task, known.completion) == key), None)

    def sample(self, factor: float = 1.0) -> list[int]:
        """Places of the cases that a repeated check can judge in its time, spread over all; at least 8."""
        fitting = int(self.limits.repeat_s / max(1e-6, self.mean_s * factor))
        count = min(len(self.cases), max(8, fitting))
        return [place * len(self.cases) // count for place in range(count)]


def evidence(case: Case, judged: Judged | Verdict | None, what: str = "") -> dict[str, Any]:
    """A failing example for the card."""
    verdict = judged.verdict if isinstance(judged, Judged) else judged
    found: dict[str, Any] = {"case": case.task.id, "completion": texts.shown(case.completion)}
    if what:
        found["what"] = what
    if case.task.answer:
        found["answer"] = texts.shown(case.task.answer)
    if verdict is not None:
        found["verdict"] = {
            "outcome": verdict.outcome.value,
            "score": verdict.score,
            "extracted": None if verdict.extracted is None else texts.shown(verdict.extracted, 100),
            "reason": texts.shown(verdict.reason, 200),
        }
    return found


def smallest(failures: Sequence[tuple[Case, Any, str]]) -> tuple[Case, Any, str]:
    """The failing example with the shortest completion."""
    return min(failures, key=lambda failure: (len(failure[0].completion), failure[0].completion))


def as_line(case: Case, expect: Outcome) -> str:
    """A line for the file of cases that says what is expected of this completion."""
    line: dict[str, Any] = {"completion": case.completion, "answer": case.task.answer, "expect": expect.value}
    line |= {"prompt": case.task.prompt} if case.task.prompt else {}
    return json.dumps(line | ({"metadata": dict(case.task.metadata)} if case.task.metadata else {}))[:500]


def fault_sentence(judged: Judged, deadline_s: float) -> str:
    """What went wrong where there is no verdict, or none in time, and what to do."""
    if judged.timed_out:
        return (
            f"judging took longer than the limit of {deadline_s:g} s and was killed: bound the size of what is read "
            "and the work that a completion can cause (a loop, a regular expression that backtracks, a waiting read)"
        )
    reason = judged.verdict.reason
    if reason.startswith("verifier_fault: the worker ended"):
        return "it ended its process: a verifier must return a verdict, never exit, abort or kill"
    if reason.startswith("verifier_fault:"):
        said = texts.shown(reason.removeprefix("verifier_fault:").strip(), 160)
        return f"it raised {said}: catch it and return incorrect, for a completion can cause it"
    said = texts.shown(reason, 160)
    return (
        f"it gave no verdict ({said}), which masks the completion from the loss: return incorrect for what a "
        "completion can cause"
    )


def _key(task: Task, completion: str) -> str:
    return json.dumps([completion, task.answer, task.prompt, dict(task.metadata)], sort_keys=True)
