"""One model spread over several ranks: each keeps some rows of every FP32 master, with FSDP2.

A layer's weights are gathered in the working precision when a pass needs them, and given up after it; gradients are
summed over ranks in FP32, each rank keeping those of its own rows. So the sharded parameters are the masters, and what
`MasterAdamW` does for one process (bf16 weights rewritten from FP32 ones) happens in the gathering. Gradients are
summed, never averaged: the loss is divided by the step's trained tokens over all ranks before.

Forward and loss are one module (`LossOf`), because the head's weight and the embedding exist as plain tensors only
inside its forward pass.

Source: PyTorch FSDP (arXiv:2304.11277), second version (`torch.distributed.fsdp.fully_shard`). Works over gloo on CPU
(torch 2.13) if sums are asked for as plain sums, which `set_force_sum_reduction_for_comms` does. Weights come from
and go to their files a part at a time (`spread.py`). Not done: tensor and context parallelism.

Shape letters: T tokens in the packed row, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from configs.settings.training import Optimization
from derivatives.training import attention
from derivatives.training.batch import PackedBatch
from derivatives.training.forward import hidden_states
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.ranks import Ranks
from derivatives.training.recompute import decoder_layers
from derivatives.training.spread import give_memory, rows_of

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
    """
    attention.set_method(model, attention.method_of(model))  # by the working precision, before weights turn FP32
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(device, (ranks.num,))
    whole = LossOf(model)
    for module in [*decoder_layers(model), whole]:  # one at a time, so that only one is whole in FP32
        give_memory(module, device)
        for parameter in module.parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                parameter.data = parameter.data.float()
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy)
        assert isinstance(sharded, FSDPModule)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    return whole


class ShardedAdamW(MasterAdamW):
    """The optimizer over the rows of the masters that are this rank's; every rank calls each method."""

    def __init__(self, whole: nn.Module, config: Optimization, ranks: Ranks) -> None:
        self.ranks = ranks
        # Kept from now on: during a pass the modules hold gathered weights in their place.
        self.parameters: list[Any] = [weight for weight in whole.parameters() if weight.requires_grad]
        super().__init__(whole, config)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        own = [parameter.detach().to_local().requires_grad_(True) for parameter in self.parameters]
        return own, own

    def _rows(self, number: int) -> tuple[int, int, int]:
        total = len(self.parameters[number])
        return *rows_of(total, self.ranks), total

    def _norm(self, gradients: list[Tensor]) -> float:
        own = super()._norm(gradients)
        return float(sum(norm**2 for (norm,) in self.ranks.gather_numbers([own]))) ** 0.5

    def step(self, lr: float, limit: float = float("inf")) -> float:
        """As for one process; the norm is that of the whole gradient."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.to_local(), None
        return super().step(lr, limit)
