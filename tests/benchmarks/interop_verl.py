"""verl's side of `interop.py`, in its own environment: an exported reward through verl's loader and reward managers.

    python interop_verl.py --tokenizer DIR --module math_verl.py --completions FILE.jsonl

The functions are loaded by `get_custom_reward_fn` from a configuration, as verl's trainer does, and called by the
managers `naive` and `batch` and by the reward loop's `naive` (with the plain and the asynchronous function). Prints one
JSON line: each manager's score of each completion, read from the last token of the reward tensor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager as LoopNaive
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.workers.reward_manager import BatchRewardManager, NaiveRewardManager


def data_of(lines: list[dict[str, str]], tokenizer: Any) -> DataProto:
    """A batch as verl hands it to a reward manager: prompts padded left, responses padded right."""
    prompts = [tokenizer(line["question"])["input_ids"] for line in lines]
    responses = [tokenizer(line["completion"])["input_ids"] or [tokenizer.eos_token_id] for line in lines]
    width, length, pad = max(map(len, prompts)), max(map(len, responses)), tokenizer.pad_token_id

    def left(ids: list[int]) -> list[int]:
        return [pad] * (width - len(ids)) + ids

    def right(ids: list[int]) -> list[int]:
        return ids + [pad] * (length - len(ids))

    mask = [
        [0] * (width - len(one)) + [1] * (len(one) + len(two)) + [0] * (length - len(two))
        for one, two in zip(prompts, responses, strict=True)
    ]
    infos = [{"question": line["question"], "index": number} for number, line in enumerate(lines)]
    return DataProto.from_dict(
        tensors={
            "prompts": torch.tensor([left(one) for one in prompts]),
            "responses": torch.tensor([right(one) for one in responses]),
            "attention_mask": torch.tensor(mask),
        },
        non_tensors={
            "data_source": np.array(["sums"] * len(lines), dtype=object),
            "reward_model": np.array([{"ground_truth": line["answer"]} for line in lines], dtype=object),
            "extra_info": np.array(infos, dtype=object),
        },
    )


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--module", required=True)
    parser.add_argument("--completions", required=True, type=Path)
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.completions.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)

    def config(name: str) -> Any:
        reward = {"custom_reward_function": {"path": given.module, "name": name}}
        return OmegaConf.create({"reward": reward, "data": {}})

    scores: dict[str, list[float]] = {}
    for manager, name in ((NaiveRewardManager, "compute_score"), (BatchRewardManager, "compute_score_batch")):
        judge = manager(tokenizer, 0, get_custom_reward_fn(config(name)))
        told = judge(data_of(lines, tokenizer), return_dict=True)
        scores[f"{manager.__name__}, {name}"] = told["reward_tensor"].sum(dim=1).tolist()
        assert set(told["reward_extra_info"]) >= {"acc", "no_verdict"}, "verl logs what stands beside the score"

    async def loop(name: str) -> list[float]:
        judge = LoopNaive(config(name), tokenizer, get_custom_reward_fn(config(name)))
        data = data_of(lines, tokenizer)
        told = await asyncio.gather(*(judge.run_single(data[at : at + 1]) for at in range(len(data))))
        return [float(one["reward_score"]) for one in told]

    for name in ("compute_score", "compute_score_async"):
        scores[f"reward loop, {name}"] = asyncio.run(loop(name))
    print(json.dumps({"version": verl.__version__, "scores": scores}))


if __name__ == "__main__":
    main()
