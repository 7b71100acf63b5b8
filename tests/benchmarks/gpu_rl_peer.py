"""The other side of `gpu_rl.py`: TRL's GRPOTrainer where it can be imported, else a plain loop over transformers.

The plain loop draws as TRL does, with `generate()` over prompts padded on the left or with transformers' continuous
batching, and updates as TRL does: micro-batches padded to one width, logits of the completions only, log-softmax a
completion at a time, AdamW. It leaves out what costs TRL more: texts, entropies, metrics. Weights, gradients and
moments are bf16 on both, which is the fastest that TRL has, and takes less than half of our side's memory.
"""

from __future__ import annotations

import gc
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_rl_load import (
    fitting_length,
    is_rewarded,
    load_of,
    prompts_of,
    reset_memory,
    seconds_of,
    time_steps,
    tokenizer_of,
    write_steps,
)
from gpu_sft_row import Row

PLAIN = "plain transformers loop, sdpa"
MICRO = 8
"""Completions of a training pass, as TRL's default; halved until they fit."""
LEARNING_RATE = 1e-6
SMALL_BLOCKS = {"num_blocks": 64, "max_batch_tokens": 256}
"""Of continuous batching at toy size, where it would take most of the machine's memory."""


@dataclass(frozen=True)
class PeerSetting:
    """How completions are drawn."""

    draws: str


PEERS = (PeerSetting("generate"), PeerSetting("continuous"))
SHARES = {"generate": 0.55, "continuous": 0.35}
"""Of the time left, what one step's drawing may take."""


def peer(row: Row) -> None:
    """Both ways to draw; the better one is what counts."""
    has_trl = importlib.util.find_spec("trl") and importlib.util.find_spec("datasets")
    row.each(PEERS, lambda setting: (trl_peer if has_trl else plain_peer)(row, setting))


class Sampler:
    """transformers' own ways to draw, nothing ends early."""

    def __init__(self, row: Row, model: Any, tokenizer: Any, draws: str) -> None:
        self.row, self.model, self.tokenizer, self.draws = row, model, tokenizer, draws
        self.num_samples = load_of(row).num_samples
        self.blocks = block_sizes(row) if draws == "continuous" else None

    def __call__(self, new_tokens: int, step: int = 0) -> list[list[int]]:
        """Completions of a step's prompts, those of one prompt side by side."""
        import torch
        from transformers import GenerationConfig

        continuous = self.draws == "continuous"
        config = GenerationConfig(
            max_new_tokens=new_tokens, do_sample=True, temperature=1.0, top_p=1.0, top_k=0, use_cache=True,
            eos_token_id=-1 if continuous else None, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        prompts = [prompt for prompt in prompts_of(self.row, step) for _ in range(self.num_samples)]
        self.model.generation_config = config
        self.model.eval()
        with torch.no_grad():
            if continuous:
                outputs = self.model.generate_batch(
                    prompts, generation_config=config, continuous_batching_config=self.blocks, progress_bar=False
                )
                drawn = [list(output.generated_tokens) for output in outputs.values()]
                if min(map(len, drawn)) < new_tokens:
                    raise RuntimeError(f"generate_batch drew {sorted(map(len, drawn))[:4]} tokens, not {new_tokens}")
                gc.collect()  # its cache takes most of the memory that is free
                return drawn
            ids, mask = padded(prompts)
            found = self.model.generate(
                input_ids=ids.to(self.row.device), attention_mask=mask.to(self.row.device), generation_config=config
            )
            return found[:, ids.shape[1] :].tolist()


def block_sizes(row: Row) -> Any:
    """Settings of continuous batching: its own on a GPU, small ones at toy size."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    return ContinuousBatchingConfig(**(SMALL_BLOCKS if row.dry else {}))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Token ids padded on the left with 0, and their mask."""
    import torch

    width = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(2))
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return ids, mask


