"""Does torch.compile pay on a CPU? Forward, loss and backward of small models, plain and compiled, in turns.

    python tests/benchmarks/bench_compiled.py [--threads 1] [--rounds 12] [--sizes 7M,45M]

Least and median processor seconds (of all threads) of each setting over all rounds; the settings take turns, so that
other work on the machine meets all of them. bf16 weights and arithmetic, packed rows of 2,048 tokens with new lengths
in every round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from derivatives.losses.cross_entropy import chunked_cross_entropy  # noqa: E402 - needs the path above
from derivatives.training.attention import REGISTERED_NAME  # noqa: E402
from derivatives.training.batch import PackedBatch, Row, pack  # noqa: E402
from derivatives.training.compiled import compile_layers, compiled_cross_entropy  # noqa: E402
from derivatives.training.forward import hidden_states  # noqa: E402

SIZES = {
    "7M": ({"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5, "num_key_value_heads": 1,
            "intermediate_size": 896, "vocab_size": 2048}, (60, 120)),
    "45M": ({"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 1024, "vocab_size": 151_936}, (100, 300)),
}  # fmt: skip
"""Shape, and the range of the documents' lengths."""
ROW_TOKENS = 2048
SETTINGS = {
    "plain": (False, chunked_cross_entropy),
    "layers compiled": (True, chunked_cross_entropy),
    "loss compiled": (False, compiled_cross_entropy),
    "both": (True, compiled_cross_entropy),
}


def seconds_of(model: Any, cross_entropy: Any, batch: PackedBatch) -> float:
    """Processor seconds of one pass forward and back."""
    started = time.process_time()
    loss = cross_entropy(hidden_states(model, batch), model.lm_head.weight, batch.targets_T, batch.weights_T)
    loss.backward()
    model.zero_grad(set_to_none=True)
    return time.process_time() - started


def batch_of(drawn: random.Random, vocab_size: int, lengths: tuple[int, int]) -> PackedBatch:
    """A packed row of documents whose second half is trained on."""
    rows, left = [], ROW_TOKENS
    while left > lengths[1]:
        length = drawn.randint(*lengths)
        rows.append(Row(drawn.choices(range(vocab_size), k=length), trained_from=length // 2))
        left -= length
    return pack(rows, ROW_TOKENS)[0]


def main() -> None:
    """Print a line per size and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--sizes", default=",".join(SIZES))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.sizes.split(","):
        shape, lengths = SIZES[name]
        drawn = random.Random(0)
        models: dict[str, Any] = {}
        for setting, (compiled, cross_entropy) in SETTINGS.items():
            torch.manual_seed(0)
            model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True)).to(torch.bfloat16).eval()
            model.set_attn_implementation(REGISTERED_NAME)
            if compiled:
                compile_layers(model)
            batch, started = batch_of(drawn, shape["vocab_size"], lengths), time.perf_counter()
            seconds_of(model, cross_entropy, batch)
            print(f"{name} {setting:16} first pass {time.perf_counter() - started:6.1f} s of the clock", flush=True)
            models[setting] = model
        seconds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(given.rounds):
            batch = batch_of(drawn, shape["vocab_size"], lengths)
            for setting, (_, cross_entropy) in SETTINGS.items():
                seconds[setting].append(seconds_of(models[setting], cross_entropy, batch))
        for setting, found in seconds.items():
            ratio = statistics.median(one / plain for one, plain in zip(found, seconds["plain"], strict=True))
            print(
                f"{name} {setting:16} least {min(found):.3f} s, median {statistics.median(found):.3f} s, "
                f"{ratio:.2f} of plain in the same round", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
