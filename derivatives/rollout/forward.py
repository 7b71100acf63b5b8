"""Qwen2 by hand: a prefill of whole prompts and a decode step of one token per row, over a static key-value cache.

Both read the tensors of the given `Qwen2ForCausalLM`, so a trainer's in-place update is seen at once. `read_weights` is
called anew for each generation, so replaced tensors are seen too. Where many steps on a CPU are to come, it is asked
for copies of the layers, which are read faster (`packed_weights.py`); on a GPU there are none. A linear map with an
adapter is computed unmerged, as in training: merged, the weights would round otherwise than the trained policy.

Source: Qwen2 (arXiv:2407.10671) in the layout of Hugging Face; the logits are tested to equal its own. Departures: rows
start at column 0 of the cache, each at its own length; a norm rounds once instead of twice in bf16. Not covered:
sliding windows, quantised or sharded weights.

Shape letters: B rows (slots), T tokens of a prompt, L columns of the cache, H query heads, K key-value heads, D head
dimension, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2ForCausalLM

from configs.errors import UserError
from derivatives.rollout.packed_weights import Packed, decode_packed, pack_weights
from derivatives.training.lora import Adapter, adapter_of


class Linear(NamedTuple):
    """One linear map's own tensors, with those of its adapter if it has one."""

    weight: Tensor
    bias: Tensor | None
    adapter: Adapter | None


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer's own tensors."""

    input_norm: Tensor
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    mlp_norm: Tensor
    gate: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Weights:
    """A whole model's own tensors and the few numbers that the forward needs."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Tensor
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    packed: Packed | None = None
    """Copies of the layers for steps on a CPU."""

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device


def as_qwen2(model: PreTrainedModel) -> Qwen2ForCausalLM:
    """The model itself, if this forward computes it. Raises UserError if not."""
    if not isinstance(model, Qwen2ForCausalLM):
        raise UserError(f"model: {type(model).__name__} has no rollout engine; allowed: Qwen2ForCausalLM")
    config = model.config
    if "sliding_attention" in (config.layer_types or ()):
        raise UserError("model: its config asks for sliding_attention, which is not computed; turn it off there")
    if config.hidden_act != "silu":
        raise UserError(f"model: hidden_act {config.hidden_act!r} is not computed; allowed: silu")
    return model


def read_weights(model: Qwen2ForCausalLM, for_steps: bool = False) -> Weights:
    """References to the model's tensors as they are now; `for_steps`: with copies that make steps faster, if any do.

    A cache belongs to the weights that filled it: with copies, keys lie in another order.
    """
    config, decoder = model.config, model.model
    layers = tuple(
        LayerWeights(
            input_norm=layer.input_layernorm.weight,
            query=_linear_of(layer.self_attn.q_proj),
            key=_linear_of(layer.self_attn.k_proj),
            value=_linear_of(layer.self_attn.v_proj),
            output=_linear_of(layer.self_attn.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate=_linear_of(layer.mlp.gate_proj),
            up=_linear_of(layer.mlp.up_proj),
            down=_linear_of(layer.mlp.down_proj),
        )
        for layer in decoder.layers
    )
    weights = Weights(
        embedding=decoder.embed_tokens.weight,
        layers=layers,
        final_norm=decoder.norm.weight,
        head=model.lm_head.weight,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        norm_eps=config.rms_norm_eps,
    )
    return replace(weights, packed=pack_weights(weights)) if for_steps else weights


def _linear_of(module: nn.Module) -> Linear:
    # Of a map with an adapter, `weight` and `bias` are the frozen ones.
    return Linear(module.weight, module.bias, adapter_of(module))  # type: ignore[arg-type]


def rotary_table(model: Qwen2ForCausalLM, num_positions: int) -> Tensor:
    """Cosines and sines of the model's own rotary embedding (any scaling it has), `[L, 2, 1, D]` in its dtype."""
    weight = model.model.embed_tokens.weight
    positions = torch.arange(num_positions, device=weight.device)[None]
    cos, sin = model.model.rotary_emb(weight[:1], positions)
    return torch.stack((cos[0], sin[0]), dim=1)[:, :, None]


