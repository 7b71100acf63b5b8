"""What another verifier would have changed in a stage: the rewards of its steps and the advantages of its groups.

Only the stage's own verifier is replaced; those of `more_rewards`, cut completions and what nearing the limit costs
stay as they were. The advantages are those of the stage's own loss. A completion without a reward by one of the two
takes no part in that one's mean, as in training.

What this does not do: it trains nothing. From the second step on another reward would have led to other completions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from configs.settings.reinforcement import RlStage, SampleStage
from configs.stage import load_stage_file
from derivatives.evaluation.agreement import Agreement
from derivatives.losses.advantages import has_spread
from derivatives.rollout.policy_update import LOSSES
from derivatives.rollout.stored import Stored, StoredRollouts
from verifiers.api import Verdict
from verifiers.pool import VerifierPool

GROUP_CHANGES = ("gains spread", "loses spread", "a sign changes", "only the size changes", "stays")
"""What becomes of a group: without spread it gives no gradient; a sign turns a completion from taught to untaught."""


@dataclass(frozen=True)
class StepChange:
    """One step under both verifiers.

    Attributes:
        step: Its number.
        pairs: Every completion that a verifier had judged, with the other's verdict, in order.
        rewards: Mean reward under the first and under the second; None where no completion has one.
        groups: How many groups went through each of `GROUP_CHANGES`; empty for a sample stage, which has no advantages.
        labels: Agreement of the step.
    """

    step: int
    pairs: Sequence[tuple[Stored, Verdict]]
    rewards: tuple[float | None, float | None]
    groups: Counter[str]
    labels: Agreement = field(default_factory=Agreement)


def changed_steps(
    stored: StoredRollouts, verifier: str, num_workers: int = 2, first: int = 1, last: int | None = None
) -> Iterator[StepChange]:
    """Each kept step, judged again by another verifier.

    Raises:
        UserError: An unknown verifier, a damaged step, or a stage whose settings cannot be read.
    """
    stage = load_stage_file(stored.folder.parent / "stage.json").stage
    assert isinstance(stage, (RlStage, SampleStage))
    with VerifierPool(num_workers, verifier=verifier) as pool:
        for step in stored.steps:
            if step >= first and (last is None or step <= last):
                yield _change(step, stored.step(step), stage, pool)


def _change(step: int, completions: list[Stored], stage: RlStage | SampleStage, pool: VerifierPool) -> StepChange:
    asked = [one for one in completions if one.judged.asked]
    verdicts = pool.judge([(one.task, one.judged.completion.text) for one in asked])
    again = {(one.group, one.sample): verdict for one, verdict in zip(asked, verdicts, strict=True)}
    labels = Agreement()
    for one, verdict in zip(asked, verdicts, strict=True):
        labels.note(one.judged.verdict, verdict)
    before = [one.reward for one in completions]
    after = [reward_under(one, again.get((one.group, one.sample)), stage) for one in completions]
    groups: Counter[str] = Counter()
    if isinstance(stage, RlStage):
        groups.update(group_changes(_by_group(completions, before), _by_group(completions, after), stage))
    return StepChange(step, list(zip(asked, verdicts, strict=True)), (_mean(before), _mean(after)), groups, labels)


def reward_under(one: Stored, verdict: Verdict | None, stage: RlStage | SampleStage) -> float | None:
    """A completion's reward with another verdict in the place of the stage's own; as it was, where that is None."""
    if verdict is None:
        return one.reward
    judged = replace(one.judged, verdict=verdict)
    if judged.missing:
        return None
    if isinstance(stage, SampleStage):
        return verdict.score
    weights = [reward.weight for reward in stage.more_rewards]
    if stage.truncated != "shaped":
        return judged.reward(weights, stage.partial_credit)
    if one.reward is None:  # what nearing the limit cost was not kept
        return None
    cost = one.reward - one.judged.reward(weights, stage.partial_credit)
    return judged.reward(weights, stage.partial_credit) + cost


def group_changes(
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]], stage: RlStage
) -> list[str]:
    """For each group one of `GROUP_CHANGES`: what becomes of its advantages. Rewards by group, None where unknown."""
    loss = LOSSES[stage.loss]
    spread, advantages = [], []
    for rewards in (before, after):
        known_PG = torch.tensor([[one is not None for one in group] for group in rewards])
        rewards_PG = torch.tensor([[one or 0.0 for one in group] for group in rewards], dtype=torch.float64)
        spread.append(has_spread(rewards_PG, known_PG).tolist())
        advantages.append(loss.advantages(rewards_PG, known_PG, stage.scale_advantages))
    signs = (advantages[0].sign() != advantages[1].sign()).any(dim=1).tolist()
    sizes = ((advantages[0] - advantages[1]).abs() > 1e-9).any(dim=1).tolist()
    return [
        "gains spread" if now and not was else "loses spread" if was and not now else "a sign changes" if sign
        else "only the size changes" if size else "stays"
        for was, now, sign, size in zip(*spread, signs, sizes, strict=True)
    ]  # fmt: skip


def _by_group(completions: Sequence[Stored], rewards: Sequence[float | None]) -> list[list[float | None]]:
    groups: dict[int, list[float | None]] = {}
    for one, reward in zip(completions, rewards, strict=True):
        groups.setdefault(one.group, []).append(reward)
    return list(groups.values())


def _mean(rewards: Sequence[float | None]) -> float | None:
    known = [one for one in rewards if one is not None]
    return sum(known) / len(known) if known else None
