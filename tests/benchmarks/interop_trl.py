"""TRL's side of `interop.py`, in its own environment: GRPO with an exported reward, chat prompts.

    python interop_trl.py --model DIR --problems FILE.jsonl --steps 6 --per-step 8 --group 4 --length 64

Half of the reward comes from `reward`, half from `reward_async`, as two reward functions. Prints one JSON line: losses
and rewards as TRL logs them, and every completion with what each function gave for it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.getcwd())

import torch
import trl
from datasets import Dataset
from math_trl import reward, reward_async  # what was exported
from trl import GRPOConfig, GRPOTrainer

Seen = list[dict[str, Any]]


def noted(function: Callable[..., list[float | None]], seen: Seen) -> Callable[..., list[float | None]]:
    """The function, which notes what it is given and gives."""

    @functools.wraps(function)
    def call(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        rewards = function(prompts, completions, **columns)
        _note(seen, completions, columns, rewards)
        return rewards

    return call


def noted_async(
    function: Callable[..., Awaitable[list[float | None]]], seen: Seen
) -> Callable[..., Awaitable[list[float | None]]]:
    """The same of an asynchronous one."""

    @functools.wraps(function)
    async def call(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        rewards = await function(prompts, completions, **columns)
        _note(seen, completions, columns, rewards)
        return rewards

    return call


def _note(seen: Seen, completions: list[Any], columns: dict[str, Any], rewards: list[float | None]) -> None:
    given = zip(columns["question"], columns["answer"], completions, rewards, strict=True)
    seen += [{"question": question, "answer": answer, "completion": completion[0]["content"], "reward": one}
             for question, answer, completion, one in given]  # fmt: skip


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--problems", required=True, type=Path)
    for name in ("steps", "per-step", "group", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    torch.manual_seed(0)
    lines = [json.loads(line) for line in given.problems.read_text().splitlines()]
    rows = [{**line, "prompt": [{"role": "user", "content": line["question"]}]} for line in lines]
    calls: dict[str, Seen] = {"reward": [], "reward_async": []}
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, per_device_train_batch_size=given.per_step * given.group, num_generations=given.group,
            max_completion_length=given.length, max_steps=given.steps, learning_rate=1e-5, logging_steps=1,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, bf16=False, temperature=1.0,
            gradient_checkpointing=False, seed=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=given.model, args=config, train_dataset=Dataset.from_list(rows),
            reward_funcs=[noted(reward, calls["reward"]), noted_async(reward_async, calls["reward_async"])],
        )  # fmt: skip
        trainer.train()
    logged = [line for line in trainer.state.log_history if "reward" in line]
    found = {
        "version": trl.__version__,
        "loss": [line["loss"] for line in logged],
        "reward": [line["reward"] for line in logged],
        "each": sorted({key for line in logged for key in line if key.startswith("rewards/")}),
        "grad_norm": [line["grad_norm"] for line in logged],
        "calls": calls,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