def prefill(weights: Weights, tokens_BT: Tensor, rotary: Tensor) -> Tensor:
    """Keys and values of right-padded prompts, `[layers, 2, B, K, T, D]`.

    Causal attention keeps the padding on the right out of every real token; its own columns are left for the caller
    to mask.
    """
    w, (num_rows, num_tokens) = weights, tokens_BT.shape
    cos, sin = rotary[:num_tokens, 0], rotary[:num_tokens, 1]
    cache = torch.empty(
        (len(w.layers), 2, num_rows, w.num_kv_heads, num_tokens, w.head_dim), dtype=w.dtype, device=w.device
    )
    repeats = w.num_heads // w.num_kv_heads
    x = F.embedding(tokens_BT, w.embedding)
    for layer, kept in zip(w.layers, cache, strict=True):
        normed = _norm(x, layer.input_norm, w.norm_eps)
        query, key, value = _heads(w, layer, normed, cos, sin)
        kept[0], kept[1] = key.transpose(1, 2), value.transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            kept[0].repeat_interleave(repeats, dim=1),
            kept[1].repeat_interleave(repeats, dim=1),
            is_causal=True,
        )
        x = _after_attention(w, layer, x, mixed.transpose(1, 2).flatten(2))
        if w.packed is not None:
            kept[0] = kept[0][..., w.packed.order_D]
    return cache


def decode_step(weights: Weights, tokens_B: Tensor, positions_B: Tensor, cache: Tensor, rotary: Tensor) -> Tensor:
    """Feed one token per row; returns raw logits `[B, V]`.

    Args:
        weights: The model's tensors.
        tokens_B: The token of each row, int64.
        positions_B: Its position, which is also its column in the cache, int64, below L.
        cache: `[layers, 2, B, K, L, D]`; written at `positions_B`, read up to it. L bounds the work.
        rotary: `[at least L, 2, 1, D]`.
    """
    if weights.packed is not None:
        return decode_packed(weights, weights.packed, tokens_B, positions_B, cache, rotary)
    w, num_rows, num_columns = weights, len(tokens_B), cache.shape[4]
    angles = rotary.index_select(0, positions_B)
    cos, sin = angles[:, 0], angles[:, 1]
    rows = torch.arange(num_rows, device=tokens_B.device)
    hidden = torch.arange(num_columns, device=tokens_B.device) > positions_B[:, None]
    mask = torch.zeros(hidden.shape, dtype=w.dtype, device=w.device).masked_fill_(hidden, float("-inf"))[:, None, None]
    attend = _attend_by_products if w.device.type == "cpu" else F.scaled_dot_product_attention
    x = F.embedding(tokens_B, w.embedding)
    for layer, (keys, values) in zip(w.layers, cache.unbind(0), strict=True):
        normed = _norm(x, layer.input_norm, w.norm_eps)
        query, key, value = _heads(w, layer, normed, cos, sin)
        keys[rows, :, positions_B] = key
        values[rows, :, positions_B] = value
        # The heads of a group share keys and mask, so they are the rows of one query block: no repeated cache.
        grouped = query.reshape(num_rows, w.num_kv_heads, -1, w.head_dim)
        mixed = attend(grouped, keys, values, mask)
        x = _after_attention(w, layer, x, mixed.reshape(num_rows, -1))
    return F.linear(_norm(x, w.final_norm, w.norm_eps), w.head)


def _attend_by_products(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of a few queries as two batched products; `scaled_dot_product_attention` is half as fast here on CPU.

    Args:
        query: `[B, K, H / K, D]`.
        keys, values: `[B, K, L, D]`.
        mask: Added to the scores, `[B, 1, 1, L]`.
    """
    num_rows, num_kv_heads, num_queries, head_dim = query.shape
    scores = torch.bmm(keys.flatten(0, 1), query.flatten(0, 1).transpose(1, 2) * head_dim**-0.5)
    scores = scores.view(num_rows, num_kv_heads, -1, num_queries).transpose(2, 3) + mask
    return torch.bmm(scores.softmax(dim=-1).flatten(0, 1), values.flatten(0, 1)).view(query.shape)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _heads(w: Weights, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, `[..., heads, D]`; cos and sin broadcast as `[..., 1, D]`."""
    projected = torch.cat((_apply(layer.query, x), _apply(layer.key, x)), dim=-1)
    both = projected.unflatten(-1, (-1, w.head_dim))
    first, second = both.chunk(2, dim=-1)
    both = both * cos + torch.cat((-second, first), dim=-1) * sin
    value = _apply(layer.value, x).unflatten(-1, (-1, w.head_dim))
    return both[..., : w.num_heads, :], both[..., w.num_heads :, :], value


def _after_attention(w: Weights, layer: LayerWeights, x: Tensor, mixed: Tensor) -> Tensor:
    x = x + _apply(layer.output, mixed)
    normed = _norm(x, layer.mlp_norm, w.norm_eps)
    return x + _apply(layer.down, F.silu(_apply(layer.gate, normed)) * _apply(layer.up, normed))


def _apply(linear: Linear, x: Tensor) -> Tensor:
    result = F.linear(x, linear.weight, linear.bias)
    if linear.adapter is None:
        return result
    first, second, scale = linear.adapter
    return result + F.linear(F.linear(x, first), second) * scale
