"""Next-token losses from hidden states and the head's weight, without ever holding [tokens, vocabulary].

The head is applied to a chunk of tokens at a time. `chunked_cross_entropy` works out its gradients in the forward pass,
where a chunk's probabilities are at hand; `chunked_log_probs` keeps one number per token and makes the logits
again in the backward pass, because the gradient that comes in is per token. Logits are products in the working
precision, taken to FP32 at once; sums are FP32. Tokens without weight or target are left out before the product.

Sources: the idea is that of Cut Your Losses (arXiv:2411.09009) and Liger Kernel (arXiv:2410.10989), without kernels.

Shape letters: T tokens, D hidden size, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 2**21
"""FP32 logits worked on at a time on CPU, where they should stay in cache (8 MB)."""
MIN_CHUNK_TOKENS = 256
"""With fewer tokens the head is read from memory more often than it is used."""
CUDA_CHUNK_TOKENS = 1024
"""Enough to fill a GPU; 0.6 GB of FP32 logits at Qwen2.5's vocabulary."""
KEPT_BYTES, MAX_CHUNK_TOKENS = 2**27, 1024
"""Logits of a chunk in the working precision that `chunked_cross_entropy` keeps between its two readings."""
MIN_BLOCK = 512
"""Fewest ids of a block of the vocabulary."""
MIN_LOG_PROB = -1e4
"""Stands for minus infinity where it meets a probability of 0; e to it is 0 in FP32."""


def chunked_cross_entropy(
    hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor, num_real_tokens: int | None = None
) -> Tensor:
    """Weighted sum of negative log-likelihoods in nats, an FP32 scalar.

    Args:
        hidden_TD: Hidden states, in the working precision.
        head_VD: Output projection, in the same precision.
        targets_T: int64 ids of the next tokens; read only where the weight is not 0.
        weights_T: FP32 weight of each token.
        num_real_tokens: Leave ids from here on out of the softmax; None takes the whole vocabulary.
    """
    active_A = weights_T.nonzero().squeeze(1)
    return _CrossEntropy.apply(
        hidden_TD.index_select(0, active_A), head_VD, targets_T[active_A], weights_T[active_A].float(), num_real_tokens
    )


