"""One model spread over several ranks: each keeps some rows of every FP32 master, with FSDP2.

Layers are sharded over the data axis, each part of them on its own where the tensor axis has cut them
(`tensor_parallel.py`). Embedding, last norm and head are sharded over all ranks, so that no two hold the same row.

A layer's weights are gathered in the working precision when a pass needs them, and given up after it; gradients are
summed over ranks in FP32, each rank keeping those of its own rows. So the sharded parameters are the masters, and what
`MasterAdamW` does for one process (bf16 weights rewritten from FP32 ones) happens in the gathering. Gradients are
summed, never averaged: the loss is divided by the step's trained tokens over all ranks before.

Forward and loss are one module (`LossOf`), because the head's weight and the embedding exist as plain tensors only
inside its forward pass.

Source: PyTorch FSDP (arXiv:2304.11277), second version (`torch.distributed.fsdp.fully_shard`). Works over gloo on CPU
(torch 2.13) if sums are asked for as plain sums, which `set_force_sum_reduction_for_comms` does. Weights come from
and go to their files a part at a time (`spread.py`). Not done: context parallelism.

Shape letters: T tokens in the packed row, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from configs.settings.training import Optimization
from derivatives.training import attention
from derivatives.training.batch import PackedBatch
from derivatives.training.forward import hidden_states
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.pieces import Piece
from derivatives.training.ranks import Ranks
from derivatives.training.recompute import decoder_layers
from derivatives.training.spread import give_memory
from derivatives.training.tensor_parallel import cut, has_partial_gradient, is_replicated, piece_of

Loss = Callable[[Tensor, PackedBatch], Tensor]
"""Hidden states [T, E] of a packed batch, and the batch -> the sum of its weighted loss."""


class LossOf(nn.Module):
    """A model with the loss that is taken of it, as one module."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch, loss: Loss) -> Tensor:
        """The loss of a batch that lies on the model's device."""
        return loss(hidden_states(self.model, batch), batch)


def shard(model: PreTrainedModel, device: str, ranks: Ranks) -> LossOf:
    """Spread a model over all ranks, layer by layer; every rank must call it.

    The weights are the same on all, or have no memory yet (`spread.open_spread`) and get it a layer at a time.

    Raises:
        UserError: Its layers cannot be cut into as many parts as the tensor axis has ranks.
    """
    attention.set_method(model, attention.method_of(model))  # by the working precision, before weights turn FP32
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    cut(model, ranks)
    whole = LossOf(model)
    for module in [*decoder_layers(model), whole]:  # one at a time, so that only one is whole in FP32
        is_root = module is whole
        give_memory(module, device)
        for parameter in module.parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                parameter.data = parameter.data.float()
        mesh = ranks.flat_mesh if is_root or ranks.tensor == 1 else ranks.mesh["data"]
        # A root stays gathered for its backward pass, which a frozen model has not.
        again = True if not any(parameter.requires_grad for parameter in module.parameters()) else None
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
        assert isinstance(sharded, FSDPModule)
        # Ranks of one tensor group have the same gradient of what is not in a layer, and it is in the sum for each. Of
        # the head each has a part; `share_loss` makes up for it.
        sharded.set_gradient_divide_factor(float(ranks.tensor) if is_root else 1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    return whole


class ShardedAdamW(MasterAdamW):
    """The optimizer over the blocks of the masters that are this rank's; every rank calls each method."""

    def __init__(self, whole: LossOf, config: Optimization, ranks: Ranks) -> None:
        self.ranks = ranks
        # Kept from now on: during a pass the modules hold gathered weights in their place.
        named = [(name, weight) for name, weight in whole.model.named_parameters() if weight.requires_grad]
        self.parameters: list[Any] = [weight for _, weight in named]
        self._pieces = [piece_of(name, weight, ranks) for name, weight in named]
        self._replicated = [is_replicated(name, weight, ranks) for name, weight in named]
        self._partial = [has_partial_gradient(name) for name, _ in named]
        super().__init__(whole, config)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        own = [parameter.detach().to_local().requires_grad_(True) for parameter in self.parameters]
        return own, own

    def _piece(self, number: int) -> Piece:
        return self._pieces[number]

    def _norm(self, gradients: list[Tensor]) -> float:
        first = self.ranks.tensor_rank == 0  # what several ranks hold counts once
        counted = [
            master.grad
            for master, replicated in zip(self.masters, self._replicated, strict=True)
            if master.grad is not None and (first or not replicated)
        ]
        own = super()._norm(counted) if counted else 0.0
        return float(sum(norm**2 for (norm,) in self.ranks.gather_numbers([own]))) ** 0.5

    def step(self, lr: float, limit: float = float("inf")) -> float:
        """As for one process; the norm is that of the whole gradient."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.to_local(), None
        self._share_gradients()
        return super().step(lr, limit)

    def _share_gradients(self) -> None:
        """Sum partial gradients of what all ranks of the tensor axis hold, and make whole ones the same to the bit."""
        shared = [
            (master.grad, partial)
            for master, replicated, partial in zip(self.masters, self._replicated, self._partial, strict=True)
            if replicated and master.grad is not None
        ]
        if not shared:
            return
        flat = torch.cat([gradient.flatten() for gradient, _ in shared])
        dist.all_reduce(flat, group=self.ranks.mesh.get_group("tensor"))
        for (gradient, partial), total in zip(
            shared, flat.split([gradient.numel() for gradient, _ in shared]), strict=True
        ):
            gradient.copy_(total.view_as(gradient)).div_(1 if partial else self.ranks.tensor)
