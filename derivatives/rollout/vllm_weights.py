"""The policy's weights on their way to a vLLM server: written as a checkpoint or sent, loaded, and proven to be there.

Tied embeddings are written untied, the output projection as a tensor of its own: vLLM 0.32 keeps a packed copy of a
tied one on CPU, which its reload leaves as it was (measured: log-probabilities 0.32 nats off after a reload, where
0.00001 is rounding). It costs the server one more embedding. The projection's rows of padding ids are written as zeros:
the bias of -100 that a request may give then takes these ids out whatever the model has there.

Adapters are written merged, rounded once to the working precision: in bf16 a change below half a step of a weight does
not reach the server, which the importance weights answer for.

A reload that does nothing answers like one that does. So after each the server is asked for the log-probabilities of a
fixed text, which must be the trainer's within a bound, and must have changed where most of the trainer's did.

They go by a broadcast to the server's workers (`vllm_collective.py`) or through files, see `rollout.weights`; the
first ones always through files, which the server starts from.

Shape letters: T tokens of the fixed text, V vocabulary, E hidden size.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import RetryableError, UserError
from derivatives.rollout.vllm_server import VllmServer
from derivatives.training.chat import encode_chat
from derivatives.training.checkpoint import disk_full_as_os_error
from derivatives.training.lora import plain_weights
from derivatives.training.model import head_weight, num_real_tokens

MAX_PROBE_DISTANCE = {torch.float32: 0.001, torch.bfloat16: 0.05}
"""Nats per token. Measured on CPU for the seedling: 0.000002 in fp32, 0.013 to 0.022 in bf16."""
_QUESTION = "A library buys 12 boxes of 8 maps and lends 35 of the maps. How many maps are left on its shelves?"
_ANSWER = "12 boxes of 8 maps are 12 * 8 = 96 maps. Of these 35 are lent, so 96 - 35 = 61 are left. \\boxed{61}"
_SHARE_CHANGED = 0.5
"""Of the trainer's log-probabilities; where so many changed, a server at which none did has the old weights."""


def write_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the model in its working precision for a server to read; the folder appears whole or not at all.

    It need not outlive a power cut, so nothing waits for the disk.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = served_weights(model, tokenizer)
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    config.architectures = [type(model).__name__]
    with disk_full_as_os_error(folder.parent):
        save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    os.replace(partial, folder)


def served_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """The model's weights in its working precision, untied, in main memory, by the names of a checkpoint.

    Rows of the output projection that are padding of the vocabulary are 0.
    """
    state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in plain_weights(model)}
    head_VE = head_weight(model).detach().to("cpu", copy=True)
    head_VE[num_real_tokens(tokenizer) :] = 0.0
    state["lm_head.weight"] = head_VE
    return state


def load_weights(server: VllmServer, folder: Path) -> None:
    """Make a running server read the weights of a folder, and forget what it computed with the old ones.

    Raises:
        UserError: It has no such endpoints.
        RetryableError: It failed.
    """
    limit = server.settings.sync_timeout_s
    order = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}, "timeout": limit}
    replace_weights(server, lambda: server.ask("POST", "/collective_rpc", order, timeout_s=limit))


def replace_weights(server: VllmServer, bring: Callable[[], object]) -> None:
    """Let a running server take new weights while it draws nothing, and forget what it computed with the old ones.

    Args:
        server: The server.
        bring: Gives it the weights.

    Raises:
        UserError: It has no such endpoints.
        RetryableError: It failed.
    """
    limit = server.settings.sync_timeout_s
    server.ask("POST", "/pause?mode=wait", timeout_s=limit)
    try:
        bring()
        # Keys and values of prompts under the old weights would be taken for those under the new ones.
        answer = server.ask("POST", "/reset_prefix_cache", timeout_s=limit)
        if isinstance(answer, dict) and answer.get("success") is False:
            raise RetryableError("vllm: the prefix cache could not be emptied, as requests of others hold parts of it")
    except BaseException:
        with contextlib.suppress(UserError, RetryableError):  # what went wrong first is what is told
            server.ask("POST", "/resume", timeout_s=limit)
        raise
    server.ask("POST", "/resume", timeout_s=limit)


class Probe:
    """Compares the server with the trainer on a fixed text, sync after sync."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, server: VllmServer) -> None:
        self.model, self.server, self.num_real_tokens = model, server, num_real_tokens(tokenizer)
        self.ids = encode_chat(
            tokenizer,
            [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}],
            add_generation_prompt=False,
        )
        self.limit = server.settings.max_probe_distance or MAX_PROBE_DISTANCE[head_weight(model).dtype]
        self._before: tuple[Tensor, Tensor] | None = None

    def check(self) -> float:
        """The mean distance of the two engines' log-probabilities, in nats per token.

        Raises:
            UserError: It is so large, or the server's have changed so little, that the server has other weights.
        """
        own_T, served_T = self._own(), self._served()
        distance = float((own_T - served_T).abs().mean())
        if not distance <= self.limit:
            raise UserError(
                f"rollout: after a sync the server's log-probabilities of a fixed text are off by {distance:.2g} nats "
                f"a token (at most {self.limit:g} is rounding): it has other weights or precision; if it was not "
                "started by the stage, start it on a checkpoint with untied embeddings, such as one that the stage "
                "wrote, and with the stage's precision"
            )
        if self._before is not None:
            own_before_T, served_before_T = self._before
            num_changed = int((own_T != own_before_T).sum())
            if num_changed > _SHARE_CHANGED * len(own_T) and torch.equal(served_T, served_before_T):
                raise UserError(
                    f"rollout: after a sync {num_changed} of {len(own_T)} log-probabilities of a fixed text changed at "
                    "the trainer and none at the server: it has the old weights; its version may reload otherwise "
                    "(0.32 was tested)"
                )
        self._before = own_T, served_T
        return distance

    def _own(self) -> Tensor:
        ids_T = torch.tensor(self.ids, device=head_weight(self.model).device)
        with torch.inference_mode():
            logits_TV = self.model(input_ids=ids_T[None], use_cache=False).logits[0, :-1].float()
            logits_TV[:, self.num_real_tokens :] = 0.0  # as written for the server, which masks nothing of a prompt
            return logits_TV.log_softmax(-1).gather(1, ids_T[1:, None]).squeeze(1).cpu()

    def _served(self) -> Tensor:
        body = {
            "model": self.server.model, "prompt": self.ids, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0,
        }  # fmt: skip
        answer = self.server.ask("POST", "/v1/completions", body, self.server.settings.sync_timeout_s)
        return torch.tensor(prompt_log_probs(answer, self.ids))


def prompt_log_probs(answer: Any, ids: list[int]) -> list[float]:
    """Log-probabilities of a prompt's tokens but the first, from a completion's answer. Raises UserError."""
    try:
        listed = answer["choices"][0]["prompt_logprobs"]
        if len(listed) != len(ids):
            raise ValueError(f"{len(listed)} positions for {len(ids)} tokens")
        values = [float(one[str(token)]["logprob"]) for token, one in zip(ids[1:], listed[1:], strict=True)]
        if not all(map(math.isfinite, values)):
            raise ValueError("a log-probability is not finite")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"rollout: the server gives no log-probabilities of a prompt ({type(error).__name__}: {error}), so that a "
            "sync cannot be proven; use vLLM 0.32"
        ) from error
    return values
