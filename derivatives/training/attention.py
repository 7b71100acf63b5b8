"""Causal attention over packed documents that never see one another, by the best means that a machine has.

The same mathematics in all: a flash-attn package (`flash.py`) that is installed and fits the GPU, else torch's own
`varlen_attn` on CUDA, else per-document attention that needs no special kernel (CPU, and FP32 on any device). The last
one puts documents of similar length side by side with little padding at their ends, where a causal mask hides it, so
that many short documents cost a few large operations; a dense mask over the packed row is never built. It alone can
have documents continue another one, as the completions of a group continue their prompt, which the row then holds once.

All are reached through `packed_attention`, and through transformers under `REGISTERED_NAME`, when the forward pass is
given `packing=`. A forward pass must also be given `use_cache=False` (`forward.hidden_states` does), because a cache
would make one sequence of the packed row. `leak_probe` proves on the loaded model that no document reaches another.

Sources: FlashAttention-2 (arXiv:2307.08691); torch.nn.attention.varlen. Not done: sliding windows (refused), dropout.

Shape letters: T tokens in the packed row, P tokens with padding, N documents in a group, L longest of them, H query
heads, K key-value heads, G query heads per key-value head, D head dimension, X = H + 2K.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import flash_attention_mask

from configs.errors import UserError
from derivatives.training import flash
from derivatives.training.document_attention import SHORT_DOCUMENT, DocumentAttention, Group

REGISTERED_NAME = "packed_documents"
"""Without the word that makes transformers look for a hub kernel."""
METHODS = (*flash.NAMES, "varlen", "documents")
MIN_CU_SEQLENS = 64
"""Fused kernels get `cu_seqlens` of this length, or of a power of two above it, so that little ever recompiles."""
MAX_PADDING = 0.2
"""A group ends where the next document is shorter than its longest by more than this share (measured on 2 cores with
documents of 60 to 120 tokens: fewer, larger operations win over the last bits of padding)."""


@dataclass(frozen=True)
class Packing:
    """How documents lie in a packed row, worked out once per batch and read by every layer.

    Attributes:
        cu_seqlens: int32 starts of documents, then the end of the last (for fused kernels many times, as documents of
            no tokens); the one object is given for queries and for keys.
        max_length: Tokens of the longest document.
        method: One of `METHODS`.
        groups: For `documents`: how many documents of which padded length, and what they continue.
        slots_T: For `documents`: place of each token in the padded layout, or None where nothing is padded or moved.
    """

    cu_seqlens: Tensor
    max_length: int
    method: str
    groups: tuple[Group, ...]
    slots_T: Tensor | None


def choose(device: str | torch.device, dtype: torch.dtype = torch.bfloat16, head_dim: int = 128) -> str:
    """Name of the best method for a device, a working precision and a head dimension."""
    if torch.device(device).type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "documents"
    major = torch.cuda.get_device_capability(device)[0] if torch.cuda.is_available() else 0
    return flash.best(major, head_dim) or "varlen"


def set_method(model: PreTrainedModel, method: str) -> None:
    """Choose the method of a model's packed attention."""
    if method not in METHODS:
        raise ValueError(f"attention method {method!r} is unknown; allowed: {', '.join(METHODS)}")
    model.packed_attention_method = method  # type: ignore[assignment]


def method_of(model: PreTrainedModel) -> str:
    """The chosen method of a model, or the best one for where its weights are."""
    chosen = getattr(model, "packed_attention_method", None)
    return chosen if isinstance(chosen, str) else choose(model.device, model.dtype, head_dim_of(model))


