"""Group-relative advantages: how much better a completion is than the other completions of its prompt.

Source: GRPO, DeepSeekMath (arXiv:2402.03300), section 4.1.2. Without scaling by the standard deviation it is the
estimator of Dr. GRPO (arXiv:2503.20783). Departures: a completion without a reward (no verdict) takes no part, so the
mean and the standard deviation (of the population) are over the others of its group; a group whose rewards are all
equal gets 0 exactly, instead of a quotient of rounding errors.

Shape letters: P prompts, G completions per prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards_PG: Tensor, known_PG: Tensor, scale: bool) -> Tensor:
    """Advantages [P, G] in float64; 0 where the reward is not known or the group has no spread.

    Args:
        rewards_PG: One reward per completion; anything where it is not known.
        known_PG: Whether the completion has a reward.
        scale: Divide by the group's standard deviation.
    """
    rewards_PG = torch.where(known_PG, rewards_PG.double(), 0.0)
    num_known_P1 = known_PG.sum(dim=1, keepdim=True).clamp(min=1)
    mean_P1 = rewards_PG.sum(dim=1, keepdim=True) / num_known_P1
    centred_PG = torch.where(known_PG, rewards_PG - mean_P1, 0.0)
    spread_P1 = has_spread(rewards_PG, known_PG)[:, None]
    if scale:
        deviation_P1 = (centred_PG.square().sum(dim=1, keepdim=True) / num_known_P1).sqrt()
        centred_PG = centred_PG / torch.where(spread_P1, deviation_P1, 1.0)
    return torch.where(spread_P1, centred_PG, 0.0)


def has_spread(rewards_PG: Tensor, known_PG: Tensor) -> Tensor:
    """Whether a group's known rewards differ, bool [P]; compared as they are, without arithmetic."""
    infinity = float("inf")
    highest_P = torch.where(known_PG, rewards_PG, -infinity).amax(dim=1)
    lowest_P = torch.where(known_PG, rewards_PG, infinity).amin(dim=1)
    return highest_P > lowest_P
