"""How well a step used the machine: model FLOPs, their share of the peak, and peak memory.

Forward FLOPs of a step, multiplications and additions counted apart:

    2 * tokens * P  +  2 * layers * H * D * sum of L^2 over documents  +  2 * trained tokens * V * E

P are the weights of the layers' linear maps. Causal attention inside a document of L tokens is two products over half
of L^2 scores. The head counts for trained tokens alone, as it is computed for no others. A backward pass counts twice
the forward one, except frozen weights (LoRA), which need only the gradient of their input: once. Adapters count as
weights. What is made again (`recompute`) does not count, so the figure is model FLOPs utilisation (MFU, PaLM,
arXiv:2204.02311, appendix B), not hardware's. Norms, rotation and softmax are left out, as there.

Shape letters: L tokens of a document, H query heads, D head dimension, V vocabulary, E hidden size.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from configs.settings.machine import Machine
from derivatives.training import attention
from derivatives.training.model import head_weight
from derivatives.training.recompute import decoder_layers

PEAK_TFLOPS = {
    "B200": 2250.0, "H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "A10": 125.0,
}  # fmt: skip
"""Dense bf16 peak of GPUs whose name contains this, the first that fits; from their makers' data sheets."""
BACKWARD, FROZEN_BACKWARD = 2.0, 1.0


class ModelFlops:
    """FLOPs of training steps of one model, by the formula above."""

    def __init__(self, model: PreTrainedModel) -> None:
        layers = decoder_layers(model)
        self._per_token = sum(_linear_flops(layer) for layer in layers)
        self._per_square = 2.0 * len(layers) * model.config.num_attention_heads * attention.head_dim_of(model)
        self._per_square *= 1 + BACKWARD
        head = head_weight(model)
        self._per_trained = 2.0 * head.numel() * (1 + (BACKWARD if head.requires_grad else FROZEN_BACKWARD))

    def of_step(self, lengths: Iterable[int], trained_tokens: float) -> float:
        """Forward and backward FLOPs of documents of these lengths, with so many tokens in the loss."""
        documents = list(lengths)
        squares = sum(length**2 for length in documents)
        return sum(documents) * self._per_token + squares * self._per_square + trained_tokens * self._per_trained


def _linear_flops(layer: nn.Module) -> float:
    """FLOPs of the linear maps of a layer for one token, forward and backward."""
    total = 0.0
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            backward = BACKWARD if module.weight.requires_grad else FROZEN_BACKWARD
            total += 2.0 * module.weight.numel() * (1 + backward)
    return total


def peak_flops(machine: Machine, precision: str) -> float | None:
    """Peak FLOP/s of all devices together; None where it is neither given nor known."""
    tflops = machine.peak_tflops
    if tflops is None and machine.device == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name()
        tflops = next((known for part, known in PEAK_TFLOPS.items() if part in name), None)
    return None if tflops is None else tflops * 1e12 * machine.num_processes


def peak_memory_gb(device: str) -> float:
    """Most memory that this process has held so far, in 1e9 bytes: of the GPU if it uses one, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
