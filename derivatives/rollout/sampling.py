"""From logits to the next tokens and their log-probabilities.

The log-probability is that of the very distribution which was drawn from: after temperature, top-k, min-p, top-p and
with padding ids of the vocabulary removed. A greedy choice is reported with its log-probability at temperature 1.

Shape letters: B rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.settings.common import Sampling

_BLOCK = 64
"""Columns summed at once when the cumulative distribution is searched: two short scans instead of a long one."""
_BELOW_ONE = 1.0 - 1e-12
"""Keeps the searched value below the total, so that a token of probability 0 is never found."""


def next_tokens(
    logits_BV: Tensor, uniforms_B: Tensor, sampling: Sampling, num_real_tokens: int
) -> tuple[Tensor, Tensor]:
    """Draw one token per row.

    Args:
        logits_BV: Raw logits, any float type.
        uniforms_B: One float64 in [0, 1) per row; greedy sampling does not read them.
        sampling: Temperature 0 is greedy.
        num_real_tokens: Ids from here on are padding of the vocabulary and have probability 0.

    Returns:
        Tokens (int64) and their log-probabilities (float32), both [B].
    """
    logits_BV = logits_BV.float()
    if num_real_tokens < logits_BV.shape[1]:
        logits_BV[:, num_real_tokens:] = float("-inf")
    if sampling.temperature == 0.0:
        tokens_B = logits_BV.argmax(dim=-1)
    else:
        if sampling.temperature != 1.0:
            logits_BV = logits_BV / sampling.temperature
        logits_BV = _near_the_best(_most_likely(logits_BV, sampling.top_k), sampling.min_p)
        logits_BV = _nucleus(logits_BV, sampling.top_p)
    log_probs_BV = torch.log_softmax(logits_BV, dim=-1)
    if sampling.temperature != 0.0:
        tokens_B = _search(log_probs_BV.exp(), uniforms_B)
    return tokens_B, log_probs_BV.gather(1, tokens_B[:, None]).squeeze(1)


def _most_likely(logits_BV: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` largest logits of each row; 0 keeps all."""
    if top_k == 0 or top_k >= logits_BV.shape[1]:
        return logits_BV
    kept = logits_BV.topk(top_k, dim=-1)
    return torch.full_like(logits_BV, float("-inf")).scatter(1, kept.indices, kept.values)


def _near_the_best(logits_BV: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least `min_p` times as likely as the most likely one (arXiv:2407.01082); 0 keeps all."""
    if min_p == 0.0:
        return logits_BV
    lowest_B1 = logits_BV.amax(dim=-1, keepdim=True) + math.log(min_p)
    return logits_BV.masked_fill(logits_BV < lowest_B1, float("-inf"))


def _nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p` (arXiv:1904.09751)."""
    if top_p >= 1.0:
        return logits_BV
    ordered = logits_BV.sort(dim=-1, descending=True, stable=True)
    probabilities_BV = ordered.values.softmax(dim=-1)
    before_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV
    before_BV[:, 0] = 0.0  # the most likely token is always kept, whatever the rounding
    values_BV = ordered.values.masked_fill(before_BV >= top_p, float("-inf"))
    return torch.empty_like(logits_BV).scatter(1, ordered.indices, values_BV)


def _search(probabilities_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """First token whose cumulative probability exceeds the uniform number (inverse of the distribution function)."""
    missing = -probabilities_BV.shape[1] % _BLOCK
    if missing:
        probabilities_BV = F.pad(probabilities_BV, (0, missing))
    blocks = probabilities_BV.view(len(probabilities_BV), -1, _BLOCK)
    upto_block = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    target_B1 = uniforms_B[:, None] * upto_block[:, -1:] * _BELOW_ONE
    block_B1 = torch.searchsorted(upto_block, target_B1, right=True)
    before_B1 = upto_block.gather(1, (block_B1 - 1).clamp(min=0)).masked_fill(block_B1 == 0, 0.0)
    inside = blocks.gather(1, block_B1[:, :, None].expand(-1, 1, _BLOCK)).squeeze(1)
    upto_token = inside.cumsum(dim=-1, dtype=torch.float64)
    rest_B1 = torch.minimum(target_B1 - before_B1, upto_token[:, -1:] * _BELOW_ONE)
    return (block_B1 * _BLOCK + torch.searchsorted(upto_token, rest_B1, right=True)).squeeze(1)
