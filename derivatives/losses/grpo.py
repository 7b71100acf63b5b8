"""GRPO: the mean over completions of the mean over each completion's tokens.

Source: DeepSeekMath (arXiv:2402.03300), equation 3. Departures: the upper clip is wider than the lower one (DAPO's),
there is no KL term unless the recipe asks for one (`kl.py`), and a completion without a reward counts nowhere.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from derivatives.losses.advantages import group_advantages as advantages
from derivatives.losses.clipping import Clip, clipped_loss
from derivatives.losses.policy import PolicyTokens

__all__ = ["advantages"]

DEFAULT_CLIP = Clip(0.2, 0.28)
ON_POLICY_ONLY = False


def token_weight(length: int, limit: int) -> float:
    """Weight of each token of a completion of this many tokens."""
    return 1.0 / length


def divisor(lengths: Sequence[int], limit: int) -> float:
    """The number of completions."""
    return float(len(lengths))


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return clipped_loss(tokens.log_probs_T, tokens.old_log_probs_T, tokens.advantages_T, clip)
