"""The seedling's training forward: a Qwen2 decoder written for speed on few CPU cores.

Parameters are fp32 masters; every matrix product runs in bf16 on casts of them. Attention is plain causal
over whole rows. The equality of its logits with `Qwen2ForCausalLM` is tested, and `export` writes that
layout.

Sources: Qwen2.5 (arXiv:2412.15115) for the architecture. Departure: documents of one row see one another.

Shape letters: B rows, T tokens in a row, V vocabulary, H heads, D head dimension.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

INIT_STD = 0.02
QUERY_BLOCK = 128  # Queries at a time in attention: above the diagonal, less is computed in vain.
COMPUTE_DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Shape:
    """Sizes of a seedling; the defaults are the shipped one."""

    vocab_size: int = 2048
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 512
    max_position: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6


def rope_tables(shape: Shape, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[T, D]` in the half-rotation layout of Hugging Face's Qwen2."""
    frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim)
    angles_TD = torch.outer(torch.arange(num_tokens, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles_TD.cos(), angles_TD.sin()


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864), half-rotation layout."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos_TD + torch.cat((-second, first), dim=-1) * sin_TD


def causal_attention(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
    """Causal softmax attention in blocks of queries; faster on CPU than torch's fused one on short rows."""
    num_tokens, q_BHTD = q_BHTD.shape[2], q_BHTD * q_BHTD.shape[3] ** -0.5
    future_TT = torch.full((num_tokens, num_tokens), float("-inf"), device=q_BHTD.device).triu(1)
    mixed = []
    for start in range(0, num_tokens, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, num_tokens)
        scores = q_BHTD[:, :, start:end] @ k_BHTD[:, :, :end].transpose(-1, -2)
        weights = torch.softmax(scores.float() + future_TT[start:end, :end], dim=-1)
        mixed.append(weights.to(v_BHTD.dtype) @ v_BHTD[:, :, :end])
    return torch.cat(mixed, dim=2)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


class Projection(nn.Linear):
    """A linear map with fp32 masters that multiplies in its input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        q_dim, kv_dim = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = Projection(shape.hidden_size, q_dim, bias=True)
        self.k_proj = Projection(shape.hidden_size, kv_dim, bias=True)
        self.v_proj = Projection(shape.hidden_size, kv_dim, bias=True)
        self.o_proj = Projection(q_dim, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        shape = self.shape
        q, k, v = (
            projection(x).unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos_TD, sin_TD), rotate(k, cos_TD, sin_TD)
        repeats = shape.num_heads // shape.num_kv_heads
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        mixed = causal_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = Projection(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = Projection(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = Projection(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = GatedMLP(shape)

    def forward(self, x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos_TD, sin_TD)
        return x + self.mlp(self.post_attention_layernorm(x))


class Seedling(nn.Module):
    """Parameter names are those of `Qwen2Model`, so that `state_dict` needs only the prefix `model.`."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, ids_BT: Tensor, dtype: torch.dtype = COMPUTE_DTYPE) -> Tensor:
        """Logits `[B, T, V]` in `dtype`."""
        embeddings = self.embed_tokens.weight.to(dtype)
        cos_TD, sin_TD = (table.to(dtype) for table in rope_tables(self.shape, ids_BT.shape[1]))
        x = F.embedding(ids_BT, embeddings)
        for layer in self.layers:
            x = layer(x, cos_TD, sin_TD)
        return F.linear(self.norm(x), embeddings)

    def loss(self, ids_BT: Tensor) -> Tensor:
        """Mean next-token cross-entropy in nats over rows of T + 1 tokens."""
        logits = self(ids_BT[:, :-1]).float()
        return F.cross_entropy(logits.flatten(0, 1), ids_BT[:, 1:].flatten())


def hugging_face_model(model: Seedling, end_id: int) -> Qwen2ForCausalLM:
    """The same network as `Qwen2ForCausalLM`, in fp32."""
    shape = model.shape
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,  # type: ignore[call-arg]
        max_position_embeddings=shape.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=end_id,
        eos_token_id=end_id,
        pad_token_id=end_id,
        dtype="bfloat16",
    )
    exported = Qwen2ForCausalLM(config)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    missing, unexpected = exported.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    exported.tie_weights()
    return exported


def export(model: Seedling, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model (in bf16), generation settings and tokenizer in Hugging Face layout."""
    exported = hugging_face_model(model, tokenizer.eos_token_id).bfloat16()
    exported.generation_config = GenerationConfig(
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=256,
        do_sample=False,
    )
    exported.save_pretrained(folder)
    for key in ("is_local", "local_files_only"):  # Says where it was loaded from, not what it is.
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)
