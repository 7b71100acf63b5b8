"""Seconds of a training step and of drawing completions, from FLOPs and bytes on a GPU, from timed parts on a CPU.

GPU, training: model FLOPs over peak times a share of it, which published runs of others reached; it has not been
measured here. Drawing: a step of all slots takes as long as reading the weights and the cache of keys and values, or
as its FLOPs, whichever is longer.

CPU: the parts that `probe.py` timed on this machine, added up. A step over several processes costs what the slowest of
equal shares does; what they exchange is left out.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from derivatives.planning.devices import Device
from derivatives.planning.memory import Load, cache_bytes, memory_of, trained_parameters
from derivatives.planning.questions import DrawQuestion, Found, TrainQuestion
from derivatives.planning.shape import BF16, Shape

PUBLISHED_MFU = ((0.494e9, 0.45), (1.544e9, 0.55), (3.086e9, 0.58), (7.616e9, 0.60), (14.77e9, 0.55))
"""Parameters, and the share of an H100's bf16 peak that llmq publishes for Qwen2.5 of that size on one H100 (149k, 59k,
31k, 14k and 6.3k tokens/s, as 6 FLOPs per weight and token): hand-written CUDA, so a mark to strive for."""
SHARDED_SHARE = 0.60
"""torchtitan publishes 33 to 39% for 8 billion parameters over 8 H100 with FSDP2 and selective recomputation, which is
this share of llmq's figure for one."""
TENSOR_SHARE = {1: 1.0, 2: 0.907, 4: 0.865, 8: 0.796}
"""Ranks that share each layer, and what is left of a rank's speed: Megatron-LM 1.0's weak scaling on the V100 of one
DGX-2H (nv-adlr.github.io/MegatronLMV1, table 1). More ranks count as eight."""
RECOMPUTE_TIME = {"none": 1.0, "selective": 1.10, "full": 1.31}
"""Measured on one CPU core (docs/training.md), not on a GPU."""
BANDWIDTH_SHARE = 0.6
"""Of a GPU's bandwidth that a decode step reaches. A guess."""
STEP_OVERHEAD_S = 5e-6
"""Of a layer of a replayed decode step on a GPU. A guess."""
PUBLISHED = "from data sheets, published figures of others and guesses; not measured here"
TIMED = "parts timed on this machine just now"


@dataclass(frozen=True)
class TrainWork:
    """One optimizer step, over all processes."""

    tokens: float
    trained: float
    document_tokens: float
    """Length of the document that a token lies in, on average: the sum of squared lengths over the sum of lengths."""


@dataclass(frozen=True)
class DrawWork:
    """Completions that are drawn at once."""

    completions: float
    prompts: float
    prompt_tokens: float
    mean_tokens: float
    max_new_tokens: int

    def share_of(self, ranks: int) -> DrawWork:
        """What each of several ranks draws."""
        return replace(self, completions=max(1.0, self.completions / ranks), prompts=max(1.0, self.prompts / ranks))


def train_question(load: Load, loss: str = "cross_entropy") -> TrainQuestion:
    """What the probe is asked about a step of this load."""
    return TrainQuestion(
        load.shape,
        load.precision,
        load.recompute,
        load.rank,
        load.row_tokens,
        load.document_tokens,
        max(1, load.trained_tokens),
        "cross_entropy" if loss == "cross_entropy" else "log_probs",
        load.targets,
    )


