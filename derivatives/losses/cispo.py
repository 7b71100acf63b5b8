"""CISPO: REINFORCE weighted by a clipped ratio that carries no gradient, so that no token ever loses its own.

The other losses drop the gradient of a token whose ratio leaves the clip, often just the rare tokens at which a
completion turns. Here they keep it, with a bounded weight. The mean is over all tokens, as in DAPO.

Source: MiniMax-M1 (arXiv:2506.13585), equation 4 and 5. The paper sets no lower bound and does not state the upper one;
ours, a ratio of at most 5, is from the range that ScaleRL (arXiv:2510.13786) found to make no difference.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derivatives.losses.clipping import Clip
from derivatives.losses.dapo import advantages, divisor, token_weight
from derivatives.losses.policy import PolicyTokens

__all__ = ["advantages", "divisor", "token_weight"]

DEFAULT_CLIP = Clip(1.0, 4.0)
ON_POLICY_ONLY = False


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    ratio_T = torch.exp(tokens.log_probs_T.detach() - tokens.old_log_probs_T)
    return -ratio_T.clamp(1.0 - clip.low, 1.0 + clip.high) * tokens.advantages_T * tokens.log_probs_T
