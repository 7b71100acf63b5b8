"""AdamW over FP32 masters, with working weights in bf16.

bf16 has eight bits of mantissa: an update of a thousandth of a weight would be lost in it, so the sums are kept in FP32
here and the model's own tensors are rewritten in place from them after each step. In place, because the rollout engine
reads the very same tensors.

Gradients are summed in FP32 too: as soon as a backward pass has a parameter's gradient complete it is moved into the
master's, so bf16 gradients of several micro-batches are never added in bf16, and a parameter's `.grad` is always empty
outside a backward pass.

Sources: AdamW (arXiv:1711.05101); mixed-precision masters (arXiv:1710.03740). Over several ranks: `sharding.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from configs.settings.training import Optimization
from derivatives.training.pieces import Piece, put_together, whole_piece


class MasterAdamW:
    """One optimizer for one model. Create it once; it listens to the model's backward passes."""

    def __init__(self, model: nn.Module, config: Optimization) -> None:
        self.config = config
        self.weights, self.masters = self._pairs(model)
        decayed = [master for master in self.masters if master.ndim >= 2]
        plain = [master for master in self.masters if master.ndim < 2]  # norms and biases
        numbers = range(len(self.masters))
        self._adamw_order = sorted(numbers, key=lambda number: self.masters[number].ndim < 2)  # as the groups below
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True,
        )  # fmt: skip
        self._hooks = [
            weight.register_post_accumulate_grad_hook(self._take_gradient(master))
            for weight, master in zip(self.weights, self.masters, strict=True)
            if weight is not master
        ]

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Working weights and their masters."""
        weights: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        return weights, [_master_of(weight) for weight in weights]

    def _norm(self, gradients: list[Tensor]) -> float:
        """L2 norm of the whole gradient."""
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))

    def _piece(self, number: int) -> Piece:
        """The block of a whole parameter that master `number` is."""
        return whole_piece(self.masters[number])

    def step(self, lr: float, limit: float = float("inf")) -> float:
        """Clip, update the masters, rewrite the working weights, forget the gradients.

        Returns:
            The gradient's global L2 norm before clipping. Where it is not finite, or not below `limit`, nothing is
            updated.
        """
        gradients = [master.grad for master in self.masters if master.grad is not None]
        if not gradients:
            raise ValueError("no gradient to step with; run a backward pass first")
        norm = self._norm(gradients)
        if norm < limit:
            if norm > self.config.max_grad_norm:
                torch._foreach_mul_(gradients, self.config.max_grad_norm / norm)
            for group in self.adamw.param_groups:
                group["lr"] = lr
            self.adamw.step()
            self._write_weights()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Masters and moments, the tensors themselves, not copies; and which block of each parameter they are."""
        return {
            "masters": [master.detach() for master in self.masters],
            "adamw": self.adamw.state_dict(),
            "ranges": [self._piece(number).ranges for number in range(len(self.masters))],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state and rewrite the model's working weights from its masters."""
        given = state["masters"]
        if [tuple(master.shape) for master in given] != [tuple(master.shape) for master in self.masters]:
            raise ValueError("the saved masters have other shapes than this model's parameters")
        with torch.no_grad():
            torch._foreach_copy_(self.masters, [master.to(self.masters[0].device) for master in given])
        self.adamw.load_state_dict(state["adamw"])
        self._write_weights()

    def load_shards(self, shards: Sequence[dict[str, Any]]) -> None:
        """Take over the states of all ranks of a run, of however many; each holds a block of every tensor.

        Raises:
            ValueError: They are of another model or of an older layout, or some are missing.
        """
        if any("ranges" not in shard for shard in shards):
            raise ValueError("the checkpoint was written by an older version, which did not say what each rank held")
        masters = [
            put_together(self._piece(n), [(shard["ranges"][n], shard["masters"][n]) for shard in shards])
            for n in range(len(self.masters))
        ]
        moments = {}
        for place, number in enumerate(self._adamw_order):
            states = [
                (shard["ranges"][number], shard["adamw"]["state"][place])
                for shard in shards
                if place in shard["adamw"]["state"]
            ]
            if states:
                moments[place] = {
                    name: put_together(self._piece(number), [(ranges, state[name]) for ranges, state in states])
                    if value.ndim > 0
                    else value
                    for name, value in states[0][1].items()
                }
        self.load_state_dict({"masters": masters, "adamw": {**shards[0]["adamw"], "state": moments}})

    def _write_weights(self) -> None:
        if self.weights[0] is not self.masters[0]:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)

    @staticmethod
    def _take_gradient(master: Tensor) -> Any:
        def take(weight: Tensor) -> None:
            if weight.grad is None:
                return
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad += weight.grad
            weight.grad = None

        return take


def _master_of(weight: Tensor) -> Tensor:
    """The FP32 master of a working weight: the weight itself where that is FP32 already."""
    if weight.dtype == torch.float32:
        return weight
    return weight.detach().float().requires_grad_(True)
