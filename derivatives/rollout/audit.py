"""The drift alarm: an independent verifier looks at samples of what earns the reward.

At every audit some completions that have a verdict are judged a second time. The gap is the mean of what the first
verdict is worth less what the second is, over the very same completions. It may well be constant (one verifier is
stricter than the other); what must not happen is that it grows, for then the policy has learnt what pleases the first
verifier and not what is true.
The alarm compares the latest samples with the first ones: it is raised when the reward's score rose, the gap grew by
more than `max_gap`, and by more than `NUM_DEVIATIONS` standard errors of that difference.

A second verdict that is missing takes no part and is counted; it never stops the stage. `OUT/audit.json` holds what all
audits found together (`Agreement.as_dict`) and the latest completions on which the two disagree, for the report. Not
covered: a verifier that is fooled from the first step on leaves no rise to see (the curve of the gap still shows it),
and two verifiers that share a fault agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.settings.reinforcement import Audit
from configs.stage import write_json_atomic
from derivatives.evaluation.agreement import Agreement
from derivatives.rollout.judged import Group, worth
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

MIN_SAMPLES = 64
"""Samples that are compared, at least: the first ones with the latest ones."""
NUM_DEVIATIONS = 2.0
FILE = "audit.json"
MAX_DISAGREEMENTS = 12
"""The latest ones that are kept to be shown; the rollout store has all."""
STREAM = 0x41554449
"""Keeps the choice of samples apart from other draws of the same seed and step."""


@dataclass(frozen=True)
class Sums:
    """One audit, or several: sums over completions that both verifiers judged."""

    num: int = 0
    reward: float = 0.0
    truth: float = 0.0
    squared_gap: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def gap(self) -> float:
        """Mean of first less second score."""
        return (self.reward - self.truth) / max(1, self.num)

    @property
    def gap_variance(self) -> float:
        """Variance of the mean gap."""
        return max(0.0, self.squared_gap / max(1, self.num) - self.gap**2) / max(1, self.num)


@dataclass(frozen=True)
class Drift:
    """The latest samples against the first ones: what the reward's score rose by, what the gap grew by."""

    rise: float
    growth: float
    deviation: float

    def alarms(self, max_gap: float) -> bool:
        """Whether reward and truth have parted."""
        return self.rise > 0.0 and self.growth > max(max_gap, NUM_DEVIATIONS * self.deviation)


