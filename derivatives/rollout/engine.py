"""In-process rollouts: many completions per prompt from the trainer's own weights, with continuous batching.

`RolloutEngine(model, tokenizer).generate(...)` keeps a fixed number of slots busy: each distinct prompt goes through
the model once, its keys and values are copied into the slots of its samples, and a slot whose completion ends is
refilled before the next step. When nothing waits any more, the slots still in progress are moved together, so that
ended ones cost no work.

A completion is determined by (seed, key of its prompt, sample index) and the logits; neither the batch nor the order
decides what is drawn. Logits of two batch shapes may differ by rounding. Works on CPU and on one CUDA device
(there each step is a replayed CUDA graph). Not covered: more than one device, models other than Qwen2, beams.

With tools (`tools.py`), a slot whose completion has closed a program stands still while that runs and the others go on
(`slot_turns.py`); then the output's tokens go through the same step as drawn ones do, in its own cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.common import Sampling
from derivatives.rollout.forward import Weights, as_qwen2, prefill, read_weights, rotary_table
from derivatives.rollout.noise import stream_of
from derivatives.rollout.slot_turns import SlotTurns
from derivatives.rollout.slots import Slots, StepRule, advance, advance_by_graph
from derivatives.rollout.tools import Fed, Toolbox, tokens_with_fences
from derivatives.training.model import num_real_tokens, stop_ids

_NUM_SLOTS = 256
_COLUMN_BLOCK = {"cpu": 32, "cuda": 128}
"""Columns by which the visible cache grows; coarse on CUDA, where each size is a graph of its own."""
_STEPS_PER_CHECK = {"cpu": 1, "cuda": 4}
"""Steps between looks at which slots ended; a look makes the host wait for the device."""
_STEPS_PER_READING = 16
"""Steps between decodings of what was drawn so far, where a text is looked for."""
_STEPS_WORTH_COPIES = 16
"""With as many steps ahead on a CPU, copies of the weights in the order of its products pay (`packed_weights.py`)."""
_PREFILL_TOKENS = {"cpu": 4096, "cuda": 32768}
_SMALL_DEVICE, _SMALL_PREFILL = 40e9, 8192
"""Bytes of a GPU below which a prefill takes so many tokens."""
_CACHE_SHARE, _ROOM_SHARE = 0.3, 0.5
"""Of a GPU's memory, and of what the weights leave of it: the cache takes the smaller. Neither depends on what is free
at the moment, which would decide about rounding."""
_CPU_CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Completion:
    """One completion. Its stop token, if it has one, is part of `token_ids` but not of `text`.

    Attributes:
        token_ids: Drawn tokens, and between them those that an interpreter wrote.
        log_probs: Of each token under the distribution drawn from; 0 where it was fed.
        finish_reason: `stop` or `length`; with tools also those of `tools.py`.
        text: All of it, decoded.
        fed: Which tokens were fed; one entry for each program that ran.
        fault: Why the sandbox failed, where the finish reason is `fault`.
    """

    token_ids: list[int]
    log_probs: list[float]
    finish_reason: str
    text: str
    fed: tuple[Fed, ...] = ()
    fault: str = ""

    @property
    def drawn(self) -> list[bool]:
        """For each token, whether the model drew it."""
        flags = [True] * len(self.token_ids)
        for one in self.fed:
            flags[one.start : one.end] = [False] * (one.end - one.start)
        return flags

    @property
    def num_drawn(self) -> int:
        """Tokens that the model drew."""
        return len(self.token_ids) - sum(one.end - one.start for one in self.fed)


@dataclass(frozen=True)
class _Prefix:
    """Keys and values of a few prompts, and where each prompt's row is."""

    cache: Tensor
    row_of: dict[int, int]


OnCompletion = Callable[[int, int, Completion], None]
"""Called with the prompt's index, the sample's index and the completion as soon as it ends."""


def cache_budget(device_bytes: float, weight_bytes: float) -> int:
    """Bytes of a GPU that the key-value cache may take."""
    return max(0, int(min(_CACHE_SHARE * device_bytes, _ROOM_SHARE * (device_bytes - weight_bytes))))


