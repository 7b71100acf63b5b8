"""How fast this machine's CPU runs the parts of a stage: two layers of the model's shape, its output projection, its
optimizer, a step of the rollout engine. The code is that of the stages, the weights are made up.

    python -m derivatives.planning.probe < questions.json > answers.json

Reads `{"num_threads": N, "questions": [...], "folder": CHECKPOINT or null}` and answers each in turn. A part is timed a
few times, for about `BUDGET_S` seconds, and the least time counts, as other processes can only slow it down; on one
thread processor time is taken, which they hardly touch. Long rows and large vocabularies are cut to `MAX_FLOPS`, and
what was timed is told per token.

Imports torch; the rest of the planning does not. Not covered: GPUs, several processes (their exchanges).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.training import Lora, SftStage
from derivatives.losses.cross_entropy import (
    CHUNK_LOGITS,
    MIN_CHUNK_TOKENS,
    chunked_cross_entropy,
    chunked_log_probs,
    chunks,
)
from derivatives.planning.checks import facts_of
from derivatives.planning.questions import DrawQuestion, TrainQuestion, read_questions
from derivatives.planning.shape import Shape
from derivatives.rollout.forward import prefill, read_weights, rotary_table
from derivatives.rollout.slots import Slots, StepRule, advance
from derivatives.training import attention
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.forward import hidden_states
from derivatives.training.loop import set_up
from derivatives.training.lora import add_adapters
from derivatives.training.model import DTYPES, head_weight
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.recompute import recompute_layers

NUM_LAYERS = 2
MAX_FLOPS = 3e10
"""Of the timed layers' forward and backward passes: half a second on one core."""
ENOUGH_TOKENS, MIN_TOKENS = 512, 128
"""Shorter rows leave products waiting for their weights, so large layers are timed with these all the same."""
MAX_HEAD_WEIGHTS = 42_000_000
"""A narrower output projection fits better into caches: with a third of these weights it ran 17% too fast."""
BUDGET_S = 0.3
"""Seconds that one part may take, when it has been timed `MIN_TIMES`."""
MIN_TIMES, MAX_TIMES = 3, 10
HUGE_S = 2.0
"""A part that takes longer is timed twice."""


