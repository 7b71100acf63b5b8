"""GSPO: one ratio for the whole completion, the geometric mean of its tokens' ratios, clipped as one.

Source: Qwen's Group Sequence Policy Optimization (arXiv:2507.18071), equations 5 to 7; the clips, three and four ten
thousandths, are those of its section 5.1. They are so small because the mean over a completion moves so little.

Every token of a completion has the completion's loss; with GRPO's weights their weighted sum is that loss once, and
its gradient reaches each token with the same weight, as in the paper's equation 10.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derivatives.losses.clipping import Clip, clipped_loss
from derivatives.losses.grpo import advantages, divisor, token_weight
from derivatives.losses.policy import PolicyTokens

__all__ = ["advantages", "divisor", "token_weight"]

DEFAULT_CLIP = Clip(3e-4, 4e-4)
ON_POLICY_ONLY = False


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """At each token, the loss of its completion before weights, [T]."""
    log_ratio_T = tokens.mean_over_completion(tokens.log_probs_T - tokens.old_log_probs_T)
    return clipped_loss(log_ratio_T, torch.zeros_like(log_ratio_T), tokens.advantages_T, clip)