def chunked_log_probs(
    hidden_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    temperature: float = 1.0,
    num_real_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats, FP32 [T]; both differentiable.

    Args:
        hidden_TD: Hidden states, in the working precision.
        head_VD: Output projection, in the same precision.
        targets_T: int64 ids of the next tokens; where negative, both results are 0 and nothing is computed.
        temperature: Divides the logits, as the sampler did.
        num_real_tokens: Ids from here on have probability 0, as the sampler never draws them; None takes all.
    """
    active_A = (targets_T >= 0).nonzero().squeeze(1)
    log_probs_A, entropy_A = _LogProbs.apply(
        hidden_TD.index_select(0, active_A), head_VD, targets_T[active_A], temperature, num_real_tokens
    )
    empty_T = torch.zeros(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
    return empty_T.index_copy(0, active_A, log_probs_A), empty_T.index_copy(0, active_A, entropy_A)


def chunks(num_tokens: int, head_VD: Tensor) -> Iterator[slice]:
    """Slices of tokens whose logits are held at a time."""
    size = CUDA_CHUNK_TOKENS if head_VD.is_cuda else max(MIN_CHUNK_TOKENS, CHUNK_LOGITS // len(head_VD))
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


def _logits(hidden_CD: Tensor, head_VD: Tensor, num_real_tokens: int | None) -> Tensor:
    logits_CV = (hidden_CD @ head_VD.t()).float()
    if num_real_tokens is not None and num_real_tokens < len(head_VD):
        logits_CV[:, num_real_tokens:] = float("-inf")
    return logits_CV


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor, num_real_tokens: int | None
    ) -> Tensor:
        needs = ctx.needs_input_grad
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs[0] else None
        grad_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if needs[1] else None
        head_RD = head_VD[:num_real_tokens]
        total = _loss_with_gradients(hidden_TD, head_RD, targets_T, weights_T, grad_hidden_TD, grad_head_VD)
        ctx.save_for_backward(grad_hidden_TD, None if grad_head_VD is None else grad_head_VD.to(head_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden_TD, grad_head_VD = (None if kept is None else kept * gradients[0] for kept in ctx.saved_tensors)
        return grad_hidden_TD, grad_head_VD, None, None, None


def _loss_with_gradients(
    hidden_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    weights_T: Tensor,
    grad_hidden_TD: Tensor | None,
    grad_head_VD: Tensor | None,
) -> Tensor:
    """The loss; its gradients go into the last two.

    Logits of a chunk of tokens are made once, kept in the working precision, and read twice, a block of the vocabulary
    at a time: for the normaliser, then for the gradient. On CPU what is FP32 stays in the cache.

    Shape letter: B ids of a block.
    """
    total = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
    chunk = _chunk_tokens(len(hidden_TD), head_VD)
    blocks = _blocks(chunk, head_VD)
    kept = hidden_TD.new_empty(chunk * len(head_VD))  # once, as fresh memory costs as much as what is done in it
    floats = torch.empty(chunk * (blocks[0].stop - blocks[0].start), dtype=torch.float32, device=kept.device)
    for start in range(0, len(hidden_TD), chunk):
        part = slice(start, min(start + chunk, len(hidden_TD)))
        hidden_CD, weights_C1 = hidden_TD[part], weights_T[part, None]
        logits = [_piece(kept, len(hidden_CD), block) for block in blocks]
        sums = []
        for block, logits_CB in zip(blocks, logits, strict=True):
            torch.mm(hidden_CD, head_VD[block].t(), out=logits_CB)
            floats_CB = _piece(floats, len(hidden_CD), block, first=True).copy_(logits_CB)
            largest_C1 = floats_CB.amax(1, keepdim=True)
            sums.append(floats_CB.sub_(largest_C1).exp_().sum(1, keepdim=True).log_().add_(largest_C1))
        log_sum_C1 = torch.cat(sums, dim=1).logsumexp(1, keepdim=True)
        losses_C1 = log_sum_C1.clone()
        summed_CD = None if grad_hidden_TD is None else torch.zeros_like(hidden_CD, dtype=torch.float32)
        places = _places(targets_T[part], blocks)
        for block, logits_CB, (rows, columns) in zip(blocks, logits, places, strict=True):
            losses_C1[rows, 0] -= logits_CB[rows, columns].float()
            if summed_CD is None and grad_head_VD is None:
                continue
            floats_CB = _piece(floats, len(hidden_CD), block, first=True).copy_(logits_CB)
            floats_CB.sub_(log_sum_C1).exp_().mul_(weights_C1)
            floats_CB[rows, columns] -= weights_C1[rows, 0]
            logits_CB.copy_(floats_CB)  # from here on their gradient
            if summed_CD is not None:
                summed_CD += logits_CB @ head_VD[block]
            if grad_head_VD is not None:
                grad_head_VD[block] += logits_CB.t() @ hidden_CD
        total += (losses_C1 * weights_C1).sum()
        if grad_hidden_TD is not None and summed_CD is not None:
            grad_hidden_TD[part] = summed_CD
    return total


def _chunk_tokens(num_tokens: int, head_VD: Tensor) -> int:
    """Tokens whose logits are kept at a time in the working precision."""
    fitting = KEPT_BYTES // (len(head_VD) * head_VD.element_size())
    return max(1, min(num_tokens, max(MIN_CHUNK_TOKENS, min(fitting, MAX_CHUNK_TOKENS))))


def _blocks(num_tokens: int, head_VD: Tensor) -> list[slice]:
    """Slices of the vocabulary: all of it on a GPU, else as many ids as keep a block of logits in the cache."""
    size = len(head_VD) if head_VD.is_cuda else max(MIN_BLOCK, CHUNK_LOGITS // num_tokens)
    return [slice(start, min(start + size, len(head_VD))) for start in range(0, len(head_VD), size)]


def _piece(buffer: Tensor, num_tokens: int, block: slice, first: bool = False) -> Tensor:
    """Contiguous place of a block of logits in a buffer for all blocks, or for one (`first`)."""
    start = 0 if first else num_tokens * block.start
    return buffer[start : start + num_tokens * (block.stop - block.start)].view(num_tokens, -1)


def _places(targets_C: Tensor, blocks: list[slice]) -> list[tuple[Tensor, Tensor]]:
    """For each block the tokens whose target lies in it, and the target's column there."""
    if len(blocks) == 1:
        return [(torch.arange(len(targets_C), device=targets_C.device), targets_C)]
    sorted_C, order_C = targets_C.sort()
    ends = torch.searchsorted(sorted_C, torch.tensor([block.stop for block in blocks])).tolist()
    return [(order_C[start:end], sorted_C[start:end] - block.start)
            for block, start, end in zip(blocks, [0, *ends[:-1]], ends, strict=True)]  # fmt: skip


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, temperature: float, num_real_tokens: int | None
    ) -> tuple[Tensor, Tensor]:
        log_probs_T = torch.empty(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
        entropy_T, log_sum_T = torch.empty_like(log_probs_T), torch.empty_like(log_probs_T)
        for part in chunks(len(hidden_TD), head_VD):
            logits_CV = _logits(hidden_TD[part], head_VD, num_real_tokens).div_(temperature)
            log_sum_T[part] = logits_CV.logsumexp(1)
            log_probs_T[part] = logits_CV.gather(1, targets_T[part, None]).squeeze(1) - log_sum_T[part]
            entropy_T[part] = _entropy(logits_CV.sub_(log_sum_T[part, None]))
        ctx.save_for_backward(hidden_TD, head_VD, targets_T, log_sum_T, entropy_T)
        ctx.temperature, ctx.num_real_tokens = temperature, num_real_tokens
        return log_probs_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_TD, head_VD, targets_T, log_sum_T, entropy_T = ctx.saved_tensors
        grad_log_prob_T, grad_entropy_T = gradients
        wants_entropy = bool(grad_entropy_T.any())
        grad_hidden_TD = torch.empty_like(hidden_TD) if ctx.needs_input_grad[0] else None
        grad_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in chunks(len(hidden_TD), head_VD):
            log_probs_CV = _logits(hidden_TD[part], head_VD, ctx.num_real_tokens).div_(ctx.temperature)
            log_probs_CV.sub_(log_sum_T[part, None])
            probs_CV = log_probs_CV.exp()
            # d log p(target) / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
            factor_CV = -grad_log_prob_T[part, None]
            if wants_entropy:
                inner_CV = log_probs_CV.clamp_(min=MIN_LOG_PROB).add_(entropy_T[part, None])
                factor_CV = factor_CV - inner_CV.mul_(grad_entropy_T[part, None])
            grad_CV = probs_CV.mul_(factor_CV).scatter_add_(1, targets_T[part, None], grad_log_prob_T[part, None])
            grad_logits_CV = grad_CV.div_(ctx.temperature).to(head_VD.dtype)
            if grad_hidden_TD is not None:
                torch.mm(grad_logits_CV, head_VD, out=grad_hidden_TD[part])
            if grad_head_VD is not None:
                grad_head_VD += grad_logits_CV.t() @ hidden_TD[part]
        return grad_hidden_TD, None if grad_head_VD is None else grad_head_VD.to(head_VD.dtype), None, None, None


def _entropy(log_probs_CV: Tensor) -> Tensor:
    """Entropy [C] in nats; a probability of 0 adds nothing."""
    return -(log_probs_CV.exp() * log_probs_CV.clamp(min=MIN_LOG_PROB)).sum(1)