def least_seconds(work: Callable[[], object]) -> float:
    """The least time of a few runs; the first one, which makes kernels, is among them but hardly ever the least."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[float] = []
    while len(times) < MIN_TIMES or (len(times) < MAX_TIMES and sum(times) < BUDGET_S):
        started = clock()
        work()
        times.append(clock() - started)
        if len(times) == 2 and min(times) > HUGE_S:
            break
    return min(times)


def build(shape: Shape, precision: Literal["bf16", "fp32"], layers: int = NUM_LAYERS) -> Qwen2ForCausalLM:
    """A model of this shape with so few layers. Its weights are all alike: no product takes longer for that."""
    given: dict[str, Any] = {
        "hidden_size": shape.hidden, "num_hidden_layers": layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary, "tie_word_embeddings": True, "max_position_embeddings": shape.max_positions,
        "attn_implementation": attention.REGISTERED_NAME,
    }  # fmt: skip
    config = Qwen2Config(**given)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    rotary = type(model.model.rotary_emb)(config)  # its frequencies are worked out, not read
    model = model.to_empty(device="cpu")
    nn.Module.to(model, DTYPES[precision])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    model.model.rotary_emb = rotary
    model.tie_weights()
    attention.set_method(model, attention.choose("cpu", DTYPES[precision], shape.head_dim))
    return model.eval()


def answer_training(question: TrainQuestion) -> dict[str, float]:
    """Seconds of the parts of a step of training.

    `layer_s_per_token` of one layer, `row_s` of what a row costs whatever its length (gradients of the embedding and
    of the output projection), `head_s_per_token` that is trained on, `optimizer_s_per_parameter` of a step.
    """
    shape = _narrow(question.shape)
    model = build(shape, question.precision)
    if question.rank is not None:
        add_adapters(model, Lora(rank=question.rank, targets=question.targets), seed=0)
    recompute_layers(model, question.recompute)
    optimizer = MasterAdamW(model, SftStage(id="probe", data=("x.jsonl",), learning_rate=1e-9))
    batch = _row(question, shape)
    table: Tensor = model.model.embed_tokens.weight

    def whole() -> None:
        hidden_states(model, batch).sum().backward()

    def embedded() -> None:
        if table.requires_grad:
            nn.functional.embedding(batch.input_ids_T[None], table).sum().backward()

    def gradients() -> None:
        for master in optimizer.masters:
            master.grad = torch.zeros_like(master)

    def update() -> None:
        gradients()
        optimizer.step(1e-9)

    embedding_s = least_seconds(embedded)
    layers_s = max(least_seconds(whole) - embedding_s, 0.0) / NUM_LAYERS
    head = _head(model, question)
    wider = question.shape.vocabulary / shape.vocabulary
    num_trained = sum(master.numel() for master in optimizer.masters)
    return {
        "layer_s_per_token": layers_s / batch.num_tokens,
        "row_s": (embedding_s + head["row_s"]) * wider,
        "head_s_per_token": head["token_s"] * wider,
        "optimizer_s_per_parameter": max(least_seconds(update) - least_seconds(gradients), 0.0) / num_trained,
    }


def _narrow(shape: Shape) -> Shape:
    """The shape with a vocabulary that is timed quickly, and large enough that chunks of the loss stay as short."""
    rows = max(CHUNK_LOGITS // MIN_CHUNK_TOKENS, MAX_HEAD_WEIGHTS // shape.hidden)
    return replace(shape, vocabulary=min(shape.vocabulary, rows))


def _row(question: TrainQuestion, shape: Shape) -> PackedBatch:
    """A packed row of documents of the asked length, short enough to be timed."""
    flops = 3 * 2 * NUM_LAYERS * (shape.layer_weights + shape.query_width * question.document_tokens)
    enough = max(MIN_TOKENS, min(ENOUGH_TOKENS, int(3 * MAX_FLOPS / flops)))
    most = min(question.row_tokens, max(enough, int(MAX_FLOPS / flops)))
    # Like documents of real data they differ, so that some are padded; the longer ones weigh more.
    mean = min(question.document_tokens / 1.1, most)
    shares = [0.5 + number / 7 for number in range(8)] if mean * 8 <= most else [1.0]
    lengths = [max(1, round(mean * share)) for share in shares]
    rows: list[Row] = []
    total = 0
    for length in itertools.cycle(lengths):
        if rows and total + length > most:
            break
        rows.append(Row([number % min(shape.vocabulary, 2000) for number in range(length)]))
        total += length
    (batch,) = pack(rows, total)
    return batch


def _head(model: Qwen2ForCausalLM, question: TrainQuestion) -> dict[str, float]:
    """Seconds of the loss with its backward pass: of a row, and of each token that is trained on."""
    head_VD = head_weight(model)
    chunk = next(chunks(10**9, head_VD)).stop
    trained = max(1, question.trained_tokens)

    def seconds(num: int) -> float:
        hidden_TD = torch.full((num, head_VD.shape[1]), 0.01, dtype=head_VD.dtype, requires_grad=True)
        targets_T, weights_T = torch.zeros(num, dtype=torch.int64), torch.ones(num)

        def work() -> None:
            hidden_TD.grad = None
            if question.loss == "cross_entropy":
                chunked_cross_entropy(hidden_TD, head_VD, targets_T, weights_T).backward()
            else:
                chunked_log_probs(hidden_TD, head_VD, targets_T)[0].sum().backward()

        return least_seconds(work)

    if trained <= chunk:
        return {"row_s": seconds(trained), "token_s": 0.0}
    one, two = seconds(chunk), seconds(2 * chunk)
    token_s = max(two - one, 0.0) / chunk
    return {"row_s": max(one - token_s * chunk, 0.0), "token_s": token_s}


def answer_drawing(question: DrawQuestion) -> dict[str, float]:
    """Seconds of a decode step's parts, with all rows and with a quarter of them, and of a prefill."""
    shape = _narrow(question.shape)
    wider = question.shape.vocabulary / shape.vocabulary
    model = build(shape, question.precision)
    if question.rank is not None:
        add_adapters(model, Lora(rank=question.rank, targets=question.targets), seed=0)
    weights = read_weights(model)
    rule = StepRule(Sampling(temperature=1.0, max_new_tokens=10**6), shape.vocabulary, ())
    stops_V = torch.zeros(shape.vocabulary, dtype=torch.bool)
    rotary = rotary_table(model, question.columns)
    found = {}
    with torch.inference_mode():
        for name, rows in (("all", question.rows), ("few", max(1, question.rows // 4))):
            for layers in (1, NUM_LAYERS):
                part = replace(weights, layers=weights.layers[:layers])
                slots = Slots.create(part, rows, question.columns, 1)
                slots.active_B[:] = False  # so that nothing moves while it is timed
                slots.positions_B[:] = question.columns - 1
                step = partial(advance, slots, part, rotary, stops_V, rule, (rows, question.columns))
                found[name, layers] = least_seconds(step)
        length = max(2, min(question.prompt_tokens, question.columns))
        count = max(1, min(4096, int(MAX_FLOPS / (2 * NUM_LAYERS * shape.layer_weights))) // length)
        prefill_s = least_seconds(lambda: prefill(weights, torch.zeros((count, length), dtype=torch.int64), rotary))
    result = {"prefill_s_per_token": prefill_s / (count * length * NUM_LAYERS)}
    for name in ("all", "few"):
        layer_s = max(found[name, NUM_LAYERS] - found[name, 1], 0.0) / (NUM_LAYERS - 1)
        result[f"layer_s_{name}"] = layer_s
        result[f"ends_s_{name}"] = max(found[name, 1] - layer_s, 0.0) * wider
    return {**result, "rows_all": float(question.rows), "rows_few": float(max(1, question.rows // 4))}


@dataclass(frozen=True)
class Answers:
    """What the probe found."""

    answers: list[dict[str, float]]
    facts: dict[str, Any] | None


def answer(
    questions: Sequence[TrainQuestion | DrawQuestion], num_threads: int | None, folder: Path | None = None
) -> Answers:
    """Answers to all questions, in this process, and the facts of a checkpoint."""
    set_up(Machine(name="probe", num_threads=num_threads), seed=0)
    found = [
        answer_training(question) if isinstance(question, TrainQuestion) else answer_drawing(question)
        for question in questions
    ]
    return Answers(found, None if folder is None else facts_of(folder))


def main() -> int:
    """Read questions, print answers."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    given: dict[str, Any] = json.load(sys.stdin)
    folder = Path(given["folder"]) if given.get("folder") else None
    print(json.dumps(asdict(answer(read_questions(given["questions"]), given["num_threads"], folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