def head_dim_of(model: PreTrainedModel) -> int:
    """Dimension of one attention head."""
    config = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def plan(lengths: Sequence[int], cu_seqlens: Tensor, method: str, parents: Sequence[int] = ()) -> Packing:
    """The packing of documents of these lengths, in their order in the row.

    `parents` holds for each document the number of the one that it continues, -1 for none (which continues none
    itself); only for the method `documents`. None given: there are none.
    """
    parents = parents or [-1] * len(lengths)
    if method != "documents":
        assert max(parents) < 0
        num = len(cu_seqlens)
        padding = max(MIN_CU_SEQLENS, 1 << (num - 1).bit_length()) - num
        return Packing(F.pad(cu_seqlens, (0, padding), value=sum(lengths)), max(lengths), method, (), None)
    order = sorted(range(len(lengths)), key=lambda index: (parents[index], -lengths[index]))
    groups: list[list[int]] = []
    for index in order:
        first = groups[-1][0] if groups else index
        if groups and parents[index] == parents[first] and lengths[index] >= (1 - MAX_PADDING) * lengths[first]:
            groups[-1].append(index)
        else:
            groups.append([index])
    starts = torch.tensor((0, *lengths)).cumsum(0).tolist()
    slots_T = torch.empty(starts[-1], dtype=torch.int64)
    offset = 0
    sizes: list[Group] = []
    place_of: dict[int, int] = {}
    for group in groups:
        longest, parent = lengths[group[0]], parents[group[0]]
        sizes.append(Group(len(group), longest, *((place_of[parent], lengths[parent]) if parent >= 0 else ())))
        for index in group:
            place_of[index] = offset
            slots_T[starts[index] : starts[index + 1]] = torch.arange(offset, offset + lengths[index])
            offset += longest
    moved = offset != len(slots_T) or not torch.equal(slots_T, torch.arange(offset))
    return Packing(cu_seqlens, max(lengths), method, tuple(sizes), slots_T.to(cu_seqlens.device) if moved else None)


def packed_attention(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Packing, scale: float) -> Tensor:
    """Causal attention inside each document, [T, H, D], of rotated queries and keys; `scale` multiplies the scores."""
    if packing.method == "documents":
        return _attend_by_document(torch.cat((q_THD, k_TKD, v_TKD), dim=1), q_THD.shape[1], packing, scale)
    ends, longest = packing.cu_seqlens, packing.max_length
    q, k, v = (part.contiguous() for part in (q_THD, k_TKD, v_TKD))
    if packing.method != "varlen":
        return flash.attend(packing.method, q, k, v, ends, longest, scale)
    options: dict[str, Any] = {"window_size": (-1, 0), "scale": scale}
    if q.shape[1] != k.shape[1]:
        if _names_gqa(varlen_attn):
            options["enable_gqa"] = True
        else:
            k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    out_THD = varlen_attn(q, k, v, ends, ends, longest, longest, **options)
    assert isinstance(out_THD, Tensor)  # no auxiliary output was asked for
    return out_THD


@functools.cache
def _names_gqa(function: Callable[..., Any]) -> bool:
    """torch 2.12 and later want grouped queries to be named; 2.11 has no such option."""
    return "enable_gqa" in inspect.signature(function).parameters


