"""Activations that a backward pass makes again instead of keeping them (gradient checkpointing).

Each decoder layer is one unit, so that of a layer's activations only what `mode` keeps outlives its forward pass:

- `full`: its input alone. About a third more computation.
- `selective`: also the results of matrix products with weights and of fused attention, so that what is made again
  (norms, rotation, activation function, sums) costs little. An adapter's second product, which is large but quickly
  made, is made again. Attention without a fused kernel (short documents on CPU)
  is made again too, because its scores would be the largest tensors of all.

The same operations run on the same numbers, random ones included, so results are those without it, bit for bit on CPU.

Sources: sublinear memory (arXiv:1604.06174); selective, after torchtitan's per-operation policy, which keeps every
second product. Under FSDP2 the layer's own hooks stay outside: its weights are gathered when the backward pass reaches
it, and are there when it is run again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

THIN = 8
"""A product is cheap if its result is more than this many times as wide as its inner dimension."""

Mode = Literal["none", "selective", "full"]
PRODUCTS = ("aten::mm", "aten::addmm")
KEPT = (*PRODUCTS, "aten::_scaled_dot_product", "torch_attn::", "flash_attn")
"""How the names of operations begin whose results `selective` keeps."""


def recompute_layers(model: PreTrainedModel, mode: Mode) -> None:
    """Have every decoder layer keep only what `mode` says; call it once, before the model is sharded."""
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    for layer in decoder_layers(model):
        layer.forward = _recomputed(layer.forward, options)  # type: ignore[method-assign]


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that a model itself says are to be kept whole."""
    names = model._no_split_modules or ()
    return [module for module in model.modules() if type(module).__name__ in names]


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = str(operation.name())
    kept = name.startswith(KEPT) and not (name.startswith(PRODUCTS) and _is_thin(*args[-2:]))
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _is_thin(left_TI: Tensor, right_IO: Tensor) -> bool:
    """Whether a product's inner dimension is far smaller than what comes out."""
    return THIN * right_IO.shape[0] < right_IO.shape[1]


def _recomputed(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **kwargs, **options)

    return run