class RolloutEngine:
    """Generates from a live `Qwen2ForCausalLM`; keeps nothing of its weights from one call to the next."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        num_slots: int | None = None,
        tools: Toolbox | None = None,
    ) -> None:
        self.model, self.tokenizer, self.tools = as_qwen2(model), tokenizer, tools
        self.device: torch.device = self.model.model.embed_tokens.weight.device
        self.num_real_tokens = num_real_tokens(tokenizer)
        self.stop_ids = frozenset(stop_ids(tokenizer))
        self.num_slots = num_slots or _NUM_SLOTS
        self.prefill_tokens = _PREFILL_TOKENS[self.device.type]
        if self.device.type == "cuda" and torch.cuda.get_device_properties(self.device).total_memory < _SMALL_DEVICE:
            self.prefill_tokens = _SMALL_PREFILL
        self._slots: Slots | None = None
        self._rotary = torch.empty(0)
        stops_V = torch.zeros(self.model.model.embed_tokens.weight.shape[0], dtype=torch.bool)
        stops_V[list(self.stop_ids)] = True
        if tools is not None:  # a slot stands still after these until it was looked at
            stops_V[tokens_with_fences(tokenizer, self.num_real_tokens)] = True
        self.stops_V = stops_V.to(self.device)

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[str | int] | None = None,
        on_completion: OnCompletion | None = None,
        stop_text: str | Sequence[str] | None = None,
    ) -> list[list[Completion]]:
        """Complete every prompt `num_samples` times.

        Args:
            prompts: Token ids, none empty.
            num_samples: Completions of each prompt.
            sampling: Temperature 0 is greedy.
            seed: Of all draws.
            keys: Name of each prompt's random numbers; by default its index.
            on_completion: Called as completions end, in the order in which they end.
            stop_text: A completion that holds this text, or one of these, is ended soon after (not cut at it).

        Returns:
            For each prompt, in the given order, its completions by sample index.
        """
        if not prompts:
            return []
        self._check(prompts, sampling)
        names = list(keys) if keys is not None else list(range(len(prompts)))
        with torch.inference_mode():
            run = _Run(self, prompts, num_samples, sampling, lambda i, s: stream_of(seed, names[i], s))
            run.on_completion = on_completion
            run.stop_texts = (stop_text,) if isinstance(stop_text, str) else tuple(stop_text or ())
            return run.finish()

    def release(self) -> None:
        """Free the cache and the captured graphs; the next generation makes them anew."""
        self._slots = None

    def _check(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        if not all(prompts):
            raise UserError(
                f"prompts: number {[bool(p) for p in prompts].index(False)} is empty; give at least one token"
            )
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        limit = self.model.config.max_position_embeddings
        if longest > limit:
            raise UserError(
                f"sampling.max_new_tokens: {sampling.max_new_tokens} after the longest prompt makes {longest} "
                f"positions; the model has {limit}: lower it or drop long prompts"
            )

    def slots_for(self, weights: Weights, num_columns: int, num_completions: int, max_new_tokens: int) -> Slots:
        """Slots to use; on CUDA kept from one generation to the next while they fit, with their graphs."""
        block = _COLUMN_BLOCK[self.device.type]
        num_columns = -(-num_columns // block) * block
        size = weights.embedding.element_size()
        column_bytes = 2 * len(weights.layers) * weights.num_kv_heads * weights.head_dim * size
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            budget = cache_budget(total, sum(parameter.nbytes for parameter in self.model.parameters()))
        else:
            budget = _CPU_CACHE_BYTES
        num_slots = max(1, min(self.num_slots, num_completions, budget // (column_bytes * num_columns)))
        if self.device.type == "cpu":
            self._rotary = rotary_table(self.model, num_columns)
            return Slots.create(weights, num_slots, block, max_new_tokens)
        if self._slots is None or not self._slots.fits(num_slots, num_columns, max_new_tokens):
            self._slots = None
            self._slots = Slots.create(weights, num_slots, num_columns, max_new_tokens)
            self._rotary = rotary_table(self.model, num_columns)
        self._slots.clear()
        return self._slots

    @property
    def rotary(self) -> Tensor:
        """Cosines and sines for the columns of the current slots."""
        return self._rotary


class _Run:
    """One call of `generate`: which sample sits in which slot, and what still waits."""

    def __init__(
        self,
        engine: RolloutEngine,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        stream: Callable[[int, int], int],
    ) -> None:
        self.engine, self.prompts, self.sampling, self.stream = engine, prompts, sampling, stream
        self.kind = engine.device.type
        self.weights = read_weights(engine.model, sampling.max_new_tokens >= _STEPS_WORTH_COPIES)
        longest = max(map(len, prompts))
        self.slots = engine.slots_for(
            self.weights, longest + sampling.max_new_tokens, len(prompts) * num_samples, sampling.max_new_tokens
        )
        # Longest first: rows of like length share the batch, and the tail is short.
        self.order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        self.waiting = deque((i, s) for i in self.order for s in range(num_samples))
        self.results: list[list[Completion | None]] = [[None] * num_samples for _ in prompts]
        self.num_rows = self.slots.cache.shape[2]
        self.held: list[tuple[int, int] | None] = [None] * self.num_rows
        self.positions = [0] * self.num_rows
        self.prefix = _Prefix(torch.empty(0), {})
        self.num_prefilled = 0
        self.on_completion: OnCompletion | None = None
        self.stop_texts: tuple[str, ...] = ()
        self.turns: SlotTurns | None = None
        if engine.tools is not None:
            self.turns = SlotTurns(engine.tools, engine.tokenizer, engine.stop_ids, sampling.max_new_tokens)
        self.num_steps = 0

    def finish(self) -> list[list[Completion]]:
        """Run to the end."""
        pointers = tuple(p.data_ptr() for p in self.engine.model.parameters())
        feeds = self.turns is not None
        rule = StepRule(self.sampling, self.engine.num_real_tokens, pointers if self.kind == "cuda" else (), feeds)
        step = advance_by_graph if self.kind == "cuda" else advance
        block, num_steps = _COLUMN_BLOCK[self.kind], _STEPS_PER_CHECK[self.kind]
        num_since_read = 0
        while True:
            self._refill()
            self._gather_rows()
            if self.num_rows == 0:
                break
            visible = max(self.positions[row] for row in range(self.num_rows) if self.held[row] is not None) + num_steps
            shape = self.num_rows, min(-(-visible // block) * block, len(self.engine.rotary))
            self.slots.resize(*shape)
            for _ in range(num_steps):
                step(self.slots, self.weights, self.engine.rotary, self.engine.stops_V, rule, shape)
            for row in range(self.num_rows):
                if not self._runs_program(row):
                    self.positions[row] += num_steps
            self.num_steps += num_steps
            num_since_read += num_steps
            if self.stop_texts and num_since_read >= _STEPS_PER_READING:
                self._stop_at(self.stop_texts)
                num_since_read = 0
            if self.turns is not None:
                self._take_turns(self.turns)
            self._collect()
        return self.results  # type: ignore[return-value]  # every place is filled by now

    def _refill(self) -> None:
        """Give every free slot the next sample that waits."""
        free = [row for row in range(self.num_rows) if self.held[row] is None]
        while free and self.waiting:
            if self.waiting[0][0] not in self.prefix.row_of:
                self.prefix = self._prefill_next()
            rows, last = [], []
            prefix_rows = []
            while free and self.waiting and self.waiting[0][0] in self.prefix.row_of:
                row, (i, sample) = free.pop(0), self.waiting.popleft()
                prompt = self.prompts[i]
                self.held[row], self.positions[row] = (i, sample), len(prompt) - 1
                rows.append(row)
                prefix_rows.append(self.prefix.row_of[i])
                last.append((prompt[-1], len(prompt) - 1, self.stream(i, sample)))
            self.slots.fill(rows, self.prefix.cache, prefix_rows, last)

    def _prefill_next(self) -> _Prefix:
        """Keys and values of the next prompts, all but their last tokens, which the first step feeds."""
        first = self.num_prefilled
        width = max(len(self.prompts[self.order[first]]) - 1, 1)
        count = max(1, self.engine.prefill_tokens // width)
        chosen = self.order[first : first + count]
        self.num_prefilled += len(chosen)
        tokens_BT = torch.zeros((len(chosen), max(len(self.prompts[i]) for i in chosen) - 1), dtype=torch.int64)
        for row, i in enumerate(chosen):
            tokens_BT[row, : len(self.prompts[i]) - 1] = torch.tensor(self.prompts[i][:-1], dtype=torch.int64)
        row_of = {i: row for row, i in enumerate(chosen)}
        if tokens_BT.shape[1] == 0:
            return _Prefix(torch.empty((0, 0, 0, 0, 0)), row_of)
        self.prefix = _Prefix(torch.empty(0), {})  # freed before the next one is made
        return _Prefix(prefill(self.weights, tokens_BT.to(self.engine.device), self.engine.rotary), row_of)

    def _gather_rows(self) -> None:
        """When nothing waits, halve the batch (on CPU: trim it by a quarter) as slots run empty."""
        if self.waiting:
            return
        live = [row for row in range(self.num_rows) if self.held[row] is not None]
        if self.kind == "cuda":
            wanted = self.num_rows
            while live and wanted // 2 >= max(len(live), 8):
                wanted //= 2
        else:
            wanted = len(live) if len(live) <= self.num_rows * 3 // 4 else self.num_rows
        wanted = wanted if live else 0
        sources = [row for row in live if row >= wanted]
        targets = [row for row in range(wanted) if self.held[row] is None][: len(sources)]
        if sources:
            self.slots.move(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            self.held[target], self.positions[target] = self.held[source], self.positions[source]
            self.held[source] = None
        self.num_rows = wanted

    def _stop_at(self, stops: Sequence[str]) -> None:
        """End the completions that hold one of these texts."""
        counts = self.slots.counts_B[: self.num_rows].tolist()
        tokens = self.slots.out_tokens_BN[: self.num_rows].tolist()
        rows = [row for row in range(self.num_rows) if self.held[row] is not None]
        texts = self.engine.tokenizer.batch_decode([tokens[row][: counts[row]] for row in rows])
        found = [row for row, text in zip(rows, texts, strict=True) if any(stop in text for stop in stops)]
        if found:
            self.slots.active_B[torch.tensor(found, device=self.engine.device)] = False

    def _take_turns(self, turns: SlotTurns) -> None:
        """Look at the slots that stand still: let them go on, run their programs, or feed what those printed."""
        active = self.slots.active_B[: self.num_rows].tolist()
        counts = self.slots.counts_B[: self.num_rows].tolist()
        row_of = {key: row for row, key in enumerate(self.held[: self.num_rows]) if key is not None}
        ids = {
            key: self.slots.out_tokens_BN[row, : counts[row]].tolist() for key, row in row_of.items() if not active[row]
        }
        more: dict[tuple[int, int], list[int]] = {}
        for key in ids:
            if not turns.runs(key) and turns.goes_on(key, ids[key], self.num_steps, self.stop_texts):
                more[key] = []
        running = [key for key in ids if turns.runs(key)]
        for key in turns.due(running, self.num_steps, none_draws=len(running) == len(row_of)):
            if fed := turns.fed(key, ids[key]):
                more[key] = fed
        if not more:
            return
        self.slots.resume([row_of[key] for key in more], [len(ids[key]) for key in more], list(more.values()))
        for key in more:
            self.positions[row_of[key]] = len(self.prompts[key[0]]) - 1 + len(ids[key])

    def _collect(self) -> None:
        """Take what ended out of its slots."""
        still = self.slots.active_B[: self.num_rows].tolist()
        ended = [
            row
            for row in range(self.num_rows)
            if not still[row] and self.held[row] is not None and not self._runs_program(row)
        ]
        if not ended:
            return
        rows_R = torch.tensor(ended, device=self.engine.device)
        counts = self.slots.counts_B[rows_R].tolist()
        longest = max(counts)
        tokens = self.slots.out_tokens_BN[rows_R, :longest].tolist()
        log_probs = self.slots.out_log_probs_BN[rows_R, :longest].tolist()
        self.slots.clear(rows_R)
        for row, count, ids, values in zip(ended, counts, tokens, log_probs, strict=True):
            i, sample = self.held[row]  # type: ignore[misc]
            self.held[row] = None
            completion = self._completion((i, sample), ids[:count], values[:count])
            self.results[i][sample] = completion
            if self.on_completion is not None:
                self.on_completion(i, sample, completion)

    def _completion(self, key: tuple[int, int], ids: list[int], log_probs: list[float]) -> Completion:
        fed: tuple[Fed, ...] = ()
        reason, fault = "stop" if ids[-1] in self.engine.stop_ids else "length", ""
        if self.turns is not None:
            reason, fed, fault = self.turns.ended(key, ids, reason)
        return Completion(ids, log_probs, reason, text_of(self.engine.tokenizer, ids, reason), fed, fault)

    def _runs_program(self, row: int) -> bool:
        return self.turns is not None and self.turns.runs(self.held[row])


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: list[int], finish_reason: str) -> str:
    """The text of a completion, without the stop token that ended it."""
    return str(tokenizer.decode(token_ids[:-1] if finish_reason == "stop" else token_ids, skip_special_tokens=False))
