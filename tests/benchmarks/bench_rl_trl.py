"""The peer's side of `bench_rl.py`, in its own environment: TRL's GRPOTrainer, or transformers' generate() alone.

    python bench_rl_trl.py --model DIR --prompts FILE.jsonl --length 64 --steps 8 [--dtype float32 --autocast]
    python bench_rl_trl.py --model DIR --prompts FILE.jsonl --length 64 --steps 4 --decode [--dtype bfloat16]

Lines of FILE hold `prompt`, templated already, and `answer`; a step takes the next ones. Prints one JSON line:
completion tokens of each step (stop tokens count, padding does not), its seconds from the optimizer step before, those
spent in drawing, the share of groups whose rewards are all equal, the mean reward, and the peak of resident memory
above what the imports take. With --decode a step is one call of generate() that draws exactly --length tokens of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def resident_mb() -> float:
    """Memory that this process holds now, in 1e6 bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ends.append(time.perf_counter())


def train(given: argparse.Namespace, model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> dict[str, Any]:
    """GRPO: the figures of each step."""
    tokens: list[int] = []
    drawing: list[float] = []
    without_spread: list[float] = []
    means: list[float] = []
    clock = Clock()

    def reward(completions: list[str], answer: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        rewards = [float(gold in text) for text, gold in zip(completions, answer, strict=True)]
        groups = [rewards[at : at + given.group] for at in range(0, len(rewards), given.group)]
        without_spread.append(sum(len(set(group)) == 1 for group in groups) / len(groups))
        means.append(sum(rewards) / len(rewards))
        return rewards

    num_completions = given.prompts_per_step * given.group
    micro = given.micro or num_completions
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, per_device_train_batch_size=micro, gradient_accumulation_steps=num_completions // micro,
            num_generations=given.group, max_completion_length=given.length, max_steps=given.steps, loss_type="grpo",
            learning_rate=given.lr, lr_scheduler_type="constant", weight_decay=0.0, adam_beta2=0.95, max_grad_norm=1.0,
            beta=0.0, temperature=1.0, top_p=1.0, top_k=0, logging_steps=1000, save_strategy="no", report_to=[],
            bf16=given.autocast, use_cpu=True, disable_tqdm=True, gradient_checkpointing=False, shuffle_dataset=False,
            cache_implementation=given.cache, use_transformers_continuous_batching=given.continuous,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, processing_class=tokenizer, reward_funcs=reward, args=config,
            train_dataset=Dataset.from_list(rows), callbacks=[clock],
        )  # fmt: skip
        trainer._generate_single_turn = timed(trainer._generate_single_turn, drawing)
        trainer.train()
    seconds = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    return {"tokens": tokens, "seconds": seconds, "drawing": drawing, "without_spread": without_spread,
            "rewards": means}  # fmt: skip


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, which notes how long each call took."""

    def call(*given: Any, **more: Any) -> Any:
        started = time.perf_counter()
        result = function(*given, **more)
        seconds.append(time.perf_counter() - started)
        return result

    return call


def decode(given: argparse.Namespace, model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> dict[str, Any]:
    """generate() alone, nothing ends early: the figures of each call."""
    prompts = [row["prompt"] for row in rows[: given.prompts_per_step] for _ in range(given.group)]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    config = GenerationConfig(
        max_new_tokens=given.length, do_sample=True, temperature=1.0, top_p=1.0, top_k=0, eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, cache_implementation=given.cache, disable_compile=True,
    )  # fmt: skip
    model.generation_config = config
    model.eval()
    seconds, tokens = [], []
    for _ in range(given.steps):
        started = time.perf_counter()
        autocast = torch.autocast("cpu", torch.bfloat16) if given.autocast else contextlib.nullcontext()
        with torch.no_grad(), autocast:
            ids = model.generate(**batch, generation_config=config)
        seconds.append(time.perf_counter() - started)
        tokens.append(ids[:, batch["input_ids"].shape[1] :].numel())
    return {"tokens": tokens, "seconds": seconds, "drawing": seconds}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--length", type=int, required=True, help="completion tokens at most (--decode: exactly)")
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--micro", type=int, help="completions of a training pass; the rest is accumulated")
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    parser.add_argument("--autocast", action="store_true", help="bf16 arithmetic over FP32 weights")
    parser.add_argument("--cache", choices=["static"], help="generate()'s cache; grows with every token if not given")
    parser.add_argument("--continuous", action="store_true", help="draw with transformers' continuous batching")
    parser.add_argument("--decode", action="store_true", help="draw only")
    given = parser.parse_args()
    imported = resident_mb()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    with open(given.prompts, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(
        given.model, dtype=getattr(torch, given.dtype), attn_implementation="sdpa"
    )
    # Both ends stop a completion, as on the other side; a checkpoint may name only one of them.
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    found = (decode if given.decode else train)(given, model, tokenizer, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({**found, "memory_mb": peak - imported}))


if __name__ == "__main__":
    main()
