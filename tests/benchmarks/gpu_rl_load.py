"""What the rows of `gpu_rl.py` share: what a step draws, how it is timed, and what bounds it.

torch is imported where it is used, so that a row can take the place of what is missing before.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from gpu_sft_row import Row, Shape

NUM_UNNAMED = 271
"""Rows of Qwen2.5's embedding that no token has: of 151,936, ids below 151,665 are real."""
BANDWIDTHS = {"H200": 4.8e12, "H100 NVL": 3.9e12, "H100 PCIe": 2.0e12, "H100": 3.35e12}
"""Published bytes a second by what a device's name holds, the first that fits; a plain H100 is the SXM one."""
NUM_STEPS = 3
"""Timed steps or calls of one setting, at most."""
SLOWER_LATER = 1.25
"""A guess: how much slower a token is behind a whole cache than behind a short one, in the forecast of a call."""
Step = Callable[[int], tuple[float, float, int]]
"""Does the step of this number; returns seconds of drawing and of updating, and how many tokens were drawn."""


@dataclass(frozen=True)
class Load:
    """What a step draws. One of its prompts is always the longest, so that all steps need the same cache."""

    num_prompts: int = 32
    num_samples: int = 8
    shortest: int = 128
    longest: int = 512
    new_tokens: int = 1024


DRY = Load(4, 4, 8, 24, 64)


def load_of(row: Row) -> Load:
    """What a step of this row draws."""
    return DRY if row.dry else Load()


def num_real(row: Row) -> int:
    """Token ids that a tokenizer of this row's vocabulary knows."""
    return row.shape.vocab_size - (7 if row.dry else NUM_UNNAMED)


def prompts_of(row: Row, step: int) -> list[list[int]]:
    """Random prompts of a step, the same for every side."""
    load, drawn = load_of(row), random.Random(step)
    lengths = [load.longest, *(drawn.randint(load.shortest, load.longest) for _ in range(load.num_prompts - 1))]
    return [drawn.choices(range(num_real(row) - 3), k=length) for length in lengths]


def is_rewarded(token_ids: Sequence[int]) -> bool:
    """The reward of every side: half of the completions have it, whatever they say."""
    return sum(token_ids) % 2 == 0


def tokenizer_of(row: Row) -> Any:
    """A word for every real id, `t0 t1 ...`; Qwen's ends of turn and text are the last ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*(f"t{number}" for number in range(num_real(row) - len(specials))), *specials]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=specials[0]))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=specials[2], pad_token=specials[0], padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def bound_tokens_per_s(
    shape: Shape, weight_bytes: int, lengths: Sequence[int], new_tokens: int, bandwidth: float
) -> float:
    """Tokens/s of a batch that does nothing but move these bytes, of bf16 weights, cache and logits.

        new_tokens * (weights + 2 * completions * vocabulary) + cache * sum over completions and steps (prompt + step)

    Each step reads all weights once, reads of each completion the keys and values of all tokens so far (`cache` bytes
    each: 2 * layers * key-value heads * head dimension * 2) and writes its logits.

    Args:
        shape: The model's.
        weight_bytes: Of all weights, tied ones once.
        lengths: Tokens of each completion's prompt.
        new_tokens: Of each completion; steps count from 0.
        bandwidth: Bytes a second.
    """
    head_dim = shape.hidden_size // shape.num_attention_heads
    cache = 2 * shape.num_hidden_layers * shape.num_key_value_heads * head_dim * 2
    logits = 2 * len(lengths) * shape.vocab_size
    columns = sum(new_tokens * length + new_tokens * (new_tokens - 1) // 2 for length in lengths)
    return len(lengths) * new_tokens / ((new_tokens * (weight_bytes + logits) + cache * columns) / bandwidth)


def bound_of(row: Row, model: Any, lengths: Sequence[int], new_tokens: int) -> float | None:
    """`bound_tokens_per_s` at the device's published bandwidth; None of a device that is not known."""
    import torch

    name = "" if row.dry else torch.cuda.get_device_name()
    bandwidth = next((value for part, value in BANDWIDTHS.items() if part in name), None)
    weight_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return bandwidth and bound_tokens_per_s(row.shape, weight_bytes, lengths, new_tokens, bandwidth)


def seconds_of(row: Row, call: Callable[[], Any]) -> float:
    """Seconds that a call takes, with what it left to the device."""
    import torch

    started = time.perf_counter()
    call()
    if not row.dry:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def fitting_length(row: Row, draw: Callable[[int], Any], share: float) -> int:
    """Tokens of a completion that can be drawn in this share of the time that is left: the load's, or fewer.

    Two short lengths are drawn for it, each once to warm up. Fewer tokens have a shorter cache, which flatters a side;
    so their number is written with the figures.
    """
    wanted = load_of(row).new_tokens
    short, longer = wanted // 64, wanted // 16
    for length in (short, longer):
        draw(length)
    first, second = (seconds_of(row, partial(draw, length)) for length in (short, longer))
    each = max((second - first) / (longer - short), 1e-6) * SLOWER_LATER
    left = (row.until - time.monotonic()) * share - first
    return max(longer, min(wanted, int(left / each) // longer * longer))


def memory(row: Row) -> dict[str, Any]:
    """Peaks since the last reset: of what tensors held, and of what was taken from the device, graphs included."""
    import torch

    if row.dry:
        return {"peak_gb": None}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


def reset_memory(row: Row) -> None:
    """Begin to look for peaks anew."""
    import torch

    if not row.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_steps(
    row: Row, setting: Any, step: Step, length: int, more: Callable[[float], dict[str, Any]], is_warm: bool = False
) -> None:
    """Write what steps took; the first is left out, unless all is warm already or there is time for no other."""
    reset_memory(row)
    found: list[tuple[float, float, int]] = []
    while len(found) < NUM_STEPS + (not is_warm) and (
        not found or time.monotonic() + 1.1 * sum(found[-1][:2]) < row.until
    ):
        found.append(step(len(found)))
    write_steps(row, setting, found, length, more, is_warm)


def write_steps(
    row: Row, setting: Any, found: Sequence[tuple[float, float, int]], length: int,
    more: Callable[[float], dict[str, Any]], is_warm: bool = False,
) -> None:  # fmt: skip
    """Write the medians of steps, as `time_steps` measures them."""
    timed = found if is_warm else found[1:] or found
    drawing, updating = (statistics.median(one[place] for one in timed) for place in (0, 1))
    tokens = sum(one[2] for one in timed) / len(timed)
    rates = [one[2] / (one[0] + one[1]) for one in timed]
    row.write(
        setting=asdict(setting), tokens_per_s=round(statistics.median(rates), 1),
        spread=[round(min(rates), 1), round(max(rates), 1)], steps=len(timed), warm=is_warm or len(found) > 1,
        draw_tokens_per_s=round(tokens / drawing, 1), draw_s=round(drawing, 3), update_s=round(updating, 3),
        new_tokens=length, first_s=round(sum(found[0][:2]), 2), **memory(row), **more(updating),
    )  # fmt: skip
