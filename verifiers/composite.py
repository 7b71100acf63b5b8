"""Several verifiers as one: what decides, what must hold besides, and what a wrong answer may still earn.

    Composite("think_math", decides=[MathVerifier()], gates=[FormatVerifier()])
    Composite("graded", decides=[MathVerifier(), Units()], weights={"math": 3, "units": 1}, ceiling=0.4)

The completion is CORRECT, with score 1, exactly when all that decide and all gates say CORRECT. Otherwise it is
INCORRECT with the score

    ceiling * sum(weight * score of the part) / sum(weights),

or 0 where a gate is not CORRECT or there are no weights. `ceiling` is below 1, so that any correct completion outranks
any wrong one by construction, whatever the parts' scores are. If a part gives no verdict, so does the composite,
whatever the others say: that a gate failed must not decide whether a fault of the data is counted.

What decides reads the answer alone (what follows `</think>`, where a thought is closed); gates read the whole
completion. The reason names the part that decided against the completion, as in `format:unclosed_think_tag`; of a
correct one it is the first deciding part's.

A recipe names a composite like any verifier, so each is registered under a name of its own and takes no arguments;
see `verifiers/think_math.py` and `verifiers/README.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verifiers.answers.extract import final_part
from verifiers.api import OVER_BUDGET, Outcome, Task, Verdict, Verifier, correct, incorrect, no_verdict

DEFAULT_CEILING = 0.5


class Composite:
    """A verifier made of others.

    Args:
        name: Registry name.
        decides: Verifiers that say whether the answer is right; all must.
        gates: Verifiers that must hold besides; without them even a right answer is incorrect, with score 0.
        weights: Weight of a part's score in what a wrong answer earns, by the part's name.
        ceiling: The most that a wrong answer earns; at least 0, below 1.
    """

    def __init__(
        self,
        name: str,
        decides: Sequence[Verifier],
        gates: Sequence[Verifier] = (),
        weights: Mapping[str, float] | None = None,
        ceiling: float = DEFAULT_CEILING,
    ) -> None:
        self.name, self.decides, self.gates = name, tuple(decides), tuple(gates)
        self.weights, self.ceiling = dict(weights or {}), ceiling
        parts = [part.name for part in (*self.gates, *self.decides)]
        if not self.decides or len(set(parts)) < len(parts):
            raise ValueError(f"{name}: parts {parts}; allowed: at least one that decides, each part once")
        if unknown := set(self.weights) - set(parts):
            raise ValueError(f"{name}: weights of {sorted(unknown)}; allowed: its parts {parts}")
        if any(not 0.0 < weight < float("inf") for weight in self.weights.values()):
            raise ValueError(f"{name}: weights {self.weights}; allowed: more than 0, and finite")
        if not 0.0 <= ceiling < 1.0:
            raise ValueError(f"{name}: ceiling {ceiling!r}; allowed: at least 0 and less than 1")
        self.deadline_s = sum(float(getattr(part, "deadline_s", 0.0)) for part in (*self.gates, *self.decides))
        told = [f"{part.name}-{part.version}" for part in (*self.gates, *self.decides)]
        told += [f"{part}*{weight:g}" for part, weight in sorted(self.weights.items())]
        self.version = "+".join(["1", *told, *([f"ceiling-{ceiling:g}"] if self.weights else [])])

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by all parts."""
        answer = final_part(completion)
        verdicts = {part.name: part.judge(task, completion) for part in self.gates}
        verdicts |= {part.name: part.judge(task, answer) for part in self.decides}
        for name, verdict in verdicts.items():
            if verdict.outcome is Outcome.NO_VERDICT:
                return no_verdict(f"{name}:{verdict.reason}")
        first = verdicts[self.decides[0].name]
        against = [name for name, verdict in verdicts.items() if verdict.outcome is not Outcome.CORRECT]
        if not against:
            return correct(first.extracted, first.reason)
        for name in against:  # over budget is over budget, for whoever counts it
            if verdicts[name].reason == OVER_BUDGET:
                return incorrect(OVER_BUDGET, first.extracted)
        gated = any(part.name in against for part in self.gates)
        reason = f"{against[0]}:{verdicts[against[0]].reason}"
        return incorrect(reason, first.extracted, 0.0 if gated else self._partial(verdicts))

    def warm_up(self) -> None:
        """Do the slow imports of all parts."""
        for part in (*self.gates, *self.decides):
            warm_up = getattr(part, "warm_up", None)
            if warm_up is not None:
                warm_up()

    def _partial(self, verdicts: Mapping[str, Verdict]) -> float:
        if not self.weights:
            return 0.0
        earned = sum(weight * verdicts[name].score for name, weight in self.weights.items())
        return self.ceiling * min(1.0, earned / sum(self.weights.values()))
