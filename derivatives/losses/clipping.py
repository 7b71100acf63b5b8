"""The clipped objective that GRPO and DAPO share, per token.

Source: PPO (arXiv:1707.06347), equation 7; separate lower and upper clips are DAPO's (arXiv:2503.14476, section 3.1).

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Bounds of the probability ratio: 1 - low to 1 + high."""

    low: float
    high: float


def clipped_loss(log_probs_T: Tensor, old_log_probs_T: Tensor, advantages_T: Tensor, clip: Clip) -> Tensor:
    """Loss of each token, [T]: minus the smaller of the plain and the clipped objective.

    `old_log_probs_T` are those of the policy that the ratio is taken to; with the policy's own, detached, the ratio is
    exactly 1 and the gradient is that of REINFORCE.
    """
    ratio_T = torch.exp(log_probs_T - old_log_probs_T)
    clipped_T = ratio_T.clamp(1.0 - clip.low, 1.0 + clip.high)
    return -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)