class Auditor:
    """Judges samples of a step's completions a second time, and remembers what all audits found.

    Use it as a context manager: it has worker processes of its own, so that faults of the second verifier are not
    counted among those of the first.
    """

    def __init__(self, audit: Audit, seed: int, partial_credit: bool = False, num_workers: int = 1) -> None:
        self.audit, self.seed, self.partial_credit = audit, seed, partial_credit
        self.pool = VerifierPool(num_workers, verifier=audit.verifier)
        self.history: list[Sums] = []
        self.alarms: list[int] = []
        self.labels = Agreement()
        self.disagreements: list[dict[str, Any]] = []

    def __enter__(self) -> Auditor:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def judge(self, step: int, tasks: Sequence[Task], groups: Sequence[Group]) -> list[Group]:
        """The groups, with second verdicts on the samples of this step; of a step without audit, as they are."""
        judged = [list(group) for group in groups]
        chosen = self._choose(step, groups)
        verdicts = self.pool.judge([(tasks[p], groups[p][g].completion.text) for p, g in chosen])
        for (p, g), verdict in zip(chosen, verdicts, strict=True):
            judged[p][g] = replace(judged[p][g], audit=verdict)
        return judged

    def note(self, step: int, groups: Sequence[Group], tasks: Sequence[Task] = ()) -> dict[str, float]:
        """Take in a step's audit; what the progress log says of it, nothing for a step without.

        Args:
            step: Its number.
            groups: All that was rolled out.
            tasks: The groups' problems; without them no disagreement is kept to be shown.
        """
        if not self.is_due(step):
            return {}
        for number, group in enumerate(groups):
            for one in group:
                if one.audit is not None:
                    self.labels.note(one.verdict, one.audit)
                    if one.audit.outcome is not one.verdict.outcome and tasks:
                        told = _told(step, tasks[number], one.completion.text, one.verdict, one.audit)
                        self.disagreements = [*self.disagreements, told][-MAX_DISAGREEMENTS:]
        asked = [one for group in groups for one in group if one.audit is not None]
        pairs = [
            (worth(one.verdict, self.partial_credit), worth(one.audit, self.partial_credit))
            for one in asked
            if one.audit is not None and one.audit.outcome is not Outcome.NO_VERDICT
        ]
        sums = Sums(len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs), sum((a - b) ** 2 for a, b in pairs))
        found = {"audit_no_verdict": 1.0 - len(pairs) / len(asked) if asked else 0.0}
        if pairs:
            self.history.append(sums)
            found |= {"audit_reward": sums.reward / sums.num, "audit_truth": sums.truth / sums.num}
            found["audit_gap"] = sums.gap
        drift = self.drift()
        if drift is not None:
            found["audit_drift"] = drift.growth
            if drift.alarms(self.audit.max_gap):
                self.alarms.append(step)
        found["audit_alarm"] = float(bool(self.alarms) and self.alarms[-1] == step)
        return found

    def is_due(self, step: int) -> bool:
        """Whether this step (counted from 1) is audited."""
        return step % self.audit.every == 0

    def drift(self) -> Drift | None:
        """The latest samples against the first; None while there are too few for two separate halves."""
        first, num_first = _at_least(MIN_SAMPLES, self.history)
        latest, num_latest = _at_least(MIN_SAMPLES, self.history[::-1])
        if num_first + num_latest > len(self.history) or latest.num < MIN_SAMPLES:
            return None
        rise = latest.reward / latest.num - first.reward / first.num
        return Drift(rise, latest.gap - first.gap, math.sqrt(latest.gap_variance + first.gap_variance))

    def warning(self) -> str:
        """What to say of the latest alarm."""
        drift = self.drift()
        assert drift is not None
        return (
            f"drift alarm, step {self.alarms[-1]}: the score rose by {drift.rise:.3f}, and by {drift.growth:.3f} more "
            f"than verifier {self.audit.verifier!r} confirms (stage.audit.max_gap {self.audit.max_gap:g}); read "
            "the rollouts that only the first verifier accepts (`derive rollouts rescore`)"
        )

    def write(self, out: Path, judge: str) -> None:
        """Write what all audits so far found to `OUT/audit.json`. `judge` is the verifier that gives the reward."""
        write_json_atomic(
            out / FILE,
            {
                "verifier": self.audit.verifier, "judge": judge, "max_gap": self.audit.max_gap, "alarms": self.alarms,
                **self.labels.as_dict(), "disagreements": self.disagreements,
            },
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """For `metrics.json`: alarms, and agreement and gap over the whole stage where something was audited."""
        agreement, gap = self.labels.agreement(), self.labels.gap()
        shares = {} if agreement is None or gap is None else {
            "audit_agreement": agreement["value"], "audit_gap": gap["value"],
        }  # fmt: skip
        return {"drift_alarms": self.alarms, **shares}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "verifier": self.audit.verifier,
            "history": [list(astuple(sums)) for sums in self.history],
            "alarms": list(self.alarms),
            "labels": self.labels.as_dict(),
            "disagreements": list(self.disagreements),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state; one of another second verifier (of a fork) is not comparable and is left."""
        if state["verifier"] == self.audit.verifier:
            self.history = [Sums(*values) for values in state["history"]]
            self.alarms = list(state["alarms"])
            self.labels = Agreement.from_dict(state["labels"]) if "labels" in state else Agreement()
            self.disagreements = list(state.get("disagreements", []))

    def _choose(self, step: int, groups: Sequence[Group]) -> list[tuple[int, int]]:
        """Which completions are judged again: evenly at random among those that have a verifier's verdict."""
        if not self.is_due(step):
            return []
        fit = [
            (p, g)
            for p, group in enumerate(groups)
            for g, one in enumerate(group)
            if not one.missing and one.asked
        ]
        order = np.random.default_rng((self.seed, step, STREAM)).permutation(len(fit))
        return [fit[place] for place in sorted(order[: self.audit.samples].tolist())]


def _told(step: int, task: Task, completion: str, first: Verdict, second: Verdict) -> dict[str, Any]:
    """A completion on which the two differ, as a report shows it."""
    said = ({"outcome": one.outcome.value, "extracted": one.extracted, "reason": one.reason} for one in (first, second))
    about = {"step": step, "source": task.source, "prompt": task.prompt, "answer": task.answer}
    return {**about, "completion": completion, **dict(zip(("first", "second"), said, strict=True))}


def _at_least(num: int, history: Sequence[Sums]) -> tuple[Sums, int]:
    """The first audits together until they have so many samples, and how many audits that are."""
    total = Sums()
    for count, sums in enumerate(history, 1):
        total = total + sums
        if total.num >= num:
            return total, count
    return total, len(history)
