"""Layers and the loss's chunks through `torch.compile`: made for GPUs, not run on one yet (docs/experiments.md).

A decoder layer of transformers is some sixty small operations, most of which read and write whole activations:
normalisation in FP32, rotation, the gated activation, sums. Compiled they are a few, and the backward pass keeps fewer
tensors, since what is cheap is made again. Attention stays outside: it is called from between the compiled parts, so
what it is told of documents (`Packing`) is no part of any graph, and nothing is compiled anew when their number or
their lengths change. The number of tokens is symbolic from the start. All layers share one set of graphs. Once more is
compiled for passes without gradients, for a row of a single token, and where the rows are the first to cross a size
that kernels are chosen by (4,096 tokens on CPU).

Results differ from those without by rounding alone: sums may be taken in another order, and intermediate values that
would be rounded to bf16 stay FP32 within a fused operation.

Compile before anything else is wrapped around a layer (`recompute_layers`, `shard`), so that those stay outside too.
Inside `selective` recomputation a compiled part is one whole, which is made again; attention is kept.

Needs a C++ compiler on CPU, Triton on CUDA. Source: TorchDynamo and TorchInductor (PyTorch 2, ASPLOS 2024).

Shape letters: T tokens, D hidden size, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from derivatives.losses.cross_entropy import chunks
from derivatives.training.attention import REGISTERED_NAME
from derivatives.training.recompute import decoder_layers

UNCOMPILED_NAME = f"{REGISTERED_NAME}_uncompiled"
"""The packed attention under a name by which compiled layers call it without looking inside."""
CUDA_CHUNK_TOKENS = 2048
"""Logits and their gradient are kept in bf16 here: 1.2 GB at Qwen2.5's vocabulary. Unproven; not run on a GPU."""

Backend = Literal["inductor", "aot_eager"]


def compile_layers(model: PreTrainedModel, backend: Backend = "inductor") -> None:
    """Have every decoder layer run compiled from its next pass on; call it once, on a freshly loaded model.

    Args:
        model: With packed attention (`load_model`).
        backend: `inductor` makes the kernels; `aot_eager` only takes the graphs, to test what is compiled and when.
    """
    AttentionInterface.register(UNCOMPILED_NAME, torch.compiler.disable(_attend))
    AttentionMaskInterface.register(UNCOMPILED_NAME, flash_attention_mask)
    model.set_attn_implementation(UNCOMPILED_NAME)
    for layer in decoder_layers(model):
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=backend)  # type: ignore[method-assign]


def _attend(*given: Any, **named: Any) -> tuple[Tensor, None]:
    """The packed attention. Its result must be no view: graphs are tied to the layout of what one is a view of."""
    mixed, _ = ALL_ATTENTION_FUNCTIONS[REGISTERED_NAME](*given, **named)
    return torch.ops.aten._unsafe_view(mixed.contiguous(), mixed.shape), None


def compiled_cross_entropy(hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
    """What `chunked_cross_entropy` gives, with a chunk's softmax and gradient in one compiled pass each.

    Logits and their gradient are held in the working precision and never written in FP32; the softmax is FP32.
    """
    active_A = weights_T.nonzero().squeeze(1)
    loss: Tensor = _CrossEntropy.apply(
        hidden_TD.index_select(0, active_A), head_VD, targets_T[active_A], weights_T[active_A].float()
    )
    return loss


@functools.cache
def _compiled_chunk() -> Any:
    return torch.compile(_chunk)


def _chunk(logits_CV: Tensor, targets_C1: Tensor, weights_C1: Tensor, column_1V: Tensor) -> tuple[Tensor, Tensor]:
    """A chunk's loss, FP32, and the gradient of its logits in their precision."""
    exact_CV = logits_CV.float()
    log_sum_C1 = exact_CV.logsumexp(1, keepdim=True)
    loss = ((log_sum_C1 - exact_CV.gather(1, targets_C1)) * weights_C1).sum()
    is_target_CV = column_1V == targets_C1  # and not scatter_add, which would be a pass of its own
    gradient_CV = ((exact_CV - log_sum_C1).exp() - is_target_CV.float()) * weights_C1
    return loss, gradient_CV.to(logits_CV.dtype)


def _slices(num_tokens: int, head_VD: Tensor) -> list[slice]:
    if not head_VD.is_cuda:
        return list(chunks(num_tokens, head_VD))
    starts = range(0, num_tokens, CUDA_CHUNK_TOKENS)
    return [slice(start, min(start + CUDA_CHUNK_TOKENS, num_tokens)) for start in starts]


@functools.cache
def _adds_in_product(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a product of matrices of this type can be added to an FP32 matrix where it lies, as CUDA's can."""
    ones, total = torch.ones(16, 16, dtype=dtype, device=device), torch.ones(16, 16, device=device)
    try:
        torch.addmm(total, ones, ones, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return False
    return bool((total == 17.0).all())


def _add_product(total_VD: Tensor, left_VC: Tensor, right_CD: Tensor) -> None:
    """total += left @ right, the total in FP32; where it can be, without a rounded product on the way."""
    if left_VC.dtype != torch.float32 and _adds_in_product(left_VC.dtype, left_VC.device):
        torch.addmm(total_VD, left_VC, right_CD, out_dtype=torch.float32, out=total_VD)
    else:
        total_VD += left_VC @ right_CD


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
        needs = ctx.needs_input_grad
        total = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs[0] else None
        grad_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if needs[1] else None
        column_1V = torch.arange(len(head_VD), device=head_VD.device)[None]
        for part in _slices(len(hidden_TD), head_VD):
            logits_CV = hidden_TD[part] @ head_VD.t()
            targets_C1, weights_C1 = targets_T[part, None], weights_T[part, None]
            for tensor in (logits_CV, targets_C1, weights_C1):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)  # the vocabulary stays a constant
            loss, gradient_CV = _compiled_chunk()(logits_CV, targets_C1, weights_C1, column_1V)
            total += loss
            if grad_hidden_TD is not None:
                torch.mm(gradient_CV, head_VD, out=grad_hidden_TD[part])
            if grad_head_VD is not None:
                _add_product(grad_head_VD, gradient_CV.t(), hidden_TD[part])
        ctx.save_for_backward(grad_hidden_TD, None if grad_head_VD is None else grad_head_VD.to(head_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden_TD, grad_head_VD = (None if kept is None else kept * gradients[0] for kept in ctx.saved_tensors)
        return grad_hidden_TD, grad_head_VD, None, None
