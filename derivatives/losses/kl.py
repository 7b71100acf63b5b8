"""Estimates of KL(policy || reference) from each drawn token, and what their gradients are worth.

With d = log policy - log reference of the drawn token: k1 = d is unbiased and noisy, k2 = d^2 / 2 is biased and never
negative, k3 = exp(-d) - 1 + d is unbiased and never negative.

As a loss they differ more than as a figure. The plain gradient of k1 is 0 in the mean, so a loss on it does nothing:
here k1 carries the gradient d * grad log policy, which on policy is that of the divergence itself (what subtracting it
from the reward would give). The plain gradient of k2 is the same. That of k3, GRPO's term, is that of the divergence
the other way round, only to first order the same.

Sources: J. Schulman, "Approximating KL divergence" (2020); DeepSeekMath (arXiv:2402.03300), equation 4, for k3 as a
loss. Each is exact only while the policy that drew is the one that is trained.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def divergence(log_probs_T: Tensor, reference_log_probs_T: Tensor, estimator: Estimator = "k3") -> Tensor:
    """Estimate at each token, FP32 [T] in nats, with a gradient that lowers the divergence where it is a loss."""
    difference_T = log_probs_T - reference_log_probs_T
    if estimator == "k1":
        distance_T = difference_T.detach()
        return distance_T + distance_T * (log_probs_T - log_probs_T.detach())
    if estimator == "k2":
        return difference_T.square() / 2
    return torch.expm1(-difference_T) + difference_T
