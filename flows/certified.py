"""Which cards the verifiers of a plan have: RL is refused where one that rewards is not certified as it is now.

A card (`verifiers/certify`) lies in the project for a built-in verifier, in `STORE/cards` for any other. It counts if
it is whole, says certified, and was made of the verifier's present source and version. An rl stage with
`allow_uncertified: true` runs without; what its card said, if it has one, is recorded all the same.

A stage that is a control (`configs.controls`) is paid by what certifies nothing, on purpose, and needs no card.

A stage's ingredients hold the digest, recall and false positives of each card, and so does a release's lineage. A
second opinion (`audit`) pays nothing: its card is recorded, and is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.judges import judges_of
from configs.schema import Stage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage
from flows.store import Store

if TYPE_CHECKING:
    from flows.plan import Plan, PlannedStage
    from verifiers.certify import Card

CARDS = "cards"
"""Folder of the store."""


@dataclass(frozen=True)
class Standing:
    """What is known of one verifier's card.

    Attributes:
        name: Registry name.
        card: The card, stale or not; None where there is none that can be read.
        problem: Why it certifies nothing, with the remedy; empty where it certifies the verifier as it is.
    """

    name: str
    card: Card | None
    problem: str = ""

    def brief(self) -> dict[str, Any]:
        """For a stage's ingredients: the digest, and how often it errs where that was measured."""
        if self.card is None:
            return {"digest": "", "certified": False, "labelled": []}
        rows = [one.as_dict() for one in self.card.labelled]
        kept = ("data", "recall", "false_positive_rate")
        labelled = [{key: row[key] for key in kept} for row in rows]
        return {"digest": self.card.digest, "certified": not self.problem, "labelled": labelled}


def cards_folder(store: Store) -> Path:
    """Where a store keeps cards."""
    return store.root / CARDS


def standing(name: str, store: Store) -> Standing:
    """What is known of a verifier's card. Raises UserError for an unknown verifier."""
    from verifiers.certify import read_card
    from verifiers.registry import identity

    now = identity(name)
    renew = f"run `derive verifiers certify {name}`"
    try:
        card = read_card(name, cards_folder(store))
    except UserError as error:
        return Standing(name, None, str(error))
    if card is None:
        return Standing(name, None, f"has no card; {renew}")
    if not card.current(now):
        was = card.identity
        changed = f"version {was['version']}" if was["version"] != now["version"] else f"source {was['source'][:12]}"
        current = now["version"] if was["version"] != now["version"] else now["source"][:12]
        return Standing(name, card, f"has changed since its card was made ({changed}, now {current}); {renew}")
    if not card.certified:
        failed = "; ".join(f"{finding.check}: {finding.sentence}" for finding in card.failed[:2])
        said = failed or "not all checks were run"
        return Standing(name, card, f"failed its certificate ({said}); mend it and {renew}")
    return Standing(name, card)


def rewards_of(stage: RlStage) -> list[str]:
    """Verifiers whose verdicts are paid as right answers; none in a control."""
    return [] if stage.control is not None else [stage.verifier, *(reward.verifier for reward in stage.more_rewards)]


def cards_of(stage: Stage, store: Store) -> dict[str, dict[str, Any]]:
    """The cards of a stage's verifiers, for its ingredients; empty for a stage without rewards."""
    if not isinstance(stage, RlStage) or stage.control is not None:
        return {}
    second = [stage.audit.verifier] if stage.audit is not None else []
    return {name: standing(name, store).brief() for name in [*rewards_of(stage), *second]}


def uncertified(plan: Plan, store: Store) -> Iterator[tuple[PlannedStage, Standing]]:
    """Stages that are still to be run with a reward that no card certifies, allowed or not."""
    for planned in plan.stages:
        if isinstance(planned.stage, RlStage) and planned.artifact is None:
            for name in rewards_of(planned.stage):
                found = standing(name, store)
                if found.problem:
                    yield planned, found


def refuse_uncertified(plan: Plan, store: Store) -> None:
    """Raises UserError for the first reward that no card certifies, unless its stage allows that, and for a judge whose
    package is not installed: hours before it is asked."""
    for planned in plan.stages:
        lacking = missing_package(planned.stage)
        if lacking is not None and planned.artifact is None:
            raise UserError(f"{planned.stage.id}.judge: {lacking}")
    for planned, found in uncertified(plan, store):
        if not allows(planned.stage):
            raise UserError(refusal(planned.stage, found))


def missing_package(stage: Stage) -> str | None:
    """Why the judge of an evaluation cannot judge here, with the remedy; None where it can, and for other stages."""
    from verifiers import math_verify

    judged = isinstance(stage, EvaluateStage) and math_verify.MathVerifyVerifier.name in judges_of(stage)
    return math_verify.REMEDY if judged and math_verify.installed() == math_verify.NOT_INSTALLED else None


def allows(stage: Stage) -> bool:
    """Whether a stage may run with an uncertified reward."""
    return isinstance(stage, RlStage) and stage.allow_uncertified


def refusal(stage: Stage, found: Standing) -> str:
    """Why a stage may not run, and what to do."""
    return (
        f"{stage.id}.verifier: {found.name!r} gives the reward and {found.problem}, or set "
        f"{stage.id}.allow_uncertified=true to train on it as it is"
    )
