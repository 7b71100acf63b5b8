"""Causal attention over documents, padded to groups of one length, written for bf16 on few CPU cores.

A fused kernel works document by document and head by head. Here a block of queries, of all documents and of all heads
that share a key, is one batched matrix product with the keys up to its end: the scores of a block stay in the cache,
and what a causal mask would hide beyond the block is never computed. Forward and backward together are 4 times as fast
as the fused kernel at 100 tokens, 1.4 to 1.8 times from 400 to 2,048, and no slower at 4,096 (measured on 2 cores). The
shares of short documents are kept for the backward pass, those of longer ones made again, so that memory grows with
the tokens alone.

The documents of a group may all continue one other document of the row, the completions of a prompt, say: they see its
keys before their own, and their gradients are added to its.

Shape letters: P places of the padded row, N documents of a group, L tokens in each, S tokens that they continue, B
queries of a block, H query heads, K key-value heads, G query heads per key-value head, D head dimension, X = H + 2K.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK = 128
"""Queries of a block; 64 and 256 were no faster, on the whole."""
SHORT_DOCUMENT = 256
"""Longest document in tokens, with those that it continues, whose shares are kept: half of L * L numbers for each
head."""


class Group(NamedTuple):
    """Documents of one padded length that lie side by side, and what all of them continue."""

    number: int
    length: int
    seen_from: int = 0
    """Place in the padded row where the tokens begin that they continue."""
    seen: int = 0
    """How many those are."""


class DocumentAttention(torch.autograd.Function):
    """[P, X, D] queries, keys and values -> [P, H, D]; padding must stand at the ends of documents."""

    @staticmethod
    def forward(ctx: Any, qkv_PXD: Tensor, num_heads: int, scale: float, groups: tuple[Group, ...]) -> Tensor:
        dim, kv_heads = qkv_PXD.shape[2], (qkv_PXD.shape[1] - num_heads) // 2
        out_PHD = qkv_PXD.new_empty((len(qkv_PXD), num_heads, dim))
        saved: list[Tensor] = []
        start = 0
        for group in groups:
            places = slice(start, start + group.number * group.length)
            start = places.stop
            q, k, v = _parts(qkv_PXD, places, group, num_heads, kv_heads)
            mixed_NLHD = out_PHD[places].view(group.number, group.length, num_heads, dim)
            saved += (q, k, v, *_mix(q, k, v, mixed_NLHD, group, scale))
        ctx.save_for_backward(*saved)
        ctx.shape, ctx.num_heads, ctx.scale, ctx.groups = qkv_PXD.shape, num_heads, scale, groups
        return out_PHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (_, num_all, dim), num_heads = ctx.shape, ctx.num_heads
        kv_heads = (num_all - num_heads) // 2
        gradient_PXD = gradients[0].new_empty(ctx.shape)
        saved, start, continued = list(ctx.saved_tensors), 0, []
        for group in ctx.groups:
            places = slice(start, start + group.number * group.length)
            start = places.stop
            q, k, v, *kept = _taken(saved, 3 + (_num_blocks(group) if _keeps(group) else 0))
            grad_NLHD = gradients[0][places].view(group.number, group.length, num_heads, dim)
            own_NLXD = gradient_PXD[places].view(group.number, group.length, num_all, dim)
            both = _unmix(q, k, v, kept, grad_NLHD, own_NLXD, group, ctx.scale)
            if group.seen:
                kv_S2KD = torch.cat([_summed(part, group, kv_heads) for part in both], dim=1)
                continued.append((slice(group.seen_from, group.seen_from + group.seen), kv_S2KD))
        for places, kv_S2KD in continued:  # when every document has written its own
            gradient_PXD[places, num_heads:] += kv_S2KD
        return gradient_PXD, None, None, None


def _num_blocks(group: Group) -> int:
    return -(-group.length // BLOCK)


def _keeps(group: Group) -> bool:
    return group.seen + group.length <= SHORT_DOCUMENT


def _taken(tensors: list[Tensor], number: int) -> list[Tensor]:
    """The first of them, which are then gone from the list."""
    found = tensors[:number]
    del tensors[:number]
    return found


def _parts(qkv_PXD: Tensor, places: slice, group: Group, num_heads: int, kv_heads: int) -> tuple[Tensor, ...]:
    """Queries [N * K, G, L, D]; keys and values [N * K, S + L, D], those that are continued first."""
    own_NLXD = qkv_PXD[places].view(group.number, group.length, *qkv_PXD.shape[1:])
    q, *key_values = own_NLXD.split((num_heads, kv_heads, kv_heads), dim=2)
    q = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1).contiguous()
    found = []
    for number, part_NLKD in enumerate(key_values):
        whole = qkv_PXD.new_empty((group.number, kv_heads, group.seen + group.length, qkv_PXD.shape[2]))
        if group.seen:
            first = num_heads + number * kv_heads
            seen_SKD = qkv_PXD[group.seen_from : group.seen_from + group.seen, first : first + kv_heads]
            whole[:, :, : group.seen] = seen_SKD.transpose(0, 1)
        whole[:, :, group.seen :] = part_NLKD.transpose(1, 2)
        found.append(whole.flatten(0, 1))
    return q, *found


def _mix(q: Tensor, k: Tensor, v: Tensor, out_NLHD: Tensor, group: Group, scale: float) -> list[Tensor]:
    """Write the attention of a group; returns the shares to keep."""
    num, length, _, dim = out_NLHD.shape
    kv_heads = len(k) // num
    grouped = out_NLHD.unflatten(2, (kv_heads, -1))
    kept = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        shares = _shares(q, k, start, end, group.seen, scale)
        mixed = torch.bmm(shares, v[:, : group.seen + end]).view(num, kv_heads, -1, end - start, dim)
        grouped[:, start:end] = mixed.permute(0, 3, 1, 2, 4)
        if _keeps(group):
            kept.append(shares)
    return kept


def _unmix(
    q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor], grad_NLHD: Tensor, own_NLXD: Tensor, group: Group, scale: float
) -> tuple[Tensor, Tensor]:
    """Write the gradient of a group's own numbers; returns those of all keys and values that it sees."""
    num, length, num_heads, dim = grad_NLHD.shape
    kv_heads, seen = len(k) // num, group.seen
    grad_out = grad_NLHD.unflatten(2, (kv_heads, -1))
    q_part, k_part, v_part = own_NLXD.split((num_heads, kv_heads, kv_heads), dim=2)
    q_part = q_part.unflatten(2, (kv_heads, -1))
    sums = torch.promote_types(q.dtype, torch.float32)  # over the blocks of queries that a key meets
    grad_k, grad_v = (torch.zeros(k.shape, dtype=sums, device=q.device) for _ in range(2))
    for number, start in enumerate(range(0, length, BLOCK)):
        end = min(start + BLOCK, length)
        shares = kept[number] if kept else _shares(q, k, start, end, seen, scale)
        grad_mixed = grad_out[:, start:end].permute(0, 2, 3, 1, 4).reshape(len(q), -1, dim)
        grad_v[:, : seen + end] += torch.bmm(shares.transpose(1, 2), grad_mixed)
        grad_shares = torch.bmm(grad_mixed, v[:, : seen + end].transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
        grad_q = torch.bmm(grad_scores, k[:, : seen + end]).view(num, kv_heads, -1, end - start, dim)
        torch.mul(grad_q.permute(0, 3, 1, 2, 4), scale, out=q_part[:, start:end])
        queries = q[:, :, start:end].reshape(len(q), -1, dim)
        grad_k[:, : seen + end] += torch.bmm(grad_scores.transpose(1, 2), queries)
    grad_k.mul_(scale)
    for part_NLKD, total in ((k_part, grad_k), (v_part, grad_v)):
        part_NLKD.copy_(total[:, seen:].view(num, kv_heads, length, dim).transpose(1, 2))
    return grad_k, grad_v


def _summed(gradient: Tensor, group: Group, kv_heads: int) -> Tensor:
    """What all documents of a group add to the gradient of the keys, or values, that they continue: [S, K, D]."""
    return gradient.view(group.number, kv_heads, -1, gradient.shape[2])[:, :, : group.seen].sum(0).transpose(0, 1)


def _shares(q: Tensor, k: Tensor, start: int, end: int, seen: int, scale: float) -> Tensor:
    """What each of the queries from `start` to `end` takes of every key up to `end`: [N * K, G * B, S + `end`]."""
    queries = q[:, :, start:end]
    scores = torch.bmm(queries.flatten(1, 2), k[:, : seen + end].transpose(1, 2)).unflatten(1, queries.shape[1:3])
    future = torch.full((end - start, seen + end), float("-inf"), dtype=q.dtype, device=q.device).triu(1 + seen + start)
    return torch.add(future, scores, alpha=scale).softmax(-1).flatten(1, 2)
