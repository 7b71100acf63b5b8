"""The state of a running batch: one slot per completion in progress.

A slot holds the key-value cache of its row, the token to feed next, and the tokens drawn so far. `advance` moves
every slot by one token without asking the host anything, so that on CUDA it is captured as a graph once per shape
and replayed; the tensors keep their addresses there. On CPU the cache is resized to what is in use instead, since a
batched product of a part of it would copy that part first.

Shape letters: B slots, L columns of the cache, N tokens of a completion, K key-value heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from configs.settings.common import Sampling
from derivatives.rollout.forward import Weights, decode_step
from derivatives.rollout.noise import uniforms
from derivatives.rollout.sampling import next_tokens


@dataclass
class Slots:
    """Tensors of all slots. Columns of the outputs beyond `counts_B` hold leftovers, or, up to `forced_B`, tokens that
    are to be fed instead of drawn."""

    cache: Tensor  # [layers, 2, B, K, L, D]
    tokens_B: Tensor
    positions_B: Tensor
    counts_B: Tensor
    streams_B: Tensor
    active_B: Tensor
    forced_B: Tensor
    out_tokens_BN: Tensor
    out_log_probs_BN: Tensor
    graphs: dict[tuple, torch.cuda.CUDAGraph] = field(default_factory=dict)

    @staticmethod
    def create(weights: Weights, num_slots: int, num_columns: int, max_new_tokens: int) -> Slots:
        """Empty slots on the weights' device."""
        device = weights.device
        shape = (len(weights.layers), 2, num_slots, weights.num_kv_heads, num_columns, weights.head_dim)
        return Slots(
            # Zeros, for a masked column is multiplied by 0, and 0 times what lies in fresh memory may be NaN.
            cache=torch.zeros(shape, dtype=weights.dtype, device=device),
            tokens_B=torch.zeros(num_slots, dtype=torch.int64, device=device),
            positions_B=torch.zeros(num_slots, dtype=torch.int64, device=device),
            counts_B=torch.zeros(num_slots, dtype=torch.int64, device=device),
            streams_B=torch.zeros(num_slots, dtype=torch.int64, device=device),
            active_B=torch.zeros(num_slots, dtype=torch.bool, device=device),
            forced_B=torch.zeros(num_slots, dtype=torch.int64, device=device),
            # One column more: a finished slot goes on writing to the column after its last token.
            out_tokens_BN=torch.zeros((num_slots, max_new_tokens + 1), dtype=torch.int64, device=device),
            out_log_probs_BN=torch.zeros((num_slots, max_new_tokens + 1), dtype=torch.float32, device=device),
        )

    def resize(self, num_rows: int, num_columns: int) -> None:
        """Give the cache these sizes, keeping what lies inside; on CUDA it stays as it is."""
        old = self.cache
        if old.is_cuda or (old.shape[2], old.shape[4]) == (num_rows, num_columns):
            return
        rows, columns = min(num_rows, old.shape[2]), min(num_columns, old.shape[4])
        self.cache = old.new_zeros((*old.shape[:2], num_rows, old.shape[3], num_columns, old.shape[5]))
        self.cache[:, :, :rows, :, :columns] = old[:, :, :rows, :, :columns]

    def fits(self, num_slots: int, num_columns: int, max_new_tokens: int) -> bool:
        """Whether these tensors can be used again for such a generation."""
        return (
            self.cache.shape[2] >= num_slots  # of more, those that stay empty are left out as soon as nothing waits
            and self.cache.shape[4] >= num_columns
            and self.out_tokens_BN.shape[1] > max_new_tokens
        )

    def fill(self, rows: list[int], prefix: Tensor, prefix_rows: list[int], last: list[tuple[int, int, int]]) -> None:
        """Start completions in free slots.

        Args:
            rows: Slots to fill.
            prefix: Keys and values of some prompts without their last token, `[layers, 2, prompts, K, T, D]`.
            prefix_rows: For each slot, its prompt's row in `prefix`.
            last: For each slot, the prompt's last token, its position and the stream of random numbers.
        """
        device = self.tokens_B.device
        rows_R = torch.tensor(rows, device=device)
        self.resize(self.cache.shape[2], max(self.cache.shape[4], prefix.shape[4]))
        if prefix.shape[4]:
            source_R = torch.tensor(prefix_rows, device=device)
            self.cache[:, :, rows_R, :, : prefix.shape[4]] = prefix[:, :, source_R]
        values = torch.tensor(last, device=device)
        self.tokens_B[rows_R], self.positions_B[rows_R], self.streams_B[rows_R] = values.unbind(1)
        self.counts_B[rows_R] = 0
        self.forced_B[rows_R] = 0
        self.active_B[rows_R] = True

    def resume(self, rows: list[int], counts: list[int], fed: list[list[int]]) -> None:
        """Let slots go on that stand still after a token that is none of theirs to end with.

        Args:
            rows: The slots.
            counts: Tokens that each has.
            fed: Tokens that go through each next, before it draws again.
        """
        device = self.tokens_B.device
        rows_R, counts_R = torch.tensor(rows, device=device), torch.tensor(counts, device=device)
        self.tokens_B[rows_R] = self.out_tokens_BN[rows_R, counts_R - 1]
        self.positions_B[rows_R] += 1
        self.active_B[rows_R] = True
        for row, count, ids in zip(rows, counts, fed, strict=True):
            if ids:
                self.out_tokens_BN[row, count : count + len(ids)] = torch.tensor(ids, device=device)
                self.forced_B[row] = count + len(ids)

    def clear(self, rows_R: Tensor | slice = slice(None)) -> None:
        """Leave slots free. A free slot still takes part in each step, so it must point inside the visible cache."""
        for tensor in (self.tokens_B, self.positions_B, self.counts_B, self.active_B):
            tensor[rows_R] = 0

    def move(self, sources: list[int], targets: list[int]) -> None:
        """Copy slots over free ones, so that those in progress lie together at the front."""
        source_R = torch.tensor(sources, device=self.tokens_B.device)
        target_R = torch.tensor(targets, device=self.tokens_B.device)
        self.cache[:, :, target_R] = self.cache[:, :, source_R]
        for tensor in (
            self.tokens_B, self.positions_B, self.counts_B, self.streams_B, self.active_B, self.forced_B,
            self.out_tokens_BN, self.out_log_probs_BN,
        ):  # fmt: skip
            tensor[target_R] = tensor[source_R]


