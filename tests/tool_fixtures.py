"""What the tests of tool use share: a tiny model that has learnt a few answers with programs by heart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from configs.settings.tools import ToolUse
from derivatives.rollout.tools import Toolbox
from derivatives.training.chat import conversation, encode_answer, encode_chat, encode_text
from derivatives.training.model import load_tokenizer
from tests.training_fixtures import tiny_model, write_tokenizer
from verifiers.interpreter import Interpreters, Output
from verifiers.tool_text import output_block


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


ANSWERS = {
    "a": fenced("print(6*7)") + output_block("42") + "So 42.",
    "b": fenced("x") + output_block("NameError: name 'x' is not defined") + fenced("3") + output_block("3") + "3",
    "c": "Hm:\n```output\n9\n```\n9",
    "d": "Just 5.",
    "e": fenced("print('```output')") + output_block("'''output") + "It.",
}
"""Questions and what the model has learnt to answer; it makes up an output in one of them."""


def learnt(
    folder: Path, answers: dict[str, str] | None = None, chat: bool = False
) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerBase]:
    """A model of bytes in FP32 that gives these answers, to the bare questions or to chat turns."""
    write_tokenizer(folder)
    tokenizer = load_tokenizer(folder)
    rows = []
    for question, answer in (ANSWERS if answers is None else answers).items():
        before = encode_chat(tokenizer, conversation(question)) if chat else encode_text(tokenizer, question)
        after, trained = encode_answer(tokenizer, answer)
        rows.append(([*before, *after], [*([False] * len(before)), *trained]))
    ids = torch.zeros(len(rows), max(len(row) for row, _ in rows), dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for number, (row, trained) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        labels[number, : len(row)] = torch.where(torch.tensor(trained), ids[number, : len(row)], -100)
    model = tiny_model(hidden_size=48, intermediate_size=96, initializer_range=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.detach() < 0.01:
            break
    return model.eval().requires_grad_(False), tokenizer


def late(interpreters: Interpreters, delay_s: Callable[[str], float]) -> Callable[[str], Future[Output]]:
    """Runs programs for real, and answers each some time later."""

    def submit(program: str) -> Future[Output]:
        answer: Future[Output] = Future()

        def run() -> None:
            found = interpreters.submit(program).result()
            time.sleep(delay_s(program))
            answer.set_result(found)

        threading.Thread(target=run, daemon=True).start()
        return answer

    return submit


def toolbox(interpreters: Interpreters, **settings: int) -> Toolbox:
    return Toolbox(ToolUse.model_validate(settings), interpreters.submit)
