"""Next-token losses from hidden states and the head's weight, without ever holding [tokens, vocabulary].

The head is applied to a chunk of tokens at a time. `chunked_cross_entropy` works out its gradients in the forward pass,
where a chunk's probabilities are at hand; `chunked_log_probs` keeps one number per token and makes the logits again in
the backward pass, because the gradient that comes in is per token; it holds those of one block of ids at a time. Logits
are products in the working precision, taken to FP32 at once; sums are FP32. Tokens without weight or target are left
out before the product.

Sources: the idea is that of Cut Your Losses (arXiv:2411.09009) and Liger Kernel (arXiv:2410.10989), without kernels.

Shape letters: T tokens, D hidden size, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        head_RD = head_VD[:num_real_tokens]
        log_probs_T = torch.empty(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
        entropy_T, log_sum_T = torch.empty_like(log_probs_T), torch.empty_like(log_probs_T)
        parts, blocks, logits = _pieces(hidden_TD, head_RD, temperature)
        for part in parts:
            target_C, *sums = _read_once((logits(part, block) for block in blocks), _places(targets_T[part], blocks))
            largest_CN, sum_CN, weighted_CN = (torch.stack(one, dim=1) for one in sums)
            log_sum_C1 = (largest_CN + sum_CN.log()).logsumexp(1, keepdim=True)
            log_sum_T[part] = log_sum_C1.squeeze(1)
            log_probs_T[part] = target_C - log_sum_T[part]
            # Entropy is the mean of log_sum - logit; a block's share of it is of one sign, so nothing cancels.
            distance_CN = sum_CN * (log_sum_C1 - largest_CN) - weighted_CN
            entropy_T[part] = ((largest_CN - log_sum_C1).exp() * distance_CN).sum(1)
        ctx.save_for_backward(hidden_TD, head_VD, targets_T, log_sum_T, entropy_T)
        ctx.temperature, ctx.num_real_tokens = temperature, num_real_tokens
        return log_probs_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_TD, head_VD, targets_T, log_sum_T, entropy_T = ctx.saved_tensors
        grad_log_prob_T, grad_entropy_T = gradients[0] / ctx.temperature, gradients[1] / ctx.temperature
        wants_entropy = bool(grad_entropy_T.any())
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        summed_TD = torch.zeros_like(hidden_TD, dtype=torch.float32) if wants_hidden else None
        grad_head_VD = torch.zeros_like(head_VD) if wants_head else None
        parts, blocks, logits = _pieces(hidden_TD, head_VD[: ctx.num_real_tokens], ctx.temperature)
        places = [_places(targets_T[part], blocks) for part in parts]
        for number, block in enumerate(blocks):  # and its tokens inside, so that only a block's sum is in FP32
            summed_BD = torch.zeros_like(head_VD[block], dtype=torch.float32)
            for part, places_of in zip(parts, places, strict=True):
                rows, columns = places_of[number]
                grad_log_prob_C1 = grad_log_prob_T[part, None]
                # d log p(target) / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
                log_probs_CB = logits(part, block).sub_(log_sum_T[part, None])
                if wants_entropy:
                    inner_CB = (log_probs_CB + entropy_T[part, None]).mul_(grad_entropy_T[part, None])
                    grad_CB = log_probs_CB.exp_().mul_(inner_CB.add_(grad_log_prob_C1).neg_())
                else:
                    grad_CB = log_probs_CB.exp_().mul_(-grad_log_prob_C1)
                grad_CB[rows, columns] += grad_log_prob_C1[rows, 0]
                grad_logits_CB = grad_CB.to(head_VD.dtype)
                if summed_TD is not None:
                    summed_TD[part] += grad_logits_CB @ head_VD[block]
                if wants_head:
                    summed_BD += grad_logits_CB.t() @ hidden_TD[part]
            if grad_head_VD is not None:
                grad_head_VD[block] = summed_BD
        return None if summed_TD is None else summed_TD.to(hidden_TD.dtype), grad_head_VD, None, None, None


def _pieces(
    hidden_TD: Tensor, head_RD: Tensor, temperature: float
) -> tuple[list[slice], list[slice], Callable[[slice, slice], Tensor]]:
    """Chunks of tokens, blocks of the vocabulary, and what gives the FP32 logits of both, valid until the next call."""
    chunk = CUDA_CHUNK_TOKENS if head_RD.is_cuda else MAX_CHUNK_TOKENS
    chunk = max(1, min(chunk, len(hidden_TD)))
    parts = [slice(start, min(start + chunk, len(hidden_TD))) for start in range(0, len(hidden_TD), chunk)]
    blocks = _blocks(chunk, head_RD)
    size = chunk * max(block.stop - block.start for block in blocks)
    rounded = hidden_TD.new_empty(size)  # once, as fresh memory costs as much as what is done in it
    floats = torch.empty(size, dtype=torch.float32, device=hidden_TD.device)

    def logits(part: slice, block: slice) -> Tensor:
        rounded_CB = _piece(rounded, part.stop - part.start, block, first=True)
        torch.mm(hidden_TD[part], head_RD[block].t(), out=rounded_CB)
        exact_CB = _piece(floats, part.stop - part.start, block, first=True).copy_(rounded_CB)
        return exact_CB if temperature == 1.0 else exact_CB.div_(temperature)

    return parts, blocks, logits


def _read_once(
    logits: Iterator[Tensor], places: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """The targets' logits; for each block the largest logit, the sum of e^(logit - largest), and the sum of that times
    (logit - largest)."""
    target_C = torch.empty(sum(len(rows) for rows, _ in places), dtype=torch.float32, device=places[0][0].device)
    largest, sums, weighted = [], [], []
    for logits_CB, (rows, columns) in zip(logits, places, strict=True):
        target_C[rows] = logits_CB[rows, columns]
        largest_C1 = logits_CB.amax(1, keepdim=True)
        exponents_CB = logits_CB.sub_(largest_C1).exp()
        largest.append(largest_C1.squeeze(1))
        sums.append(exponents_CB.sum(1))
        weighted.append(exponents_CB.mul_(logits_CB).sum(1))
    return target_C, largest, sums, weighted