@dataclass(frozen=True)
class StepRule:
    """What one step of a generation computes; equal rules may share a captured graph. `feeds` is with tools."""

    sampling: Sampling
    num_real_tokens: int
    pointers: tuple[int, ...]
    feeds: bool = False


def advance(
    slots: Slots, weights: Weights, rotary: Tensor, stops_V: Tensor, rule: StepRule, shape: tuple[int, int]
) -> None:
    """Draw the next token of the first `shape[0]` slots, looking at `shape[1]` columns of the cache.

    A slot ends after a stop token (which it keeps) or `max_new_tokens`; an ended slot stands still. What is to be fed
    comes in the place of what is drawn, and ends no slot before `max_new_tokens`.
    """
    num_rows, num_columns = shape
    tokens_B, positions_B = slots.tokens_B[:num_rows], slots.positions_B[:num_rows]
    counts_B, active_B = slots.counts_B[:num_rows], slots.active_B[:num_rows]
    cache = slots.cache[:, :, :num_rows, :, :num_columns]
    logits_BV = decode_step(weights, tokens_B, positions_B, cache, rotary)
    drawn = uniforms(slots.streams_B[:num_rows], counts_B)
    new_tokens_B, log_probs_B = next_tokens(logits_BV, drawn, rule.sampling, rule.num_real_tokens)
    rows = torch.arange(num_rows, device=tokens_B.device)
    stops_B = stops_V[new_tokens_B]
    if rule.feeds:
        forced_B = counts_B < slots.forced_B[:num_rows]
        new_tokens_B = torch.where(forced_B, slots.out_tokens_BN[rows, counts_B], new_tokens_B)
        log_probs_B = log_probs_B.masked_fill(forced_B, 0.0)
        stops_B = stops_V[new_tokens_B] & ~forced_B
    slots.out_tokens_BN[rows, counts_B] = new_tokens_B
    slots.out_log_probs_BN[rows, counts_B] = log_probs_B
    counts_B += active_B
    ends_B = stops_B | (counts_B >= rule.sampling.max_new_tokens)
    active_B &= ~ends_B
    positions_B += active_B
    tokens_B.copy_(torch.where(active_B, new_tokens_B, tokens_B))


def advance_by_graph(
    slots: Slots, weights: Weights, rotary: Tensor, stops_V: Tensor, rule: StepRule, shape: tuple[int, int]
) -> None:
    """`advance` on CUDA: captured at the first step of a shape, replayed after that."""
    key = (rule, shape)
    graph = slots.graphs.get(key)
    if graph is None:
        # A capture computes nothing, and what it needs must be initialised before: run the step for real once on a
        # side stream with every slot put back as it was.
        saved = [t.clone() for t in (slots.tokens_B, slots.positions_B, slots.counts_B, slots.active_B)]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            advance(slots, weights, rotary, stops_V, rule, shape)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, old in zip((slots.tokens_B, slots.positions_B, slots.counts_B, slots.active_B), saved, strict=True):
            tensor.copy_(old)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(slots.graphs.values())).pool() if slots.graphs else None
        with torch.cuda.graph(graph, pool=pool):
            advance(slots, weights, rotary, stops_V, rule, shape)
        slots.graphs[key] = graph
    graph.replay()