class _Pad(torch.autograd.Function):
    """Tokens to their places in the padded layout; `_Unpad` is its inverse. No two tokens share a place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots_T: Tensor, num_places: int) -> Tensor:
        ctx.save_for_backward(slots_T)
        return x.new_zeros((num_places, *x.shape[1:])).index_copy_(0, slots_T, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slots_T,) = ctx.saved_tensors
        return gradients[0].index_select(0, slots_T), None, None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slots_T: Tensor) -> Tensor:
        ctx.save_for_backward(slots_T)
        ctx.num_places = len(x)
        return x.index_select(0, slots_T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slots_T,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.new_zeros((ctx.num_places, *gradient.shape[1:])).index_copy_(0, slots_T, gradient), None


def _attend_by_document(qkv_TXD: Tensor, num_heads: int, packing: Packing, scale: float) -> Tensor:
    sizes = [group.number * group.length for group in packing.groups]
    padded_PXD = qkv_TXD if packing.slots_T is None else _Pad.apply(qkv_TXD, packing.slots_T, sum(sizes))
    is_cpu_bf16 = qkv_TXD.dtype == torch.bfloat16 and qkv_TXD.device.type == "cpu"
    if is_cpu_bf16 or any(group.seen for group in packing.groups):
        out_PHD = DocumentAttention.apply(padded_PXD, num_heads, scale, packing.groups)
    else:
        parts = []
        for part, group in zip(padded_PXD.split(sizes), packing.groups, strict=True):
            part_NLXD = part.unflatten(0, (group.number, group.length))
            parts.append(_attend_group(part_NLXD, num_heads, scale).flatten(0, 1))
        out_PHD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out_PHD if packing.slots_T is None else _Unpad.apply(out_PHD, packing.slots_T)


def _attend_group(qkv_NLXD: Tensor, num_heads: int, scale: float) -> Tensor:
    """Causal attention over documents of one (padded) length: [N, L, H, D]."""
    num_kv_heads = (qkv_NLXD.shape[2] - num_heads) // 2
    q, k, v = (part.transpose(1, 2) for part in qkv_NLXD.split((num_heads, num_kv_heads, num_kv_heads), dim=2))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=num_heads != num_kv_heads)
    return mixed.transpose(1, 2)


def _registered_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; query [1, H, T, D], key and value [1, K, T, D]; returns [1, T, H, D]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    packing: Packing | None = given.get("packing")
    if packing is not None:
        q_THD, k_TKD, v_TKD = (part[0].transpose(0, 1) for part in (query, key, value))
        return packed_attention(q_THD, k_TKD, v_TKD, packing, scale)[None], None
    num_queries, num_keys = query.shape[2], key.shape[2]
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
    if attention_mask is not None:
        mask = mask & attention_mask[:, None, None, :num_keys].bool()
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed.transpose(1, 2), None


AttentionInterface.register(REGISTERED_NAME, _registered_attention)
AttentionMaskInterface.register(REGISTERED_NAME, flash_attention_mask)


PROBE_LENGTHS = ((5, 17, 1, 15, 17, 2), (SHORT_DOCUMENT + 1, 2))
"""Documents of the leak probe's rows: a single token, equals, one that is padded; and one too long to count as short.
The long one is most of the probe's time, so it lies in a row that few passes are needed for."""


PROBE_TREES = ((5, 4, 7, 4), (9, 3, 3))
"""Documents of the probe's row of trees: what is shared, then the tokens of each branch after its last token."""


def leak_probe(model: PreTrainedModel) -> float:
    """Largest trace of one document in another, over hidden states and gradients; 0.0 when there is none.

    Infinite where a number is NaN.

    Changes every token of half of a row's documents; the other half must give the same hidden states, and its outputs
    must have no gradient at the changed ones. Each pair is told apart in both directions (`probe_halves`). That the
    other half's own gradients are the same too is checked on CPU only: fused CUDA kernels sum them in no fixed order.
    """
    rows = [_probe_row(model, _Probe(lengths)) for lengths in PROBE_LENGTHS]
    if method_of(model) == "documents":
        rows.append(_probe_row(model, _Probe.of_trees(PROBE_TREES)))
    return max(rows)


@dataclass(frozen=True)
class _Probe:
    """A packed row of documents of these lengths, each with the one that it continues, or -1."""

    lengths: tuple[int, ...]
    parents: tuple[int, ...] = ()

    @staticmethod
    def of_trees(trees: Sequence[Sequence[int]]) -> _Probe:
        """What is shared by each tree's branches, then all branches."""
        shared = [lengths[0] for lengths in trees]
        branches = [(length, number) for number, lengths in enumerate(trees) for length in lengths[1:]]
        lengths = (*shared, *(length for length, _ in branches))
        return _Probe(lengths, (*[-1] * len(shared), *(parent for _, parent in branches)))

    def passes(self) -> list[tuple[set[int], set[int], set[int]]]:
        """For each pass the documents that are changed; those that this may reach, which are they and what continues
        them; and those whose gradients it may reach, which are these and what they continue.

        Documents that continue others change by halves; what they continue, one at a time.
        """
        parents = self.parents or (-1,) * len(self.lengths)
        outer = [number for number, parent in enumerate(parents) if parent < 0]
        branches = [number for number, parent in enumerate(parents) if parent >= 0]
        halves = [set(itertools.compress(branches or outer, half)) for half in probe_halves(len(branches or outer))]
        found = []
        for changed in [*halves, *({number} for number in outer if branches)]:
            reached = changed | {number for number in branches if parents[number] in changed}
            found.append((changed, reached, reached | {parents[number] for number in reached}))
        return found

    def tokens(self, documents: set[int]) -> Tensor:
        """Whether each token is of one of these, bool [T]."""
        chosen = torch.tensor([number in documents for number in range(len(self.lengths))])
        return chosen.repeat_interleave(torch.tensor(self.lengths))


