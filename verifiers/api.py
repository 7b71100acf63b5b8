"""What a verifier is: it reads a task and a completion and returns a verdict.

A verdict has three outcomes. CORRECT and INCORRECT are about the completion. NO_VERDICT is only for faults that a
completion cannot cause (a bug of ours, a dead worker, a gold answer that cannot be read): it is masked from a loss,
counted, and never averaged. A completion that is too long, too deep or too slow to judge is INCORRECT with the
reason `over_budget`, so that hanging the judge never pays.

Verifiers are plain objects without state between calls. They run inside killable workers (`verifiers.pool`), which
hold the clock and the memory limit; a verifier need not guard against its own slowness.

What this does not do: it does not load, time or isolate anything. See `verifiers.registry` and `verifiers.pool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

OVER_BUDGET = "over_budget"
"""Reason of an INCORRECT verdict for a completion that exceeds a limit of size, depth, time or memory."""


@dataclass(frozen=True)
class Task:
    """One problem with its gold answer.

    Attributes:
        id: Unique within its task set.
        prompt: The question as it is asked, without any chat formatting.
        answer: Gold answer as text; empty where only a rule can judge.
        verifier: Registry name of the verifier that judges it unless another is asked for.
        metadata: What the verifier needs besides the gold answer; JSON-serialisable.
        source: Name of the task set it came from.
    """

    id: str
    prompt: str
    answer: str
    verifier: str = "math"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


class Outcome(str, Enum):  # noqa: UP042 - the plain mix-in keeps `json.dumps` and `==` with strings alike on all versions
    """What a verdict says."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_VERDICT = "no_verdict"


@dataclass(frozen=True)
class Verdict:
    """The judgement of one completion.

    Attributes:
        outcome: Correct, incorrect, or no verdict.
        score: In [0, 1]; 1 when correct; partial credit may stand with INCORRECT; 0 with NO_VERDICT, never averaged.
        extracted: The answer that was read out of the completion; None where none was found.
        reason: What happened, as snake_case words (`same_number_boxed`, `no_answer`, `over_budget`).
        seconds: Time that judging took.
    """

    outcome: Outcome
    score: float
    extracted: str | None = None
    reason: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score: {self.score!r} is outside [0, 1]; scale it before making a Verdict")
        if self.outcome is Outcome.CORRECT and self.score != 1.0:
            raise ValueError(f"score: {self.score!r} with outcome correct; allowed: 1.0 (else incorrect)")
        if self.outcome is Outcome.NO_VERDICT and self.score != 0.0:
            raise ValueError(f"score: {self.score!r} with outcome no_verdict; allowed: 0.0")


def correct(extracted: str | None = None, reason: str = "") -> Verdict:
    """The completion is right."""
    return Verdict(Outcome.CORRECT, 1.0, extracted, reason)


def incorrect(reason: str, extracted: str | None = None, score: float = 0.0) -> Verdict:
    """The completion is wrong, for the named reason; `score` may carry partial credit."""
    return Verdict(Outcome.INCORRECT, score, extracted, reason)


def no_verdict(reason: str) -> Verdict:
    """Nothing can be said, through no fault of the completion."""
    return Verdict(Outcome.NO_VERDICT, 0.0, None, reason)


@runtime_checkable
class Verifier(Protocol):
    """What every verifier offers. A class with these members, constructed without arguments, is one.

    A verifier may also have `warm_up() -> None`, which does its slow imports. A pool calls it in each new worker before
    its clock starts, so that a cold import is never held against a completion.
    """

    name: str
    version: str

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion. Deterministic; an exception counts as our own fault (no verdict)."""
        ...
