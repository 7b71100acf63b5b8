"""DAPO: the mean over all tokens of the step, so that long completions weigh by their length.

Source: DAPO (arXiv:2503.14476), with the token-level loss of section 3.3 and the wider upper clip of section 3.1; its
overlong shaping (section 3.4) is the recipe's `truncated: shaped`. Departures: groups without spread are not drawn
again within the step (their tokens count in the divisor; the curriculum draws such prompts less often). As in the paper
there is no KL term.

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
    """Weight of each token of a completion, whatever its length."""
    return 1.0


def divisor(lengths: Sequence[int], limit: int) -> float:
    """The number of tokens of all completions with a reward."""
    return float(sum(lengths))


def token_losses(tokens: PolicyTokens, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return clipped_loss(tokens.log_probs_T, tokens.old_log_probs_T, tokens.advantages_T, clip)
