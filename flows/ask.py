"""`derive chat`: one checkpoint, no recipe, in this process, which loads torch for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from configs.errors import UserError, is_unicode
from configs.load import default_machine_name, load_machine
from configs.settings.common import Sampling
from flows.base import resolve_base
from flows.store import Store


def chat_with(given: argparse.Namespace) -> int:
    """One answer, or a conversation until end of file."""
    if given.prompt is not None and not given.prompt.strip():
        raise UserError("--prompt: empty; write a question")
    if given.prompt is not None and not is_unicode(given.prompt):
        raise UserError(f"--prompt: {given.prompt[:40]!a} is not UTF-8 text; write it in UTF-8")
    folder = _checkpoint(given.model)
    machine = load_machine(given.machine or default_machine_name())

    from derivatives.rollout.chat import reply
    from derivatives.training.model import load_model

    sampling = Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens)
    model, tokenizer = load_model(folder, "bf16", machine.device)
    messages: list[dict[str, str]] = []
    for question in [given.prompt] if given.prompt is not None else _questions():
        messages.append({"role": "user", "content": question})
        answer = reply(model, tokenizer, messages, sampling)
        messages.append({"role": "assistant", "content": answer})
        print(answer, flush=True)
    return 0


def _questions() -> Any:
    """Lines that a person types; an end of file ends the conversation."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise UserError("standard input: not UTF-8 text; write questions in UTF-8") from error
        if line and not is_unicode(line):
            raise UserError(f"standard input: {line[:40]!a} is not UTF-8 text; write questions in UTF-8")
        if line:
            yield line


def _checkpoint(name: str) -> Path:
    base = resolve_base(name, None, Store(None), download=True)
    assert base.path is not None, "a downloaded base has a path"
    return base.path
