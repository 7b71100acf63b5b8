"""What a policy loss sees of a packed row, and what every policy loss offers.

A policy loss is a module of this folder with

- `DEFAULT_CLIP`: the clip of its paper, used where the recipe names none;
- `advantages(rewards_PG, known_PG, scale)`: how good each completion was;
- `token_weight(length, limit)` and `divisor(lengths, limit)`: a step's loss is the sum over packed micro-batches of
  weighted token losses, divided once; the divisor is over all completions with a reward, also those with advantage 0;
- `token_losses(tokens, clip)`: the loss of each token before weights, [T];
- `ON_POLICY_ONLY`: whether it knows no ratio, and so allows one update per rollout batch.

`limit` is the recipe's `max_new_tokens`.

Shape letters: T tokens in the packed row, N completions in it, P prompts, G completions per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from derivatives.losses.clipping import Clip

__all__ = ["Clip", "PolicyTokens"]


@dataclass(frozen=True)
class PolicyTokens:
    """A packed row as a policy loss sees it.

    Attributes:
        log_probs_T: Under the policy that is trained, with gradient; FP32 nats.
        old_log_probs_T: Under the policy that the ratio is taken to; its own, detached, where it has not moved.
        advantages_T: Each token's completion's advantage.
        trained_T: Whether the token belongs to a completion, bool.
        completions_T: Number of the completion that the token belongs to, int64 in [0, N).
        num_completions: N.
    """

    log_probs_T: Tensor
    old_log_probs_T: Tensor
    advantages_T: Tensor
    trained_T: Tensor
    completions_T: Tensor
    num_completions: int

    def mean_over_completion(self, values_T: Tensor) -> Tensor:
        """At each token, the mean of `values_T` over the trained tokens of its completion, [T]; differentiable."""
        trained_T = self.trained_T.to(values_T.dtype)
        zeros_N = torch.zeros(self.num_completions, dtype=values_T.dtype, device=values_T.device)
        sums_N = zeros_N.index_add(0, self.completions_T, values_T * trained_T)
        counts_N = zeros_N.index_add(0, self.completions_T, trained_T)
        return (sums_N / counts_N.clamp(min=1))[self.completions_T]