def plain_peer(row: Row, setting: PeerSetting) -> None:
    """transformers alone."""
    import torch

    model, load = row.model(torch.bfloat16, "sdpa"), load_of(row)
    draw = Sampler(row, model, tokenizer_of(row), setting.draws)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    micro = [MICRO]

    def step(number: int, new_tokens: int) -> tuple[float, float, int]:
        completions: list[list[int]] = []
        drawing = seconds_of(row, lambda: completions.extend(draw(new_tokens, number)))
        prompts = [prompt for prompt in prompts_of(row, number) for _ in range(load.num_samples)]
        rewards = torch.tensor([float(is_rewarded(ids)) for ids in completions]).view(-1, load.num_samples)
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        advantages = (centred / (rewards.std(dim=1, keepdim=True) + 1e-4)).flatten().to(row.device)
        updating = seconds_of(row, lambda: update(model, optimizer, (prompts, completions, advantages), micro))
        return drawing, updating, sum(map(len, completions))

    length = fitting_length(row, draw, SHARES[setting.draws])
    while True:  # a short step warms the update up, and memory decides how many completions a pass has
        step(0, max(1, load.new_tokens // 16))
        reset_memory(row)
        try:
            time_steps(
                row, setting, lambda number: step(number, length), length,
                lambda _: {"peer": f"{PLAIN}, passes of {micro[0]}"}, is_warm=True,
            )  # fmt: skip
            return
        except torch.OutOfMemoryError:
            if micro[0] == 1 or not row.has_time():
                raise
        micro[0] //= 2
        optimizer.zero_grad(set_to_none=True)


def update(model: Any, optimizer: Any, step: tuple[Any, Any, Any], micro: list[int]) -> None:
    """One optimizer step with GRPO's loss; on policy, so that ratios are 1 and nothing is clipped."""
    import torch

    prompts, completions, advantages = step
    model.train()
    for first in range(0, len(prompts), micro[0]):
        part = slice(first, first + micro[0])
        ids, mask = padded([[*prompt, *own] for prompt, own in zip(prompts[part], completions[part], strict=True)])
        ids, mask = ids.to(advantages.device), mask.to(advantages.device)
        width = len(completions[first])  # nothing ends early: all are as long
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False,
            logits_to_keep=width + 1,
        ).logits[:, :-1]  # fmt: skip
        log_probs = torch.stack([
            row.log_softmax(dim=-1).gather(1, own[:, None]).squeeze(1)
            for row, own in zip(logits, ids[:, -width:], strict=True)
        ])  # fmt: skip
        ratio = (log_probs - log_probs.detach()).exp()
        loss = -(ratio * advantages[part, None]).mean(dim=1).sum() / len(prompts)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def trl_peer(row: Row, setting: PeerSetting) -> None:
    """TRL, with the most completions in a training pass that fit."""
    import torch

    micro = MICRO
    while True:
        try:
            return run_trl(row, setting, micro)
        except torch.OutOfMemoryError:
            if micro == 1 or not row.has_time():
                raise
        micro //= 2
        reset_memory(row)


def run_trl(row: Row, setting: PeerSetting, micro: int) -> None:
    """TRL's GRPOTrainer in the settings of `bench_rl_trl.py`, with no text that ends a completion."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    load, tokenizer = load_of(row), tokenizer_of(row)
    model, num_steps = row.model(torch.bfloat16, "sdpa"), 3
    length = fitting_length(row, Sampler(row, model, tokenizer, setting.draws), SHARES[setting.draws])
    num_completions = load.num_prompts * load.num_samples
    tokens: list[int] = []
    ends: list[float] = []
    drawing: list[float] = []

    def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        return [float(is_rewarded(ids)) for ids in completion_ids]

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.note()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.note()
            if time.monotonic() + 1.1 * (ends[-1] - ends[-2]) > row.until:
                trainer.control.should_training_stop = True

        def note(self) -> None:
            if not row.dry:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, per_device_train_batch_size=micro, gradient_accumulation_steps=num_completions // micro,
            num_generations=load.num_samples, max_completion_length=length, max_steps=num_steps, loss_type="grpo",
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", weight_decay=0.0, adam_beta2=0.95, beta=0.0,
            max_grad_norm=1.0, temperature=1.0, top_p=1.0, top_k=0, logging_steps=1000, save_strategy="no",
            report_to=[], bf16=False, use_cpu=row.dry, disable_tqdm=True, gradient_checkpointing=False,
            shuffle_dataset=False, use_transformers_continuous_batching=setting.draws == "continuous",
            transformers_continuous_batching_config=SMALL_BLOCKS if row.dry else None,
        )  # fmt: skip
        texts = [tokenizer.decode(prompt) for step in range(num_steps) for prompt in prompts_of(row, step)]
        trainer = GRPOTrainer(
            model=model, processing_class=tokenizer, reward_funcs=reward, args=config, callbacks=[Clock()],
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        )  # fmt: skip
        trainer._generate_single_turn = timed(row, trainer._generate_single_turn, drawing)
        reset_memory(row)
        trainer.train()
    seconds = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    steps = [(drew, taken - drew, drawn) for drew, taken, drawn in zip(drawing, seconds, tokens, strict=True)]
    write_steps(row, setting, steps, length, lambda _: {"peer": f"TRL GRPOTrainer, sdpa, passes of {micro}"})


def timed(row: Row, function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, which notes how long each call took."""

    def call(*given: Any, **more: Any) -> Any:
        results: list[Any] = []
        seconds.append(seconds_of(row, lambda: results.append(function(*given, **more))))
        return results[0]

    return call
