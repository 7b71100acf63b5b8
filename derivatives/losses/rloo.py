"""RLOO: REINFORCE on whole completions, with the mean reward of the group's others as the baseline.

Source: arXiv:2402.14740, section 3. No ratio and no clip: one update per rollout batch. The loss is summed over a
completion's tokens and averaged over completions. Departure: `scale_advantages` is ignored.

Shape letters: T tokens in the packed row, P prompts, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from derivatives.losses.advantages import group_advantages
from derivatives.losses.clipping import Clip
from derivatives.losses.policy import PolicyTokens

DEFAULT_CLIP = Clip(0.2, 0.2)
"""Only for the share of tokens outside of it that is reported; always 0 on policy."""
ON_POLICY_ONLY = True


def advantages(rewards_PG: Tensor, known_PG: Tensor, scale: bool) -> Tensor:
    """Reward minus the mean of the group's other known rewards, [P, G]; that is n / (n - 1) distances from the mean."""
    num_known_P1 = known_PG.sum(dim=1, keepdim=True)
    return group_advantages(rewards_PG, known_PG, scale=False) * num_known_P1 / (num_known_P1 - 1).clamp(min=1)


def token_weight(length: int, limit: int) -> float:
    """Weight of each token of a completion, whatever its length."""
    return 1.0


def divisor(lengths: Sequence[int], limit: int) -> float:
    """The number of completions."""
    return float(len(lengths))


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return -tokens.advantages_T * tokens.log_probs_T
