"""Layers cut over the tensor axis: each rank of it computes some heads and some of the intermediate width.

Queries, keys, values, gate and up are cut by their outputs, the maps that follow them (`o_proj`, `down_proj`) by their
inputs, so that a rank's heads and inner activations never leave it. Two exchanges a layer in each direction: partial
results are summed where a block's result joins the residual stream, partial gradients where its input left it. Norms,
residual stream and embeddings are computed by every rank of the axis alike; of the loss each works out a share of the
tokens, over the whole vocabulary (`share_loss`).

The cut comes before FSDP2 (`sharding.py`), which then shards each part over the data axis. Sums travel in the working
precision, as in Megatron-LM.

Adapters are cut with their maps: of one that is cut by outputs the second product, of one that is cut by inputs the
first. The other product is whole on every rank and sees a part of the gradient, which `ShardedAdamW` sums.

Source: Megatron-LM (arXiv:1909.08053, section 3: its f is `_SumGradients`, its g `_SumResults`). Departure: it cuts the
vocabulary over ranks, so that its loss exchanges a number per token and chunk; sharing out tokens leaves every loss as
it is. Not done: a residual stream cut along tokens (sequence parallelism), models other than those whose layers hold
these maps and norms (`check_layers`).

Shape letters: T tokens in the packed row, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from configs.errors import UserError
from configs.settings.machine import require_divides
from derivatives.training.pieces import Piece, rows_of
from derivatives.training.ranks import Ranks
from derivatives.training.recompute import decoder_layers

BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
BY_INPUTS = ("o_proj", "down_proj")
FIRST_PRODUCT, SECOND_PRODUCT = "lora_A", "lora_B"


def cut_dim(name: str) -> int | None:
    """The dimension of a parameter that the tensor axis cuts; None where every rank of it has all.

    >>> [cut_dim(f"layers.0.self_attn.{name}") for name in ("q_proj.weight", "q_proj.bias", "o_proj.weight")]
    [0, 0, 1]
    >>> [cut_dim(f"layers.0.mlp.up_proj.{name}.default.weight") for name in ("lora_A", "lora_B")]
    [None, 0]
    >>> [cut_dim(f"layers.0.mlp.down_proj.{name}.default.weight") for name in ("lora_A", "lora_B")]
    [1, None]
    """
    words = name.split(".")
    if any(word in BY_OUTPUTS for word in words):
        return None if FIRST_PRODUCT in words else 0
    if any(word in BY_INPUTS for word in words):
        return None if SECOND_PRODUCT in words or words[-1] == "bias" else 1
    return None


def sizes_of(config: Any) -> dict[str, int]:
    """The numbers of a model's config that the tensor axis cuts, by name."""
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": int(config.intermediate_size),
    }


def check_layers(model: PreTrainedModel, tensor: int) -> None:
    """Raises UserError if a model's layers cannot be cut so."""
    for layer in decoder_layers(model):
        for name, weight in layer.named_parameters():
            inside = name.startswith(("self_attn.", "mlp."))
            words = name.split(".")
            known = any(word in BY_OUTPUTS + BY_INPUTS for word in words) if inside else weight.ndim == 1
            if not known or (words[-1] == "bias" and any(word in BY_INPUTS for word in words)):
                raise UserError(
                    f"machine.tensor_parallel: {tensor} was asked for, but a layer of {type(model).__name__} holds "
                    f"{name}, which is not cut; allowed: models with Qwen2's layers, or 1"
                )
    require_divides(tensor, sizes_of(model.config))


@torch.no_grad()
def cut(model: PreTrainedModel, ranks: Ranks) -> None:
    """Keep this rank's part of every layer, and have layers exchange sums; before the model is sharded.

    Weights may be there or have no memory yet (`spread.open_spread`). Nothing where the tensor axis has one rank.

    Raises:
        UserError: The layers cannot be cut into so many parts.
    """
    if ranks.tensor == 1:
        return
    check_layers(model, ranks.tensor)
    group = ranks.mesh.get_group("tensor")
    for layer in decoder_layers(model):
        for name, weight in list(layer.named_parameters()):
            dim = cut_dim(name)
            if dim is not None:
                module_name, _, own_name = name.rpartition(".")
                setattr(layer.get_submodule(module_name), own_name, _part(weight, dim, ranks))
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                module.out_features, module.in_features = module.weight.shape
            if name.rpartition(".")[2] in BY_INPUTS:
                module.register_forward_hook(_summed_result(group))
                layer.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(
                    _summed_gradient(group), with_kwargs=True
                )


