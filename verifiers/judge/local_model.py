"""A judge that runs in this process: a chat model from a folder, by `transformers`, greedy, on the CPU.

For small judges and for tests: each worker of a pool loads the model anew. A large one belongs behind an address, where
requests share it (`verifiers.judge.server`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verifiers.judge.folders import folder_digest, open_folder
from verifiers.judge.server import Silence

SECONDS = 300.0
"""For one reply. Nothing interrupts a reply; a pool that waits longer ends the worker."""


class LocalModel:
    """Asks a chat model of a folder in Hugging Face layout, with a chat template.

    Args:
        folder: The model's folder.
        max_tokens: Tokens of a reply.
    """

    patience_s = SECONDS

    def __init__(self, folder: str | Path, max_tokens: int = 256) -> None:
        self.folder, self.max_tokens = Path(folder), max_tokens
        self.version = f"{self.folder.name}-{folder_digest(self.folder)}+greedy+max_tokens-{max_tokens}"
        self._loaded: tuple[Any, Any] | None = None

    def warm_up(self) -> None:
        """Load the model."""
        self._open()

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The model's reply to chat messages. Raises Silence when they are too long for it."""
        import torch

        model, tokenizer = self._open()
        asked = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True,
                                              return_tensors="pt")  # fmt: skip
        length, most = asked["input_ids"].shape[1], model.config.max_position_embeddings
        if length + self.max_tokens > most:
            raise Silence("context", f"{length} tokens and a reply of {self.max_tokens}, where {most} are possible")
        with torch.inference_mode():
            tokens = model.generate(**asked, max_new_tokens=self.max_tokens, do_sample=False, temperature=None,
                                    top_p=None, top_k=None)  # fmt: skip
        return str(tokenizer.decode(tokens[0, length:], skip_special_tokens=True))

    def _open(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModelForCausalLM

            self._loaded = open_folder(self.folder, AutoModelForCausalLM)
        return self._loaded
