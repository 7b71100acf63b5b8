"""Dr. GRPO: no division by a completion's length, none by the group's deviation.

GRPO's two divisions favour short right and long wrong completions, and questions that are nearly always or never
solved. Here the sum over a completion's tokens is divided by a constant, the longest length that is allowed.

Source: arXiv:2503.20783, section 3. Departure: `scale_advantages` is ignored, since without scaling is what it is.

Shape letters: T tokens in the packed row, P prompts, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from derivatives.losses.advantages import group_advantages
from derivatives.losses.clipping import Clip, clipped_loss
from derivatives.losses.policy import PolicyTokens

DEFAULT_CLIP = Clip(0.2, 0.2)
ON_POLICY_ONLY = False


def advantages(rewards_PG: Tensor, known_PG: Tensor, scale: bool) -> Tensor:
    """Distances from the group's mean reward, [P, G]."""
    return group_advantages(rewards_PG, known_PG, scale=False)


def token_weight(length: int, limit: int) -> float:
    """Weight of each token of a completion, whatever its length."""
    return 1.0 / limit


def divisor(lengths: Sequence[int], limit: int) -> float:
    """The number of completions."""
    return float(len(lengths))


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return clipped_loss(tokens.log_probs_T, tokens.old_log_probs_T, tokens.advantages_T, clip)
