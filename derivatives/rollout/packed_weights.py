"""A decoder's weights laid out for many steps of one token per row on a CPU: copies, made for one generation.

A product with few rows reads every weight once; oneDNN first brings them into its own order, each time, unless they
lie in it already. Here each linear map is brought into that order once; the maps of queries, keys and values are one.
The activation, the gate's product and the sums with the residual stream are done in the product before its result is
rounded, so a step rounds less often than the trainer's pass; what it computes is the same.

The two halves of a head that a rotation turns together are laid side by side, so that a rotation is one product of
complex numbers. Queries and keys are laid out alike, so scores do not change; a cache that these weights fill holds
keys in that order (`Packed.order_D`).

Copies cost the bytes of the layers, and of a small head, for as long as a generation lasts. They are made only where
they pay: on a CPU, up to `MAX_BYTES`, without adapters, if this build of torch has the operations (they are private
ones of its compiler, `mkldnn::_linear_pointwise`) and they give what they should.

Shape letters: as in `forward.py`; O outputs and I inputs of a linear map.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from derivatives.rollout.forward import LayerWeights, Linear, Weights

NUM_ROWS = 64
"""Rows for which the order is chosen; it fits others nearly as well."""
MAX_BYTES = 2**30
"""Larger layers are not copied; reading them takes most of a step's time in any order."""
MAX_HEAD_BYTES = 2**24
"""A larger head is read where it is: its copy would be most of the memory, and gain a tenth."""


@dataclass(frozen=True)
class PackedLayer:
    """One layer's maps, each [rows, I] -> [rows, O]."""

    input_norm: Tensor
    mlp_norm: Tensor
    query_key_value: Callable[[Tensor], Tensor]
    output: Callable[[Tensor, Tensor], Tensor]
    """Of a tensor and what is added to the result."""
    gate: Callable[[Tensor], Tensor]
    """With the activation."""
    up: Callable[[Tensor, Tensor], Tensor]
    """Of a tensor and what the result is multiplied by."""
    down: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Packed:
    """All layers, and the order in which the numbers of a head lie in queries and keys."""

    layers: tuple[PackedLayer, ...]
    head: Callable[[Tensor], Tensor]
    order_D: Tensor


