"""How far two judges agree over the very same completions: a table of labels, agreement, Cohen's kappa, the gap.

A completion that one of them gives no verdict on is counted in the table and takes no part in the figures. The gap is
the share that the first calls correct less the share that the second does; a policy that learns to please the first
shows as a gap that grows.

Sources: Cohen 1960, "A coefficient of agreement for nominal scales"; the interval of agreement is Wilson's, that of the
gap Agresti and Min's for matched proportions (2005, "Simple improved confidence intervals for comparing matched
proportions"). Neither says which of the two is right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from derivatives.evaluation.statistics import Interval, wilson
from verifiers.api import Outcome, Verdict

CONFIDENCE = 0.95
OUTCOMES = tuple(outcome.value for outcome in (Outcome.CORRECT, Outcome.INCORRECT, Outcome.NO_VERDICT))
_RIGHT, _WRONG, _MISSING = OUTCOMES

Label = tuple[str, str]
"""Outcomes of the first and of the second judge."""


@dataclass
class Agreement:
    """What two judges said, counted.

    Attributes:
        labels: Completions by both outcomes.
        reasons: Completions by both outcomes and both reasons: first's, second's, first's reason, second's.
    """

    labels: Counter[Label] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def note(self, first: Verdict, second: Verdict) -> None:
        """Count one completion."""
        label = first.outcome.value, second.outcome.value
        self.labels[label] += 1
        self.reasons[(*label, first.reason, second.reason)] += 1

    @property
    def total(self) -> int:
        """Completions."""
        return self.labels.total()

    @property
    def judged(self) -> int:
        """Completions with two verdicts."""
        return sum(count for label, count in self.labels.items() if _MISSING not in label)

    @property
    def changed(self) -> int:
        """Completions whose outcomes differ, one that only one of them judged among them."""
        return sum(count for (first, second), count in self.labels.items() if first != second)

    def kappa(self) -> float | None:
        """Agreement beyond chance, at most 1; None where both know one label only, or nothing was judged.

        >>> Agreement(Counter({("correct", "correct"): 20, ("correct", "incorrect"): 5, ("incorrect", "correct"): 10,
        ...                    ("incorrect", "incorrect"): 15})).kappa()  # Cohen's example: 0.7 seen, 0.5 by chance
        0.4
        """
        num = self.judged
        if not num:
            return None
        seen = (self.labels[_RIGHT, _RIGHT] + self.labels[_WRONG, _WRONG]) / num
        first, second = self._share(0), self._share(1)
        by_chance = first * second + (1 - first) * (1 - second)
        return None if by_chance == 1.0 else round((seen - by_chance) / (1 - by_chance), 12)

    def agreement(self, confidence: float = CONFIDENCE) -> Interval | None:
        """Share of the judged completions with one label, with Wilson's interval."""
        num, same = self.judged, self.labels[_RIGHT, _RIGHT] + self.labels[_WRONG, _WRONG]
        low, high = wilson(same, num, confidence)
        return {"value": same / num, "low": low, "high": high} if num else None

    def gap(self, confidence: float = CONFIDENCE) -> Interval | None:
        """Share correct by the first less that by the second, over the judged completions, with its interval.

        >>> found = Agreement(Counter({("correct", "incorrect"): 10, ("correct", "correct"): 90})).gap()
        >>> {name: round(value, 3) for name, value in found.items()}
        {'value': 0.1, 'low': 0.037, 'high': 0.159}
        """
        num = self.judged
        if not num:
            return None
        only_first, only_second = self.labels[_RIGHT, _WRONG], self.labels[_WRONG, _RIGHT]
        wide = num + 2  # half a completion is added to each of the four cells
        middle = (only_first - only_second) / wide
        variance = ((only_first + only_second + 1) / wide - middle**2) / wide
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance)
        return {
            "value": (only_first - only_second) / num, "low": max(-1.0, middle - half), "high": min(1.0, middle + half),
        }  # fmt: skip

    def as_dict(self, confidence: float = CONFIDENCE) -> dict[str, Any]:
        """For JSON: the figures, the table, and the reasons of every pair of outcomes, most frequent first."""
        return {
            "completions": self.total,
            "judged": self.judged,
            "changed": self.changed,
            "confidence": confidence,
            "agreement": self.agreement(confidence),
            "kappa": self.kappa(),
            "gap": self.gap(confidence),
            "labels": [
                {"first": first, "second": second, "count": count}
                for (first, second), count in sorted(self.labels.items())
            ],
            "reasons": [
                {"first": first, "second": second, "first_reason": one, "second_reason": other, "count": count}
                for (first, second, one, other), count in sorted(
                    self.reasons.items(), key=lambda item: (-item[1], item[0])  # the order in which they came is lost
                )
            ],
        }

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> Agreement:
        """What `as_dict` made."""
        return Agreement(
            Counter({(one["first"], one["second"]): one["count"] for one in given["labels"]}),
            Counter(
                {
                    (one["first"], one["second"], one["first_reason"], one["second_reason"]): one["count"]
                    for one in given["reasons"]
                }
            ),
        )

    def _share(self, judge: int) -> float:
        """Share that a judge (0 or 1) calls correct."""
        right = sum(
            count for label, count in self.labels.items() if _MISSING not in label and label[judge] == _RIGHT
        )
        return right / self.judged
