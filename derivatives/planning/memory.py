"""Bytes that a stage holds at its peak, on one device, from the model's shape and the stage's settings.

    training   weights, FP32 masters, two moments, gradients (each divided over the ranks that share a model), layers
               and embedding gathered for a pass, activations kept for the backward pass, the one layer that is passed
               back through (made again where recomputed), the output projection, a frozen reference where there is one
               (not with adapters); on several ranks that draw as well, a whole copy of the weights on each
    drawing    weights, the key-value cache of all slots, keys and values of a prefill, logits

What a layer keeps of a token was counted by torch's profiler on CPU over six shapes (`bench_recompute.py`), and is
exact to 8 bytes there; with E hidden, A query, K key-value and F intermediate width, H heads and rank r, in bf16:

    none       16 E + 4 A + 4 H + 4 K + 8 F      (12 E with adapters, + 14 r)
    selective   6 E + 4 A + 4 H + 4 K + 4 F      (with adapters + 14 r, and the products of the narrow ones)
    full        2 E

Where T ranks share each layer (`tensor_parallel`), A, H, K and F are divided by T; E is not.

Documents of at most `SHORT_DOCUMENT` tokens attend without a fused kernel on CPU: scores are kept in place of sums.
There documents of different lengths are padded as well (`PADDING`).

What the process holds before any of it (libraries, CUDA's context) is a constant, measured on CPU, a guess on GPU.
Without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from derivatives.planning.shape import BF16, FP32, TARGETS, Shape

Mode = Literal["none", "selective", "full"]

SHORT_DOCUMENT = 256
"""As in `derivatives/training/document_attention.py` (a test holds the two equal)."""
THIN = 8
"""As in `derivatives/training/recompute.py`."""
CHUNK_LOGITS, MIN_CHUNK_TOKENS, CUDA_CHUNK_TOKENS = 2**21, 256, 1024
KEPT_BYTES, MAX_CHUNK_TOKENS = 2**27, 1024
"""As in `derivatives/losses/cross_entropy.py`."""
BY_INPUTS = ("o_proj", "down_proj")
"""As in `derivatives/training/tensor_parallel.py`: maps whose outputs are not cut."""
NUM_SLOTS, CPU_CACHE_BYTES, CACHE_SHARE, ROOM_SHARE = 256, 2 * 2**30, 0.3, 0.5
SMALL_DEVICE, SMALL_PREFILL = 40e9, 8192
PREFILL_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""As in `derivatives/rollout/engine.py`."""
PROCESS_BYTES = {"cpu": 0.53e9, "cuda": 1.5e9}
"""Libraries of a training stage (measured: torch 2.13, transformers 5.23); CUDA's context and fragments (a guess)."""
CPU_FRAGMENTS = 0.15
"""Of the activations, what a resident process holds besides. Fitted to the runs of `bench_plan.py`."""
CPU_CACHE_COPIES = 3
"""A cache that grows holds the old one beside the new one; a third was seen in the runs of `bench_plan.py`."""
PADDING = 1.12
"""Documents of different lengths, side by side on a CPU, with padding: attention holds so much more of them, and its
result twice. Counted over three draws of lengths."""


