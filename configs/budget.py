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
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
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
ROUNDING = 1e-9
"""What is left out of account as an error of floating-point numbers."""

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


@dataclass(frozen=True)
class Taken:
    """What a training stage takes as its recipe has it."""

    stage: PretrainStage | SftStage | DpoStage | RlStage
    amount: float
    """In the budget's unit."""
    steps: int
    step_length: float
    """What one whole step takes of the field that says how long the stage is (`LENGTHS`)."""
    fixed: float = 0.0
    """The part of the amount that stays, however long the stage is made."""


def scaled(budget: Budget, taken: Sequence[Taken]) -> tuple[float, list[str]]:
    """What all lengths are multiplied by, and the overrides that do it; together they take the budget, and never more.

    Whole numbers are rounded down, epochs to six digits. Where the unit is not tokens a last step that is not full
    counts as one, so that the stages get whole numbers of steps: of a budget in steps exactly as many as it has.

    Args:
        budget: The total that is wanted.
        taken: Every training stage.

    Raises:
        UserError: The budget leaves a stage less than one step.
    """
    factor = factor_for(budget, taken)
    limits = [_floor(factor * one.steps) for one in taken]
    if budget.unit == "steps":
        rests = [factor * one.steps - limit for one, limit in zip(taken, limits, strict=True)]
        spare = _floor(budget.amount) - sum(limits)
        for place in sorted(range(len(taken)), key=lambda place: -rests[place])[: max(0, spare)]:
            limits[place] += 1
    found = []
    for one, limit in zip(taken, limits, strict=True):
        field = LENGTHS[one.stage.kind]
        length = getattr(one.stage, field) * factor
        if isinstance(one.stage, RlStage):
            length = limit
        elif budget.unit == "steps":  # of its own number of steps the last may be one that is not full
            length = length if limit == one.steps else limit * one.step_length
        elif budget.unit == "seconds":
            length = min(length, limit * one.step_length)
        found.append(f"{one.stage.id}.{field}={_digits(length) if field == 'epochs' else max(1, _floor(length))}")
    return factor, found


def factor_for(budget: Budget, taken: Sequence[Taken]) -> float:
    """What all lengths are multiplied by. Raises UserError where that leaves a stage less than one step."""
    fixed = math.fsum(one.fixed for one in taken)
    total = math.fsum(one.amount for one in taken) - fixed
    assert total > 0, "a training stage has at least one step"
    factor = (budget.amount - fixed) / total
    shortest = min(taken, key=lambda one: one.steps)
    if factor * shortest.steps < 1 - ROUNDING:
        least = total / shortest.steps + fixed
        raise UserError(
            f"budget: {in_words(budget.amount, budget.unit)} leaves {shortest.stage.id} less than one of its "
            f"{shortest.steps:,} steps; allowed: at least {in_words(least, budget.unit, up=True)}; raise it, or name "
            "fewer stages"
        )
    return factor


def _floor(value: float) -> int:
    return math.floor(value * (1 + ROUNDING))


def _digits(value: float) -> str:
    """A number to six digits, rounded down, in plain decimals."""
    found = Context(prec=6, rounding=ROUND_FLOOR).create_decimal_from_float(value * (1 + ROUNDING))
    return f"{found.normalize():f}"


def in_words(amount: float, unit: Unit, up: bool = False) -> str:
    """An amount as it could be typed as a budget; `up` rounds upwards.

    >>> in_words(5400.0, "seconds"), in_words(211.5, "steps", up=True), in_words(90.0, "seconds")
    ('1.5 hours', '212 steps', '1.5 minutes')
    >>> in_words(123.41 * 3600, "seconds", up=True), in_words(1234 * 3600, "seconds")
    ('124 hours', '1230 hours')
    """
    rounding = ROUND_CEILING if up else ROUND_HALF_EVEN
    if unit == "seconds":
        name, size = ("hours", 3600) if amount >= 3600 else ("minutes", 60)
        shown = Context(prec=3, rounding=rounding).create_decimal_from_float(amount / size * (1 - up * ROUNDING))
        return f"{shown.normalize():f} {name}"
    return f"{math.ceil(amount * (1 - ROUNDING)) if up else round(amount):,} {unit}"