def draw_question(load: Load, work: DrawWork) -> DrawQuestion:
    """What the probe is asked about drawing."""
    work = work.share_of(load.num_processes)
    columns = round(work.prompt_tokens + (work.mean_tokens + work.max_new_tokens) / 2)
    columns = -(-columns // 32) * 32
    rows = int(min(cache_bytes(load)[1], work.completions))
    prompt = max(2, round(work.prompt_tokens))
    return DrawQuestion(load.shape, load.precision, max(1, rows), columns, prompt, load.rank, load.targets)


def mfu_of(shape: Shape, num_processes: int) -> float:
    """Share of a GPU's peak, between the published sizes by the logarithm of their parameters."""
    sizes = [math.log(size) for size, _ in PUBLISHED_MFU]
    place = math.log(shape.parameters)
    index = min(max(bisect.bisect(sizes, place), 1), len(sizes) - 1)
    (left, low), (right, high) = (
        (sizes[number], PUBLISHED_MFU[number][1]) for number in (index - 1, index)
    )
    share = low + (high - low) * (min(max(place, sizes[0]), sizes[-1]) - left) / (right - left)
    return share * (SHARDED_SHARE if num_processes > 1 else 1.0)


def flops_of(load: Load, work: TrainWork) -> float:
    """Model FLOPs of a step."""
    return load.shape.training_flops(work.tokens, work.tokens * work.document_tokens, work.trained, load.rank)


def step_seconds(
    load: Load, work: TrainWork, device: Device, found: Found | None, loss: str = "cross_entropy"
) -> float:
    """Seconds of one optimizer step, or NaN where nothing was timed."""
    ranks = load.num_processes
    if device.kind == "cuda":
        assert device.peak is not None
        share = next((share for parts, share in TENSOR_SHARE.items() if parts >= load.tensor_parallel), None)
        pace = device.peak * mfu_of(load.shape, ranks) * (share or min(TENSOR_SHARE.values()))
        return flops_of(load, work) / ranks / pace * RECOMPUTE_TIME[load.recompute]
    times = _answer(found, train_question(load, loss))
    if times is None:
        return math.nan
    tokens, trained = work.tokens / ranks, work.trained / ranks
    rows = max(1, math.ceil(tokens * load.tensor_parallel / load.row_tokens))
    layers = load.shape.layers * times["layer_s_per_token"] * tokens
    head = rows * times["row_s"] + trained * times["head_s_per_token"]
    return layers + head + times["optimizer_s_per_parameter"] * trained_parameters(load) / ranks


def draw_seconds(load: Load, work: DrawWork, device: Device, found: Found | None) -> float:
    """Seconds to draw completions, or NaN where nothing was timed.

    All slots step together; a step costs a fixed part and one for each row. The last completions end alone. Each rank
    draws an equal share.
    """
    work = work.share_of(load.num_processes)
    slots = min(cache_bytes(load)[1], work.completions)
    tokens = work.completions * work.mean_tokens
    waves = tokens / slots if work.completions > slots else 0.0
    steps = max(waves + (work.max_new_tokens - work.mean_tokens if waves else 0.0), work.max_new_tokens)
    if device.kind == "cuda":
        return _draw_on_gpu(load, work, device, steps, tokens)
    times = _answer(found, draw_question(load, work))
    if times is None:
        return math.nan
    layers = load.shape.layers
    whole, few = (layers * times[f"layer_s_{name}"] + times[f"ends_s_{name}"] for name in ("all", "few"))
    rows, few_rows = times["rows_all"], times["rows_few"]
    each = max(0.0, whole - few) / (rows - few_rows) if rows > few_rows else 0.0
    fixed = max(0.0, whole - each * rows)
    prefill = times["prefill_s_per_token"] * layers * work.prompts * work.prompt_tokens
    return fixed * steps + each * tokens + prefill


def _draw_on_gpu(load: Load, work: DrawWork, device: Device, steps: float, tokens: float) -> float:
    assert device.bandwidth is not None and device.peak is not None
    shape = load.shape
    read = (shape.parameters - (0 if shape.tied else shape.head_parameters)) * BF16
    columns = work.prompt_tokens + work.mean_tokens / 2
    bytes_read = steps * read + tokens * columns * shape.kv_bytes_per_token()
    flops = shape.forward_flops(tokens, tokens * columns, tokens)
    flops += shape.forward_flops(work.prompts * work.prompt_tokens, work.prompts * work.prompt_tokens**2, 0)
    moving = bytes_read / (device.bandwidth * BANDWIDTH_SHARE)
    return max(moving, flops / (device.peak * mfu_of(shape, 1))) + steps * shape.layers * STEP_OVERHEAD_S


def _answer(found: Found | None, question: TrainQuestion | DrawQuestion) -> Mapping[str, float] | None:
    return None if found is None else found.answers.get(question)


def memory_limit(device: Device) -> float:
    """Bytes that a stage's process may take of a device: all of a GPU, and of a CPU's memory the share of each rank."""
    return device.memory / (device.num_processes if device.kind == "cpu" else 1)


def fits(load: Load, device: Device) -> bool:
    """Whether a stage's peak lies within the device."""
    return memory_of(load).total <= memory_limit(device)
