"""Truncated importance sampling: what a token counts that another engine drew than the one that is trained.

Two engines with the same weights give slightly different probabilities. The gradient of what the trainer would have
drawn is that of what was drawn, each token weighted by its probability under the trainer over that under the sampler.
The weight is cut from above, which bounds the variance at the price of a bias; it carries no gradient.

Source: E. Ionides, "Truncated importance sampling", Journal of Computational and Graphical Statistics 17(2), 2008; per
token between an inference engine and a trainer: F. Yao, L. Liu and others, "On the Rollout-Training Mismatch in Modern
RL Systems" (2025). The trainer's probability is that before the step's first update, so that the loss's own ratio, to
that policy, is left as it is. KL and entropy terms are not weighted, as in the source. A loss that is one for a whole
completion (GSPO) is so weighted by the mean of its tokens' weights.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_weights(old_log_probs_T: Tensor, sampled_log_probs_T: Tensor, cap: float) -> Tensor:
    """Weight of each token, in (0, cap], detached, [T].

    Args:
        old_log_probs_T: Under the trainer's policy before the step's first update; nats.
        sampled_log_probs_T: As the sampler recorded them.
        cap: Largest weight.
    """
    ratio_T = torch.exp(old_log_probs_T.detach() - sampled_log_probs_T)
    return ratio_T.clamp(max=cap)
