"""From a budget (`configs/budget.py`) to overrides: what the training stages would take, and so the factor of all.

Tokens and steps are counted as `derive plan` counts them, hours are its forecast for the machine. Both get better as
data are built and runs are measured, so the same words would come to other lengths later, and nothing could be resumed
or reused: what a budget came to is kept in the run's record, and the same request takes it from the newest that has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from configs.budget import Budget, Taken, in_words, scaled, training_stages
from configs.errors import UserError
from configs.settings.machine import Machine
from flows.forecast import forecast, known_of
from flows.inputs import without_paths
from flows.plan import Plan
from flows.runs import all_runs
from flows.store import Store

TRAINING = ("pretrain", "sft", "dpo", "rl")
READ = ("corpus", "sample")


@dataclass(frozen=True)
class Fitted:
    """What a budget came to."""

    text: str
    key: str
    """Digest of the request; of another one, nothing is taken over."""
    overrides: tuple[str, ...]
    said: str
    """One sentence for a person."""

    def as_record(self) -> dict[str, Any]:
        """As a run's record holds it."""
        return {"text": self.text, "key": self.key, "overrides": list(self.overrides), "said": self.said}


def fit(budget: Budget, text: str, plan: Plan, store: Store, machine: Machine) -> Fitted:
    """The overrides that make the plan's training stages take the budget together.

    Args:
        budget: The total.
        text: As it was written.
        plan: The recipe without it, cut to what is to be built.
        store: Where products and records of earlier runs are.
        machine: What hours are predicted for.

    Raises:
        UserError: There is nothing to train, it cannot be told how long a stage takes, or the budget is too small.
    """
    stages = training_stages([planned.stage for planned in plan.stages])
    if not stages:
        raise UserError(
            f"budget: {text.strip()!r} was given, but no training stage (pretrain, sft, dpo, rl) is to be built; "
            "allowed: none; leave it empty"
        )
    key = store.digest(
        {
            "budget": [budget.amount, budget.unit],
            "base": plan.base_digest,
            "seed": plan.recipe.seed,
            # Not the stages' digests: a code change must not give a resumed run other lengths.
            "stages": [without_paths(planned.stage.model_dump(mode="json")) for planned in plan.stages],
            "outside": [planned.ingredients["outside"] for planned in plan.stages],
            "machine": machine.model_dump(mode="json") if budget.unit == "seconds" else None,
        }
    )
    known = _earlier(store, key)
    if known is not None:
        return known
    taken = _taken(budget, plan, store, machine)
    factor, overrides = scaled(budget, taken)
    total = in_words(sum(one.amount for one in taken), budget.unit)
    said = f"budget {text.strip()}: the preset's {total} times {factor:.3g}: {', '.join(overrides)}"
    return Fitted(text.strip(), key, tuple(overrides), said)


def _earlier(store: Store, key: str) -> Fitted | None:
    """What the same request came to in the newest run that made it."""
    for record in reversed(all_runs(store)):
        found = record.get("budget")
        if isinstance(found, dict) and found.get("key") == key:
            overrides, said = found.get("overrides"), found.get("said")
            if isinstance(overrides, list) and all(isinstance(one, str) for one in overrides):
                return Fitted(str(found.get("text")), key, tuple(overrides), str(said))
    return None


def _taken(budget: Budget, plan: Plan, store: Store, machine: Machine) -> list[Taken]:
    """What every training stage takes in the budget's unit."""
    counted = replace(
        plan,
        stages=[
            # Stages that are there already count too: with another length they are built again.
            replace(planned, artifact=None) if planned.stage.kind in TRAINING else planned
            for planned in plan.stages
            if planned.stage.kind in TRAINING or planned.stage.kind in READ
        ],
    )
    seconds: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    if budget.unit == "seconds":
        alone = replace(counted, stages=[one for one in counted.stages if one.stage.kind != "sample" or one.artifact])
        for line in forecast(alone, store, machine)[0]:
            seconds[line.stage_id], reasons[line.stage_id] = line.seconds, line.unpredicted
    from derivatives.planning.amounts import amount_of

    known = known_of(counted, store)
    found = []
    for stage in training_stages([planned.stage for planned in counted.stages]):
        amount = amount_of(stage, known)
        if amount.unknown or (budget.unit == "seconds" and seconds.get(stage.id) is None):
            why = amount.unknown or reasons.get(stage.id) or "it does not fit into the machine's memory"
            raise UserError(
                f"budget: what {stage.id} takes cannot be told: {why}; allowed: a budget once that is known; "
                f"set its own length among the overrides, or build what it reads first"
            )
        whole = {"steps": float(amount.steps), "tokens": amount.tokens, "seconds": seconds.get(stage.id)}[budget.unit]
        assert whole, f"{stage.id} takes something"
        fixed = whole * amount.before / (amount.before + amount.steps) if budget.unit == "seconds" else 0.0
        found.append(Taken(stage, whole, amount.steps, amount.length, fixed))
    return found
