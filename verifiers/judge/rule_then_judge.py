"""A rule and a judge as one verifier, in which the judge never outranks the rule's *incorrect*.

    RuleThenJudge("solved_politely", rule=MathVerifier(), judge=tone())

| the rule says | the judge | the verdict |
|---|---|---|
| correct | is asked | the judge's |
| incorrect | is asked only with a `ceiling` | incorrect; the score is the rule's, or `ceiling` times the judge's |
| no verdict, for a reason in `no_rule` | is asked | the judge's: the task has no rule |
| no verdict | is not asked | no verdict |

An outage of the judge leaves the rule's *incorrect* standing; where the judge would have decided, there is no verdict.
"""

from __future__ import annotations

from collections.abc import Collection

from verifiers.api import OVER_BUDGET, Outcome, Task, Verdict, Verifier, correct, incorrect, no_verdict

RULE_S = 30.0
"""Seconds that the rule may take of the deadline, where it names none."""


class RuleThenJudge:
    """Correct if the rule says so and the judge too.

    Args:
        name: Registry name.
        rule: Decides what is wrong.
        judge: Decides among what the rule lets pass.
        ceiling: The most that the judge's score may earn where the rule says incorrect; at least 0, below 1. With 0 the
            judge is not asked there.
        no_rule: Reasons of the rule's missing verdicts that mean that a task has nothing for it (`empty_gold`).
    """

    def __init__(
        self, name: str, rule: Verifier, judge: Verifier, ceiling: float = 0.0, no_rule: Collection[str] = ()
    ) -> None:
        if not 0.0 <= ceiling < 1.0:
            raise ValueError(f"{name}: ceiling {ceiling!r}; allowed: at least 0 and less than 1")
        if isinstance(no_rule, str):
            raise ValueError(f"{name}: no_rule {no_rule!r}; allowed: a list of reasons")
        self.name, self.rule, self.judged_by = name, rule, judge
        self.ceiling, self.no_rule = ceiling, frozenset(no_rule)
        self.deadline_s = getattr(rule, "deadline_s", RULE_S) + getattr(judge, "deadline_s", RULE_S)
        told = [f"{part.name}-{part.version}" for part in (rule, judge)]
        self.version = "+".join(["1", *told, f"ceiling-{ceiling:g}", *sorted(self.no_rule)])

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the rule, then by the judge."""
        ruled = self.rule.judge(task, completion)
        if ruled.outcome is Outcome.NO_VERDICT and ruled.reason not in self.no_rule:
            return no_verdict(f"{self.rule.name}:{ruled.reason}")
        if ruled.outcome is Outcome.INCORRECT:
            return self._wrong(ruled, task, completion)
        judged = self.judged_by.judge(task, completion)
        extracted = ruled.extracted or judged.extracted
        if judged.outcome is Outcome.CORRECT:
            return correct(extracted, ruled.reason if ruled.outcome is Outcome.CORRECT else judged.reason)
        reason = f"{self.judged_by.name}:{judged.reason}"
        if judged.outcome is Outcome.NO_VERDICT:
            return no_verdict(reason)
        return incorrect(OVER_BUDGET if judged.reason == OVER_BUDGET else reason, extracted, judged.score)

    def warm_up(self) -> None:
        """Do the slow imports of both."""
        for part in (self.rule, self.judged_by):
            warm_up = getattr(part, "warm_up", None)
            if warm_up is not None:
                warm_up()

    def _wrong(self, ruled: Verdict, task: Task, completion: str) -> Verdict:
        """The rule's verdict; the judge may raise its score, up to the ceiling."""
        score = ruled.score
        if self.ceiling > 0.0:
            try:
                judged = self.judged_by.judge(task, completion)
            except Exception:  # whatever befalls the judge, the rule has spoken
                judged = no_verdict("judge_raised")
            if judged.outcome is not Outcome.NO_VERDICT:
                score = max(score, self.ceiling * judged.score)
        return incorrect(ruled.reason, ruled.extracted, score)
