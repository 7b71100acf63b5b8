"""DAPO: the mean over all tokens of the step, so that long completions weigh by their length.

Source: DAPO (arXiv:2503.14476), with the token-level loss of section 3.3 and the wider upper clip of section 3.1.
Departures: groups without spread are not drawn again within the step (their tokens count in the divisor; the curriculum
draws such prompts less often); overlong completions are masked or scored 0, not shaped. As in the paper there is no KL
term.

Shape letters: T tokens in the packed row.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from derivatives.losses.clipping import Clip, clipped_loss


def token_weight(length: int) -> float:
    """Weight of each token of a completion, whatever its length."""
    return 1.0


def divisor(lengths: Sequence[int]) -> float:
    """What the weighted sum over the step is divided by: the number of tokens of all completions with a reward."""
    return float(sum(lengths))


def token_losses(log_probs_T: Tensor, old_log_probs_T: Tensor, advantages_T: Tensor, clip: Clip) -> Tensor:
    """Loss of each token before weights, [T]."""
    return clipped_loss(log_probs_T, old_log_probs_T, advantages_T, clip)
