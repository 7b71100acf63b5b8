"""Causal attention over many short documents of one length, written for bf16 on few CPU cores.

A fused kernel works document by document and head by head, which for documents of a hundred tokens is four times slower
(measured on 2 cores, forward and backward) than one batched matrix product over all of them. The scores are held in
full, [N, H, L, L] in bf16, which is why longer documents go to the fused kernel (`attention.py`).

Shape letters: N documents, L tokens in each, H query heads, K key-value heads, G query heads per key-value head,
D head dimension, X = H + 2K.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHORT_DOCUMENT = 256
"""Longest document in tokens: 4 times as fast at 100, no faster at 512, where the fused kernel holds no scores."""


class ShortAttention(torch.autograd.Function):
    """[N, L, X, D] queries, keys and values -> [N, L, H, D]; padding must stand at the ends of documents."""

    @staticmethod
    def forward(ctx: Any, qkv_NLXD: Tensor, num_heads: int, scale: float) -> Tensor:
        num, length, num_all, dim = qkv_NLXD.shape
        kv_heads = (num_all - num_heads) // 2
        q, k, v = _split(qkv_NLXD, num_heads, kv_heads)
        future = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(num * kv_heads, -1, length, length)
        shares = torch.add(future, scores, alpha=scale).softmax(-1).view(num * kv_heads, -1, length)
        ctx.save_for_backward(q, k, v, shares)
        ctx.num_heads, ctx.scale, ctx.shape = num_heads, scale, qkv_NLXD.shape
        mixed = torch.bmm(shares, v).view(num, kv_heads, -1, length, dim)
        return mixed.permute(0, 3, 1, 2, 4).reshape(num, length, num_heads, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, shares = ctx.saved_tensors
        num, length, num_all, dim = ctx.shape
        num_heads = ctx.num_heads
        kv_heads = (num_all - num_heads) // 2
        grad_out = _by_head(gradients[0], kv_heads)
        grad_v = torch.bmm(shares.transpose(1, 2), grad_out)
        grad_shares = torch.bmm(grad_out, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
        grad_q = torch.bmm(grad_scores, k)
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q)
        gradient = torch.empty(ctx.shape, dtype=q.dtype, device=q.device)
        q_part, k_part, v_part = gradient.split((num_heads, kv_heads, kv_heads), dim=2)
        grouped = grad_q.view(num, kv_heads, -1, length, dim).permute(0, 3, 1, 2, 4)
        torch.mul(grouped, ctx.scale, out=q_part.unflatten(2, (kv_heads, -1)))
        torch.mul(grad_k.view(num, kv_heads, length, dim).transpose(1, 2), ctx.scale, out=k_part)
        v_part.copy_(grad_v.view(num, kv_heads, length, dim).transpose(1, 2))
        return gradient, None, None


def _by_head(x_NLHD: Tensor, kv_heads: int) -> Tensor:
    """[N, L, H, D] -> [N * K, G * L, D], contiguous."""
    num, length, num_heads, dim = x_NLHD.shape
    grouped = x_NLHD.view(num, length, kv_heads, num_heads // kv_heads, dim).permute(0, 2, 3, 1, 4)
    return grouped.reshape(num * kv_heads, -1, dim)


def _split(qkv_NLXD: Tensor, num_heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv_NLXD.split((num_heads, kv_heads, kv_heads), dim=2)
    return _by_head(q, kv_heads), _by_head(k, kv_heads), _by_head(v, kv_heads)
