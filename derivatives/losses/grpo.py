"""GRPO: the mean over completions of the mean over each completion's tokens.

Source: DeepSeekMath (arXiv:2402.03300), equation 3; the k3 estimator of the KL divergence is its equation 4.
Departures: the upper clip may be wider than the lower one (DAPO's), and a completion without a reward counts nowhere.

A step's loss is a sum over packed micro-batches, divided once: each token weighs `token_weight(length)`, and the
divisor is `divisor(lengths)` over all completions with a reward, those with advantage 0 included.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from derivatives.losses.clipping import Clip, clipped_loss


def token_weight(length: int) -> float:
    """Weight of each token of a completion of this many tokens."""
    return 1.0 / length


def divisor(lengths: Sequence[int]) -> float:
    """What the weighted sum over the step is divided by: the number of completions."""
    return float(len(lengths))


def token_losses(log_probs_T: Tensor, old_log_probs_T: Tensor, advantages_T: Tensor, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return clipped_loss(log_probs_T, old_log_probs_T, advantages_T, clip)


def k3_divergence(log_probs_T: Tensor, reference_log_probs_T: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from each drawn token, [T]; never negative."""
    difference_T = reference_log_probs_T - log_probs_T
    return torch.expm1(difference_T) - difference_T