def probe_halves(num_documents: int) -> list[list[bool]]:
    """Which documents each pass changes: the fewest passes in which each changes at least once while each other stays.

    Every document is changed in half of the passes, no two in the same ones (Sperner's theorem).

    >>> probe_halves(2)
    [[True, False], [False, True]]
    """
    num_passes = next(n for n in itertools.count(1) if math.comb(n, n // 2) >= num_documents)
    codes = list(itertools.islice(itertools.combinations(range(num_passes), num_passes // 2), num_documents))
    return [[number in code for code in codes] for number in range(num_passes)]


def _probe_row(model: PreTrainedModel, probe: _Probe) -> float:
    generator = torch.Generator().manual_seed(0)
    vocab_size: int = model.config.vocab_size
    ids_T = torch.randint(vocab_size, (sum(probe.lengths),), generator=generator)
    weights_TE = torch.randn(len(ids_T), model.config.hidden_size, generator=generator)
    hidden_TE, gradient_TE = _probe_pass(model, probe, ids_T, weights_TE)
    worst = 0.0
    for documents in probe.passes():
        changed, reached, gradient_reached = map(probe.tokens, documents)
        other_ids_T = torch.where(changed, (ids_T + 1) % vocab_size, ids_T)
        other_TE, other_gradient_TE = _probe_pass(model, probe, other_ids_T, weights_TE * ~reached[:, None])
        traces = [(other_TE - hidden_TE)[~reached], other_gradient_TE[reached]]
        if model.device.type == "cpu":
            traces.append((other_gradient_TE - gradient_TE)[~gradient_reached])
        # A kernel that gives NaN is no proof: no comparison with it is ever true.
        worst = max(worst, *(float(trace.abs().nan_to_num(math.inf, math.inf).max()) for trace in traces))
    return worst


def require_no_leak(model: PreTrainedModel) -> None:
    """Stop a stage whose packed documents would see one another. Raises UserError."""
    trace = leak_probe(model)
    if trace > 0:
        raise UserError(
            f"attention: packed documents see one another ({method_of(model)} on {model.device}, trace {trace:.3g}); "
            "this torch or flash-attn build is not fit for training; install another version"
        )


def _probe_pass(model: PreTrainedModel, probe: _Probe, ids_T: Tensor, weights_TE: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states of the packed probe, and the gradient of their weighted sum at the embeddings."""
    from derivatives.training.batch import Row, pack, pack_groups
    from derivatives.training.forward import hidden_states  # which is built on this file

    starts = [0, *itertools.accumulate(probe.lengths)]
    ids = ids_T.tolist()
    rows = [Row(ids[start:end]) for start, end in itertools.pairwise(starts)]
    (batch,) = pack_groups([rows], len(ids)) if probe.parents else pack(rows, len(ids))
    place_T = torch.cat([torch.arange(starts[index], starts[index + 1]) for index in batch.row_indices])
    if probe.parents:
        before = [probe.lengths[parent] if parent >= 0 else 0 for parent in probe.parents]
        positions = [torch.arange(start, start + num) for start, num in zip(before, probe.lengths, strict=True)]
        batch = replace(batch, position_ids_T=torch.cat(positions), parents=probe.parents)
    seen: list[Tensor] = []

    def as_leaf(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())  # a frozen embedding's output has no gradient of its own
        return seen[0]

    hook = model.get_input_embeddings().register_forward_hook(as_leaf)
    try:
        with torch.enable_grad():
            hidden_TE = hidden_states(model, batch.to(model.device))
            total = (hidden_TE.float() * weights_TE[place_T].to(hidden_TE.device)).sum()
            (gradient,) = torch.autograd.grad(total, seen[0])
    finally:
        hook.remove()
    back_T = torch.argsort(place_T)
    return hidden_TE.detach().cpu()[back_T], gradient.reshape(hidden_TE.shape).cpu()[back_T]
