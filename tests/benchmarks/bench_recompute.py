"""Memory and time of recomputed activations at one layer of a Qwen2.5 shape, forward and backward, on CPU.

    python tests/benchmarks/bench_recompute.py [--tokens 2048] [--size 1.5B] [--lora RANK]

What a forward pass leaves allocated for the backward pass is counted by torch's profiler, for two documents that the
fused kernel attends to and for many short ones.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from configs.settings.training import Lora
from derivatives.training import attention
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.lora import add_adapters
from derivatives.training.recompute import Mode, recompute_layers

SIZES = {
    "0.5B": {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864},
    "1.5B": {"hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960},
}
COMMON = {"vocab_size": 1024, "max_position_embeddings": 4096, "tie_word_embeddings": True}
MODES: tuple[Mode, ...] = ("none", "selective", "full")


def measure(
    mode: Mode, batch: PackedBatch, shape: dict[str, int], rank: int | None, num_layers: int
) -> tuple[int, float]:
    """Bytes kept after a forward pass, and the least processor seconds of three forward and backward passes."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**COMMON, **shape, num_hidden_layers=num_layers)).to(torch.bfloat16)
    model.set_attn_implementation(attention.REGISTERED_NAME)
    if rank is not None:
        add_adapters(model, Lora(rank=rank), seed=0)
    recompute_layers(model, mode)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        hidden_states(model, batch).sum().backward()
        seconds.append(time.process_time() - started)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        output_TE = hidden_states(model, batch)
    assert output_TE.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.key_averages()), min(seconds)


def main() -> None:
    """Print a line per mode and kind of row: difference of two layers and one, so that nothing else counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the packed row")
    parser.add_argument("--size", choices=SIZES, default="0.5B", help="whose layer")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train adapters alone")
    given = parser.parse_args()
    num_tokens: int = given.tokens
    logging.set_verbosity_error()
    for name, length in (("documents of half the row", num_tokens // 2), ("documents of 128 tokens", 128)):
        (batch,) = pack([Row([number % 1000 for number in range(length)])] * (num_tokens // length), num_tokens)
        base: tuple[float, float] | None = None
        for mode in MODES:
            (one, one_s), (two, two_s) = (
                measure(mode, batch, SIZES[given.size], given.lora, num_layers) for num_layers in (1, 2)
            )
            kept, seconds = (two - one) / num_tokens, two_s - one_s
            base = base or (kept, seconds)
            print(
                f"{name:26} {mode:10} {kept / 1024:8.1f} KiB a token and layer ({kept / base[0]:.0%}), "
                f"{seconds * 1000:7.1f} ms ({seconds / base[1]:.2f} times)"
            )


if __name__ == "__main__":
    main()
