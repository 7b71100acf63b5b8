"""The peer's side of `bench_training.py`: TRL's SFTTrainer on the same checkpoint and examples, in its own environment.

    python bench_training_trl.py --model DIR --data FILE.jsonl --steps 8 --examples 64 [--micro 16] [--packing bfd]

Lines of FILE hold `prompt` and `completion`, templated already. FP32 weights with bf16 autocast unless told otherwise.
Prints one JSON line: useful tokens of each step (prompts count, padding does not), its seconds from the optimizer
step before (loading and padding of the next batch count, as they do on the other side), its loss, and the peak of
resident memory above what the imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


def resident_mb() -> float:
    """Memory that this process holds now, in 1e6 bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class Clock(TrainerCallback):
    """Seconds and losses of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())

    def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.tokens.append(float(logs["num_tokens"]))


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--examples", type=int, required=True, help="examples (packed: rows of --max-length) a step")
    parser.add_argument("--micro", type=int, help="examples of a forward pass; the rest is accumulated")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--packing", choices=["bfd", "none"], default="none")
    parser.add_argument("--order", choices=["sequential", "group_by_length"], default="sequential")
    given = parser.parse_args()
    imported = resident_mb()
    torch.set_num_threads(given.threads)
    with open(given.data, encoding="utf-8") as file:
        data = Dataset.from_list([json.loads(line) for line in file])
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation="sdpa")
    micro = given.micro or given.examples
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out, per_device_train_batch_size=micro, gradient_accumulation_steps=given.examples // micro,
            max_length=given.max_length, packing=given.packing != "none", packing_strategy="bfd",
            train_sampling_strategy=given.order, max_steps=given.steps, learning_rate=given.lr, weight_decay=0.0,
            adam_beta2=0.95, lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to=[], bf16=True,
            use_cpu=True, disable_tqdm=True, gradient_checkpointing=False, eos_token=tokenizer.eos_token,
        )  # fmt: skip
        SFTTrainer(model=model, processing_class=tokenizer, args=config, train_dataset=data, callbacks=[clock]).train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    seconds = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    tokens = [after - before for before, after in zip([0.0, *clock.tokens], clock.tokens, strict=False)]
    print(json.dumps({"tokens": tokens, "seconds": seconds, "losses": clock.losses, "memory_mb": peak - imported}))


if __name__ == "__main__":
    main()