@dataclass(frozen=True)
class Drawing:
    """Completions drawn by the rollout engine."""

    completions: int
    prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class Load:
    """What decides the memory of a stage on one device."""

    shape: Shape
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["bf16", "fp32"] = "bf16"
    trains: bool = True
    recompute: Mode = "none"
    rank: int | None = None
    targets: tuple[str, ...] = TARGETS
    row_tokens: int = 8192
    """Tokens of one packed row."""
    num_rows: int = 2
    """Rows of one step on one rank; gradients of earlier ones are there while the last goes forward."""
    trained_tokens: int = 8192
    """Tokens of a row that the output projection is applied to, by one rank."""
    document_tokens: int = 1024
    num_processes: int = 1
    tensor_parallel: int = 1
    """Of them, those that share each layer."""
    has_reference: bool = False
    drawing: Drawing | None = None
    has_server: bool = False
    """It draws, elsewhere."""
    process_bytes: float | None = None
    device_bytes: float = 80e9
    """Of which the cache of completions takes a share at most."""


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes at the peak."""
        return sum(self.parts.values())


def memory_of(load: Load) -> Memory:
    """What a stage holds at its peak, on the device that holds most.

    Training and drawing take turns, so the larger of the two counts on top of what stays.
    """
    held = _held(load)
    drawing = _drawing(load) if load.drawing is not None and not load.has_server else {}
    step = _step(load) if load.trains else {}
    more = step if sum(step.values()) >= sum(drawing.values()) else drawing
    own = PROCESS_BYTES[load.device] if load.process_bytes is None else load.process_bytes
    return Memory({name: size for name, size in {**held, **more, "process": own}.items() if size > 0})


def _bytes(load: Load) -> int:
    return BF16 if load.precision == "bf16" else FP32


def trained_parameters(load: Load) -> int:
    """Parameters that have masters, moments and gradients."""
    return load.shape.parameters if load.rank is None else load.shape.adapter_parameters(load.rank, load.targets)


def _held(load: Load) -> dict[str, float]:
    """What stays from the first step to the last."""
    shape, each, ranks = load.shape, _bytes(load), load.num_processes
    if not load.trains:
        return {"weights": shape.parameters * each}
    trained = trained_parameters(load)
    sharded = ranks > 1
    # One process: FP32 weights are their own masters. Several: the sharded weights are the masters.
    weights = shape.parameters * each if load.rank is None else (shape.parameters + trained) * each
    masters = trained * FP32
    if load.rank is None and (sharded or load.precision == "fp32"):
        weights = 0
    found = {"weights": weights / ranks, "masters": masters / ranks, "moments": 2 * trained * FP32 / ranks}
    if sharded:
        # Two layers (one is fetched ahead) and the root, gathered; a layer's gradient before it is summed.
        root = shape.parameters - shape.layers * shape.layer_parameters
        layer = shape.layer_parameters / load.tensor_parallel
        found["gathered"] = (2 * layer + root) * each + max(layer, root) * FP32
        if load.drawing is not None and not load.has_server:  # `rollout/on_ranks.py`
            found["copy"] = (shape.parameters + (0 if load.rank is None else trained)) * each
    if load.has_reference and load.rank is None:  # with adapters the reference is the model with them off
        found["reference"] = shape.parameters * each / ranks
    return found


def _step(load: Load) -> dict[str, float]:
    """What a forward and a backward pass add, when most of it is there."""
    shape, each = load.shape, _bytes(load)
    gradients = trained_parameters(load) * FP32 / load.num_processes
    head, scores = head_bytes(load)
    kept = shape.layers * layer_bytes(load, load.recompute) + 3 * shape.hidden * each
    kept *= 1 + (CPU_FRAGMENTS if load.device == "cpu" else 0.0)
    passed = layer_bytes(load, "none")
    rows = load.row_tokens
    # While the last row's loss is worked out, all activations are there and the gradients of the rows before; a
    # single row's gradients come as its activations go.
    before = gradients if load.num_rows > 1 else 0.0
    at_loss = before + (kept + passed) * rows + head + scores
    embedding = 3 * shape.head_parameters * each if load.rank is None else 0
    at_end = gradients + embedding
    if at_loss >= at_end:
        parts = {"gradients": before, "activations": kept * rows, "head": head + scores}
        return parts | {"layer in hand": passed * rows}
    return {"gradients": gradients, "activations": 0.0, "head": embedding}


def layer_bytes(load: Load, mode: Mode) -> float:
    """Bytes that one layer keeps of one token for the backward pass."""
    shape = load.shape
    wide = _bytes(load) / BF16
    hidden, parts = shape.hidden, load.tensor_parallel
    query, kv, inner = (width // parts for width in (shape.query_width, shape.kv_width, shape.intermediate))
    heads = shape.heads // parts
    if mode == "full":
        return 2 * hidden * wide
    short = load.device == "cpu" and load.precision == "bf16" and load.document_tokens <= SHORT_DOCUMENT
    sums = 4 * heads
    if mode == "selective":
        attention: float = 2 * query if short else 4 * query + sums
        if load.device == "cpu" and not short:
            attention += 2 * query * (PADDING - 1)
        low = 0
        if load.rank is not None:
            sizes = {name: out // (1 if name in BY_INPUTS else parts) for name, (_, out) in shape.linear_maps().items()}
            outputs = [sizes[name] for name in load.targets if name in sizes]
            low = BF16 * (load.rank * len(outputs) + sum(out for out in outputs if out <= THIN * load.rank))
        return (6 * hidden + attention + 4 * kv + 4 * inner + low) * wide
    scores = float(2 * heads * load.document_tokens if short else sums)
    norms = 16 * hidden if load.rank is None else 12 * hidden + BF16 * load.rank * len(load.targets)
    attended = 4 * query + scores + 4 * kv
    if load.device == "cpu":
        attended = PADDING * (4 * query + 4 * kv) + PADDING**2 * scores + 2 * query
    return (norms + attended + 8 * inner) * wide


def head_bytes(load: Load) -> tuple[float, float]:
    """The gradients of the output projection while a loss is worked out, and the logits of one chunk of tokens."""
    shape, each = load.shape, _bytes(load)
    chunk = min(chunk_tokens(load), max(1, load.trained_tokens))
    if load.drawing is None:  # kept in the working precision; FP32 for a block of them, on a GPU for all
        ids = shape.vocabulary if load.device == "cuda" else min(shape.vocabulary, CHUNK_LOGITS // chunk)
        logits = chunk * (shape.vocabulary * each + ids * FP32)
    else:
        logits = chunk * shape.vocabulary * (2 * each + FP32)
    hidden = 2 * load.trained_tokens * shape.hidden * each
    # An FP32 sum over chunks, a chunk's product, and the result in the working precision.
    gradients = shape.head_parameters * (FP32 + each) if load.rank is None else 0
    return gradients + hidden, logits


def chunk_tokens(load: Load) -> int:
    """Tokens whose logits are held at a time."""
    if load.drawing is None:
        fitting = KEPT_BYTES // (load.shape.vocabulary * _bytes(load))
        return int(max(MIN_CHUNK_TOKENS, min(fitting, MAX_CHUNK_TOKENS)))
    if load.device == "cuda":
        return CUDA_CHUNK_TOKENS
    return max(MIN_CHUNK_TOKENS, CHUNK_LOGITS // load.shape.vocabulary)


def _drawing(load: Load) -> dict[str, float]:
    """The rollout engine's cache and its largest tensors."""
    assert load.drawing is not None
    shape, each, drawing = load.shape, _bytes(load), load.drawing
    cache, slots = cache_bytes(load)
    most = PREFILL_TOKENS[load.device]
    if load.device == "cuda" and load.device_bytes < SMALL_DEVICE:
        most = SMALL_PREFILL
    prefill = min(most, drawing.completions * drawing.prompt_tokens)
    keys = prefill * shape.kv_bytes_per_token(each)
    logits = slots * shape.vocabulary * (each + 3 * FP32)
    return {"cache": cache, "prefill": keys + prefill * 4 * shape.hidden * each, "logits": logits}


def cache_bytes(load: Load) -> tuple[float, int]:
    """The key-value cache at its largest, and how many slots it has."""
    assert load.drawing is not None
    column = load.shape.kv_bytes_per_token(_bytes(load))
    columns = load.drawing.prompt_tokens + load.drawing.max_new_tokens
    budget: float = CPU_CACHE_BYTES
    if load.device == "cuda":
        weights = load.shape.parameters * _bytes(load)
        budget = max(0.0, min(CACHE_SHARE * load.device_bytes, ROOM_SHARE * (load.device_bytes - weights)))
    slots = max(1, int(min(NUM_SLOTS, load.drawing.completions, budget // (column * columns))))
    return slots * columns * column * (CPU_CACHE_COPIES if load.device == "cpu" else 1), slots
