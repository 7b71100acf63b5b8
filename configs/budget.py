"""How much training a run may take: `5e6 tokens`, `200 steps`, `2 hours`, in place of the preset's own lengths.

A budget is the total of the training stages (pretrain, sft, dpo, rl) that a run builds. Every one of them is made
longer or shorter by the same factor, through the field that says how long it is (`LENGTHS`), so that what is meant
shows up as ordinary overrides. Corpora, sampling and evaluation stay as they are. What the stages would take without a
budget is predicted elsewhere (`flows/budgets.py`), for that needs the base and the machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import UserError, printable
from configs.schema import Stage
from configs.settings.reinforcement import RlStage
from configs.settings.training import DpoStage, PretrainStage, SftStage

LENGTHS = {"pretrain": "num_tokens", "sft": "epochs", "dpo": "epochs", "rl": "steps"}
"""The field of each kind of training stage that says how long it is."""
FORM = "a number and tokens, steps, hours or minutes, such as 5e6 tokens, 200 steps or 2 hours"
_GIVEN = re.compile(r"([0-9]+(?:[_,][0-9]{3})*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?) ?(token|step|hour|minute)s?", re.I)
_LARGEST = 1e15

Unit = Literal["tokens", "steps", "seconds"]


@dataclass(frozen=True)
class Budget:
    """A total over the training stages of a run."""

    amount: float
    unit: Unit
    """tokens: trained on, in rl drawn. steps: of the optimizer, in rl of rollouts. seconds: by the clock."""


def parse_budget(text: str) -> Budget | None:
    """A budget as a person writes it; None where nothing is given.

    >>> parse_budget("1.5 hours"), parse_budget("2_000_000 tokens"), parse_budget(" ")
    (Budget(amount=5400.0, unit='seconds'), Budget(amount=2000000.0, unit='tokens'), None)

    Raises:
        UserError: It is none.
    """
    words = " ".join(text.split()) if len(text) <= 200 else text
    if not words:
        return None
    match = _GIVEN.fullmatch(words)
    shown = printable(text)
    if match is None:
        raise UserError(f"budget: {shown} is none; allowed: {FORM}; empty takes the preset's lengths")
    amount = float(re.sub("[_,]", "", match[1]))
    if not 0 < amount <= _LARGEST:
        raise UserError(f"budget: {shown} is out of range; allowed: above 0 and at most {_LARGEST:g}; change it")
    unit = match[2].lower()
    if unit in ("hour", "minute"):
        return Budget(amount * (3600 if unit == "hour" else 60), "seconds")
    if amount != int(amount):
        raise UserError(f"budget: {shown} is no whole number of {unit}s; allowed: one; round it")
    return Budget(amount, "steps" if unit == "step" else "tokens")


def training_stages(stages: Sequence[Stage]) -> list[PretrainStage | SftStage | DpoStage | RlStage]:
    """Those that a budget is about."""
    return [stage for stage in stages if isinstance(stage, (PretrainStage, SftStage, DpoStage, RlStage))]


def scaled(stages: Sequence[Stage], factor: float) -> list[str]:
    """Overrides that make every training stage `factor` times as long; whole numbers are rounded, at least 1.

    Epochs keep six digits, which is less than one example in a hundred thousand.
    """
    found = []
    for stage in training_stages(stages):
        field = LENGTHS[stage.kind]
        length = getattr(stage, field) * factor
        found.append(f"{stage.id}.{field}={length:.6g}" if field == "epochs" else
                     f"{stage.id}.{field}={max(1, round(length))}")  # fmt: skip
    return found


def factor_for(budget: Budget, taken: Sequence[tuple[str, float, int]]) -> float:
    """What all lengths are multiplied by.

    Args:
        budget: The total that is wanted.
        taken: Of each training stage its id, what it takes in the budget's unit as it is, and its steps.

    Raises:
        UserError: The budget leaves a stage less than one step.
    """
    total = math.fsum(amount for _, amount, _ in taken)
    assert total > 0, "a training stage has at least one step"
    factor = budget.amount / total
    shortest, _, steps = min(taken, key=lambda one: one[2])
    if factor * steps < 1:
        least = total / steps
        raise UserError(
            f"budget: {in_words(budget.amount, budget.unit)} leaves {shortest} less than one of its {steps:,} steps; "
            f"allowed: at least {in_words(least, budget.unit, up=True)}; raise it, or name fewer stages"
        )
    return factor


def in_words(amount: float, unit: Unit, up: bool = False) -> str:
    """An amount as it could be typed as a budget; `up` rounds upwards.

    >>> in_words(5400.0, "seconds"), in_words(211.5, "steps", up=True), in_words(90.0, "seconds")
    ('1.5 hours', '212 steps', '1.5 minutes')
    """
    if unit == "seconds":
        name, size = ("hours", 3600) if amount >= 3600 else ("minutes", 60)
        amount = math.ceil(amount / size * 100) / 100 if up else amount / size
        return f"{amount:.3g} {name}"
    return f"{math.ceil(amount) if up else round(amount):,} {unit}"