def _part(weight: nn.Parameter, dim: int, ranks: Ranks) -> nn.Parameter:
    part = weight.chunk(ranks.tensor, dim)[ranks.tensor_rank]
    has_memory = any(weight.stride()) or weight.numel() == 1
    return nn.Parameter(part.clone() if has_memory else part, requires_grad=weight.requires_grad)


def _summed_result(group: ProcessGroup) -> Callable[..., Tensor]:
    def hook(module: nn.Module, given: object, result: Tensor) -> Tensor:
        summed: Tensor = _SumResults.apply(result, group)
        return summed

    return hook


def _summed_gradient(group: ProcessGroup) -> Callable[..., tuple[Any, dict[str, Any]]]:
    def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if given:
            return (_SumGradients.apply(given[0], group), *given[1:]), named
        return given, {**named, "hidden_states": _SumGradients.apply(named["hidden_states"], group)}

    return hook


def _summed(partial: Tensor, group: ProcessGroup) -> Tensor:
    """A copy, since the one that is given may be kept for a backward pass."""
    total = partial.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _SumResults(torch.autograd.Function):
    """Partial results to their sum; its gradient is that of each part."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: ProcessGroup) -> Tensor:
        return _summed(partial, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _SumGradients(torch.autograd.Function):
    """What all ranks of the axis have alike, unchanged; each gives back a part of its gradient."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.group), None


class _GradientForEach(torch.autograd.Function):
    """A weight unchanged; its gradient times the number of ranks among which the sum over all of them is divided."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, number: int) -> Tensor:
        ctx.number = number
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.number, None


SharedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Hidden states [T, E], head [V, E], and which tokens are asked for, bool [T] -> a sum over these tokens."""


def share_loss(of: SharedLoss, hidden_TE: Tensor, head_VE: Tensor, active_T: Tensor, ranks: Ranks) -> Tensor:
    """What `of` gives for all active tokens, each worked out by one rank of the tensor axis.

    Args:
        of: A sum over tokens, of any shape; every rank of the axis must call this at the same time.
        hidden_TE: Hidden states, the same on these ranks.
        head_VE: The head's weight.
        active_T: Tokens that count, bool.
        ranks: Who shares.
    """
    if ranks.tensor == 1:
        return of(hidden_TE, head_VE, active_T)
    group = ranks.mesh.get_group("tensor")
    number_T = active_T.cumsum(0) - 1
    own_T = active_T & (number_T * ranks.tensor // active_T.sum().clamp(min=1) == ranks.tensor_rank)
    hidden_TE = _SumGradients.apply(hidden_TE, group)
    total: Tensor = _SumResults.apply(of(hidden_TE, _GradientForEach.apply(head_VE, ranks.tensor), own_T), group)
    return total


def piece_of(name: str, weight: Tensor, ranks: Ranks) -> Piece:
    """Which block of a whole parameter this rank keeps, after the model was cut and sharded."""
    shape = list(weight.shape)
    ranges = [(0, size) for size in shape]
    if isinstance(weight, DTensor) and ranges:
        mesh = weight.device_mesh
        ranges[0] = rows_of(shape[0], mesh.get_local_rank(), mesh.size())
    dim = cut_dim(name)
    if ranks.tensor > 1 and dim is not None:
        start = ranks.tensor_rank * shape[dim]
        ranges[dim] = start + ranges[dim][0], start + ranges[dim][1]
        shape[dim] *= ranks.tensor
    return Piece(tuple(shape), tuple(ranges))


def is_replicated(name: str, weight: Tensor, ranks: Ranks) -> bool:
    """Whether all ranks of the tensor axis keep the same block of a parameter."""
    if ranks.tensor == 1 or cut_dim(name) is not None:
        return False
    return not isinstance(weight, DTensor) or weight.device_mesh.size() == ranks.num_data


def has_partial_gradient(name: str) -> bool:
    """Whether a replicated parameter's gradient is a part of the whole one: an adapter's product beside a cut one."""
    return FIRST_PRODUCT in name.split(".") or SECOND_PRODUCT in name.split(".")


def gather_parts(name: str, part: Tensor, ranks: Ranks) -> Tensor:
    """A whole parameter on the first rank, from the parts of the first data rank's group; others get their own back.

    Every rank must call it.
    """
    dim = cut_dim(name)
    if ranks.tensor == 1 or dim is None or ranks.data_rank > 0:
        return part
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(ranks.tensor)] if ranks.first else None
    dist.gather(part, parts, group=ranks.mesh.get_group("tensor"), group_dst=0)
    return part if parts is None else torch.cat(parts, dim)