def pack_weights(weights: Weights) -> Packed | None:
    """Copies of a model's layers for this generation; None where they would not be used or not be right."""
    linears = [getattr(layer, name) for layer in weights.layers for name in ("query", "key", "value", "output")]
    linears += [getattr(layer, name) for layer in weights.layers for name in ("gate", "up", "down")]
    if weights.device.type != "cpu" or any(linear.adapter is not None for linear in linears):
        return None
    if sum(linear.weight.nbytes for linear in linears) > MAX_BYTES or not _works(weights.dtype):
        return None
    half = torch.arange(weights.head_dim // 2)
    order_D = torch.stack((half, half + weights.head_dim // 2), dim=1).flatten()
    small = weights.head.nbytes <= MAX_HEAD_BYTES
    head = _product(weights.head, None) if small else functools.partial(F.linear, weight=weights.head)
    return Packed(tuple(_pack_layer(layer, order_D) for layer in weights.layers), head, order_D)


def _pack_layer(layer: LayerWeights, order_D: Tensor) -> PackedLayer:
    turned = [_reordered(linear, order_D) for linear in (layer.query, layer.key)]
    joined = [*turned, (layer.value.weight, layer.value.bias)]
    biases = [bias if bias is not None else weight.new_zeros(len(weight)) for weight, bias in joined]
    bias = torch.cat(biases) if any(bias is not None for _, bias in joined) else None
    return PackedLayer(
        input_norm=layer.input_norm,
        mlp_norm=layer.mlp_norm,
        query_key_value=_product(torch.cat([weight for weight, _ in joined]), bias),
        output=_product_with(layer.output.weight, layer.output.bias, "add"),
        gate=_product(layer.gate.weight, layer.gate.bias, "swish"),
        up=_product_with(layer.up.weight, layer.up.bias, "mul"),
        down=_product_with(layer.down.weight, layer.down.bias, "add"),
    )


def _reordered(linear: Linear, order_D: Tensor) -> tuple[Tensor, Tensor | None]:
    """A map whose heads' outputs are in this order."""
    weight = linear.weight.unflatten(0, (-1, len(order_D)))[:, order_D].flatten(0, 1)
    bias = None if linear.bias is None else linear.bias.unflatten(0, (-1, len(order_D)))[:, order_D].flatten()
    return weight, bias


def _product(weight_OI: Tensor, bias: Tensor | None, after: str = "none") -> Callable[[Tensor], Tensor]:
    packed, run = _packed(weight_OI), torch.ops.mkldnn._linear_pointwise.default
    return lambda x: run(x, packed, bias, after, [], "")  # type: ignore[no-any-return]


def _product_with(weight_OI: Tensor, bias: Tensor | None, how: str) -> Callable[[Tensor, Tensor], Tensor]:
    packed, run = _packed(weight_OI), torch.ops.mkldnn._linear_pointwise.binary
    return lambda x, other: run(x, other, packed, bias, how)  # type: ignore[no-any-return]


def _packed(weight_OI: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous(), NUM_ROWS)


@functools.cache
def _works(dtype: torch.dtype) -> bool:
    """Whether this build has the operations for a type of weights, and they compute what their names say."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    draw = torch.Generator().manual_seed(0)
    shapes = (3, 8), (16, 8), (16,), (3, 16)
    x, weight, bias, other = (torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    plain = F.linear(x.float(), weight.float(), bias.float())
    try:
        found = [
            _product(weight, bias)(x),
            _product(weight, bias, "swish")(x),
            _product_with(weight, bias, "add")(x, other),
            _product_with(weight, bias, "mul")(x, other),
        ]
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False
    expected = [plain, F.silu(plain), plain + other.float(), plain * other.float()]
    return all(torch.allclose(one.float(), two, rtol=2e-2, atol=2e-2) for one, two in zip(found, expected, strict=True))


def decode_packed(
    weights: Weights, packed: Packed, tokens_B: Tensor, positions_B: Tensor, cache: Tensor, rotary: Tensor
) -> Tensor:
    """`forward.decode_step` with packed weights: raw logits `[B, V]`. The cache holds keys in the order of `packed`."""
    num_rows, num_columns, dim = len(tokens_B), cache.shape[4], weights.head_dim
    num_queries, num_both = weights.num_heads, weights.num_heads + weights.num_kv_heads
    groups = num_queries // weights.num_kv_heads
    scale, eps = dim**-0.5, weights.norm_eps
    angles = rotary.index_select(0, positions_B)[:, :, 0, : dim // 2].float()
    turns = torch.complex(angles[:, 0], angles[:, 1])[:, None]  # [B, 1, D / 2]
    hidden = torch.arange(num_columns) > positions_B[:, None]
    mask = torch.zeros(hidden.shape, dtype=weights.dtype).masked_fill_(hidden, float("-inf"))[:, None]  # [B, 1, L]
    if weights.num_kv_heads > 1:
        mask = mask.repeat_interleave(weights.num_kv_heads, dim=0)
    # Places of each row's heads, were the cache of a layer [B * K * L, D].
    rows_BK = torch.arange(num_rows * weights.num_kv_heads).view(num_rows, -1)
    places = (rows_BK * num_columns + positions_B[:, None]).flatten()
    x = F.embedding(tokens_B, weights.embedding)
    for layer, both in zip(packed.layers, cache.unbind(0), strict=True):
        keys, values = both[0].flatten(0, 1), both[1].flatten(0, 1)  # [B * K, L, D]
        normed = F.rms_norm(x, layer.input_norm.shape, layer.input_norm, eps)
        heads = layer.query_key_value(normed).view(num_rows, -1, dim)
        pairs = torch.view_as_complex(heads[:, :num_both].float().unflatten(2, (-1, 2)))
        turned = torch.view_as_real(pairs * turns).flatten(2).to(weights.dtype)
        keys.view(-1, dim).index_copy_(0, places, turned[:, num_queries:].reshape(-1, dim))
        values.view(-1, dim).index_copy_(0, places, heads[:, num_both:].reshape(-1, dim))
        queries = turned[:, :num_queries].reshape(-1, groups, dim)
        scores = torch.add(mask, torch.bmm(queries, keys.transpose(1, 2)), alpha=scale)
        mixed = torch.bmm(scores.softmax(-1), values).view(num_rows, -1)
        x = layer.output(mixed, x)
        normed = F.rms_norm(x, layer.mlp_norm.shape, layer.mlp_norm, eps)
        x = layer.down(layer.up(normed, layer.gate(normed)), x)
    return packed.head(F.rms_norm(x, weights.final_norm.shape, weights.final_norm, eps))
