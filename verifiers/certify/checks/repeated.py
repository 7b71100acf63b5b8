"""What the checks of repetition have in common: cases judged again, and how two accounts of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifiers.api import Verdict
from verifiers.cases import Case
from verifiers.certify import texts
from verifiers.certify.bench import Bench

Told = Sequence[Any]
"""Outcome, score, extracted and reason; or `raised` and the error."""
MARGIN = 20.0
"""Times the estimate that a process may take: machines are shared."""


def told_of(verdict: Verdict) -> Told:
    """A verdict as a process tells it."""
    return [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason]


def baseline(bench: Bench, places: Sequence[int]) -> list[Told | None]:
    """What the pool said of these cases."""
    return [None if bench.baseline[place] is None else told_of(bench.baseline[place]) for place in places]  # type: ignore[arg-type]


def first_difference(
    cases: Sequence[Case], one: Sequence[Told | None], other: Sequence[Told | None]
) -> dict[str, Any] | None:
    """The shortest case on which two accounts differ, with both; None where they agree."""
    differ = [
        (len(case.completion), place)
        for place, case in enumerate(cases)
        if one[place] is not None and other[place] is not None and list(one[place] or ()) != list(other[place] or ())
    ]
    if not differ:
        return None
    place = min(differ)[1]
    return {
        "case": cases[place].task.id,
        "completion": texts.shown(cases[place].completion),
        "one": _shown(one[place]),
        "other": _shown(other[place]),
    }


def said(found: dict[str, Any]) -> str:
    """The two accounts of a difference, short."""
    return f"on case {found['case']} {found['one'][:2]} and {found['other'][:2]}"


def allowed_s(bench: Bench, judgements: int) -> float:
    """Seconds that a process may take for so many judgements."""
    return max(2 * bench.deadline_s, 10.0) + MARGIN * bench.mean_s * judgements


def _shown(told: Told | None) -> list[Any]:
    return [texts.shown(part, 120) if isinstance(part, str) else part for part in told or ()]
