"""Rollouts from a vLLM server, with the calls of the in-process engine (`engine.py`).

    with VllmEngine(model, tokenizer, settings, out) as engine:
        engine.sync(version)            # the model's weights as they are now
        engine.generate(prompts, ...)   # under the weights of the last sync

Token ids go to the server and come back, and are never tokenised again; the text is decoded here. Log-probabilities
are of the very distribution that was drawn from (temperature, top-k, min-p, top-p, padding ids taken out), and the
server is asked once whether it gives these. The stop tokens are ours alone; a completion that ends with one has it
among its ids. A stop text ends a completion at the token that completes it.

Each sample is a request with a seed made of the run's seed, the prompt's key and the sample's number. vLLM draws from
such a seed whatever else is in the batch, but its logits differ in rounding with the batch, so that a token may turn
out otherwise when drawn again. What a stage stored is read instead, so a resumed run goes on from the same rollouts;
a step that was not stored is drawn anew, and nothing promises the same bytes. With tools (`tools.py`) a completion is
several requests, each with what came before as its prompt and a seed by its place. Padding ids have the
logit 0 at the server (`vllm_weights.py`) and get a bias of -100.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import RetryableError, UserError
from configs.settings.common import Sampling
from configs.settings.rollout import RolloutServer
from derivatives.rollout.engine import Completion, OnCompletion, RolloutEngine, text_of
from derivatives.rollout.noise import stream_of
from derivatives.rollout.tools import FAULT, FENCE, FORGED, Ended, Toolbox, Turns, ends_line
from derivatives.rollout.vllm_collective import Collective, open_collective
from derivatives.rollout.vllm_server import VllmServer
from derivatives.rollout.vllm_weights import Probe, load_weights, replace_weights, served_weights, write_weights
from derivatives.training.model import head_weight, num_real_tokens, stop_ids
from verifiers.sandbox.host import SandboxFault

FOLDER = "vllm"
"""Where the weights are written for the server, in the stage's folder; gone when the engine is closed."""
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_PADDING_BIAS = -100
_FAVOUR = 100
_SEED_MASK = 2**63 - 1
"""vLLM takes -1 for no seed, so only what is not negative is given."""
_CERTAIN = -1e-4
"""Nats. Of the only token that is allowed the log-probability is 0; a server that gives the raw one is below."""


class Engine(Protocol):
    """What draws completions for a stage: this engine or the one in the process."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[str | int] | None = None,
        on_completion: OnCompletion | None = None,
        stop_text: str | None = None,
    ) -> list[list[Completion]]:
        """See `RolloutEngine.generate`."""
        ...


class VllmEngine:
    """Generates at a server with the weights of a live model, as of the last `sync`.

    Attributes:
        figures: Of the last sync, for the progress log: its seconds, how far the server's log-probabilities of a
            fixed text were off after it, in nats per token, and whether the weights went by a collective (1) or not.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutServer,
        out: Path,
        tools: Toolbox | None = None,
    ) -> None:
        self.model, self.tokenizer, self.settings, self.tools = model, tokenizer, settings, tools
        self.server = VllmServer(settings, out)
        self.folder = out.resolve() / FOLDER
        self.num_real_tokens = num_real_tokens(tokenizer)
        self.stop_ids = stop_ids(tokenizer)
        self.figures: dict[str, float] = {}
        self._probe = Probe(model, tokenizer, self.server)
        self._version: int | None = None
        self._collective: Collective | None = None
        num_rows = len(head_weight(model))
        self._bias = {str(token): _PADDING_BIAS for token in range(self.num_real_tokens, num_rows)}

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End a started server and remove the weights that were written for it."""
        try:
            self.server.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def sync(self, version: int) -> None:
        """Give the server the model's weights as they are now, unless it has this version of them.

        The first sync starts the server, if it is to be started.

        Args:
            version: Number of the weights, such as the steps that they went through.

        Raises:
            UserError: The settings or the server do not fit, or it has other weights after all.
            RetryableError: The server is dead, silent or broken.
        """
        if version == self._version:
            return
        began = time.perf_counter()
        first, collective = self._version is None, self._collective
        if collective is not None:
            sent = served_weights(self.model, self.tokenizer)
            replace_weights(self.server, lambda: collective.send(sent))
        else:
            self._sync_through_files(version, first)
        distance = self._probe.check()
        if first:
            self._check_mode()
            self._collective = open_collective(self.server)
        self._version = version
        self.figures = {
            "sync_s": round(time.perf_counter() - began, 3),
            "sync_distance": distance,
            "sync_by_collective": float(collective is not None),
        }

    def _sync_through_files(self, version: int, first: bool) -> None:
        """Write the weights, start the server on them or make it read them, and remove older ones."""
        weights = self.folder / f"weights-{version:06d}"
        shutil.rmtree(weights, ignore_errors=True)
        write_weights(self.model, self.tokenizer, weights)
        if first and self.server.starts:
            head = head_weight(self.model)
            self.server.start(weights, _DTYPES[head.dtype], head.device.type)
        else:
            if first:
                self.server.describe()
            load_weights(self.server, weights)
        for old in self.folder.iterdir():
            if old != weights:
                shutil.rmtree(old, ignore_errors=True)

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[str | int] | None = None,
        on_completion: OnCompletion | None = None,
        stop_text: str | None = None,
    ) -> list[list[Completion]]:
        """Complete every prompt `num_samples` times; see `RolloutEngine.generate`.

        Raises:
            UserError: A prompt is empty or too long for the server, or the server's answer lacks what is needed.
            RetryableError: The server is dead, silent or broken.
        """
        if not prompts:
            return []
        if self._version is None:
            raise ValueError("the server has no weights yet; call sync first")
        self._check(prompts, sampling)
        names = list(keys) if keys is not None else list(range(len(prompts)))
        results: list[list[Completion | None]] = [[None] * num_samples for _ in prompts]
        pool = ThreadPoolExecutor(min(self.settings.max_concurrency, len(prompts) * num_samples), "vllm")
        try:
            futures: dict[Future[Completion], tuple[int, int]] = {
                pool.submit(self._complete, prompts[i], sampling, stream_of(seed, names[i], s), stop_text): (i, s)
                for i in range(len(prompts))
                for s in range(num_samples)
            }
            for future in as_completed(futures):
                i, s = futures[future]
                completion = future.result()
                results[i][s] = completion
                if on_completion is not None:
                    on_completion(i, s, completion)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self.server.interrupt()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return results  # type: ignore[return-value]  # every place is filled by now

    def release(self) -> None:
        """Nothing to free on this side."""

    def _check(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        if not all(prompts):
            raise UserError(
                f"prompts: number {[bool(p) for p in prompts].index(False)} is empty; give at least one token"
            )
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        if longest > self.server.max_length:
            raise UserError(
                f"sampling.max_new_tokens: {sampling.max_new_tokens} after the longest prompt makes {longest} tokens; "
                f"the server takes {self.server.max_length}: lower it, or raise --max-model-len in rollout.arguments"
            )

    def _complete(self, prompt: list[int], sampling: Sampling, stream: int, stop_text: str | None) -> Completion:
        if self.tools is not None:
            return self._complete_in_turns(self.tools, prompt, sampling, stream, stop_text)
        ids, log_probs = self._drawn(prompt, sampling, stream, [] if stop_text is None else [stop_text])
        reason = "stop" if ids[-1] in self.stop_ids else "length"
        return Completion(ids, log_probs, reason, text_of(self.tokenizer, ids, reason))

    def _complete_in_turns(
        self, tools: Toolbox, prompt: list[int], sampling: Sampling, stream: int, stop_text: str | None
    ) -> Completion:
        """A completion whose programs are run: a request for each part, up to the next fence. The server's prefix cache
        has what came before. See `tools.py` for the ways in which it ends."""
        turns, ids, log_probs = Turns(), list[int](), list[float]()
        stops = [FENCE] if stop_text is None else [FENCE, stop_text]
        reason, fault = "", ""
        while not reason:
            room = sampling.max_new_tokens - len(ids)
            part = sampling.model_copy(update={"max_new_tokens": room})
            new_ids, new_values = self._drawn([*prompt, *ids], part, stream_of(stream, "part", len(ids)), stops)
            ids, log_probs = [*ids, *new_ids], [*log_probs, *new_values]
            if ids[-1] in self.stop_ids or len(ids) >= sampling.max_new_tokens:
                reason = "stop" if ids[-1] in self.stop_ids else "length"
                break
            found = turns.look(self.tokenizer, ids, tools.settings.turns)
            if found is not None:  # what the server drew beyond the fence is dropped
                ids, log_probs = ids[: found.place], log_probs[: found.place]
            if isinstance(found, Ended):
                reason = found.reason
            elif found is not None:
                try:
                    output = tools.submit(found.text).result()
                except SandboxFault as error:
                    reason, fault = FAULT, str(error)
                    break
                fed = tools.fed_ids(self.tokenizer, output, ends_line(self.tokenizer, ids))
                if len(ids) + len(fed) >= sampling.max_new_tokens:
                    reason = "length"
                else:
                    turns.note(len(ids), len(fed), output.failed)
                    ids, log_probs = [*ids, *fed], [*log_probs, *([0.0] * len(fed))]
            elif stop_text is not None and stop_text in str(self.tokenizer.decode(ids)):
                reason = "length"
        if turns.forged(self.tokenizer, ids, reason):
            reason = FORGED
        text = text_of(self.tokenizer, ids, reason)
        return Completion(ids, log_probs, reason, text, tuple(turns.fed), fault)

    def _drawn(
        self, prompt: list[int], sampling: Sampling, stream: int, stops: list[str]
    ) -> tuple[list[int], list[float]]:
        body = self._request(prompt, sampling, stream & _SEED_MASK, stops)
        answer = self.server.ask("POST", "/v1/completions", body, self.settings.request_timeout_s)
        return drawn(answer, prompt, sampling.max_new_tokens, self.num_real_tokens)

    def _request(self, prompt: list[int], sampling: Sampling, seed: int, stops: list[str]) -> dict[str, Any]:
        """Everything is said, so that no default of the server or of its checkpoint counts."""
        return {
            "model": self.server.model, "prompt": prompt, "n": 1, "max_tokens": sampling.max_new_tokens, "seed": seed,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k,
            "min_p": sampling.min_p, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "logit_bias": self._bias, "stop_token_ids": self.stop_ids, "ignore_eos": True,
            "stop": stops, "skip_special_tokens": False,
            "logprobs": 0, "return_token_ids": True,
        }  # fmt: skip

    def _check_mode(self) -> None:
        """The server gives log-probabilities of the distribution that it draws from. Raises UserError."""
        sampling = Sampling(top_k=1, max_new_tokens=1)
        body = self._request(self._probe.ids, sampling, 0, [])
        body["logit_bias"] = {**self._bias, "0": _FAVOUR}  # else two tokens may share the first place
        answer = self.server.ask("POST", "/v1/completions", body, self.settings.request_timeout_s)
        _, (log_prob,) = drawn(answer, self._probe.ids, 1, self.num_real_tokens)
        if log_prob < _CERTAIN:
            raise UserError(
                f"rollout.address: the server gives the log-probability {log_prob:.3g} to a token that was the only "
                "one allowed, so it is not that of the distribution drawn from; start it with --logprobs-mode "
                "processed_logprobs"
            )


def drawn(answer: Any, prompt: list[int], max_tokens: int, num_real_tokens: int) -> tuple[list[int], list[float]]:
    """Token ids and log-probabilities of a completion, from the server's answer.

    Raises:
        UserError: The answer lacks them, or is of another prompt or distribution than was asked for.
        RetryableError: The server gave up on the request.
    """
    try:
        (choice,) = answer["choices"]
        reason = choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise RetryableError(f"vllm: a completion ended with finish_reason {reason!r}; run the same command again")
        ids, values = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        asked = choice.get("prompt_token_ids", prompt)
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ValueError("token_ids are not all numbers")
        log_probs = [float(value) for value in values]
        if not 0 < len(ids) <= max_tokens or len(log_probs) != len(ids):
            raise ValueError(f"{len(ids)} tokens and {len(log_probs)} log-probabilities for up to {max_tokens} tokens")
        if not all(map(math.isfinite, log_probs)):
            raise ValueError("a log-probability is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"rollout: the server's answer lacks token ids or their log-probabilities ({type(error).__name__}: "
            f"{error}); use vLLM 0.32"
        ) from error
    if asked != prompt:
        raise UserError("rollout: the server completed another prompt than it was given; it must not cut prompts")
    worst = max(ids)
    if worst >= num_real_tokens or min(ids) < 0:
        raise UserError(
            f"rollout: the server drew token {worst}, which is padding of the vocabulary ({num_real_tokens} are real); "
            "it ignores logit_bias; use vLLM 0.32"
        )
    return ids, log_probs


def open_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RolloutServer | None,
    out: Path,
    tools: Toolbox | None = None,
) -> AbstractContextManager[RolloutEngine | VllmEngine]:
    """The engine that a machine profile asks for: a vLLM server, or with no settings the one in this process."""
    if settings is None:
        return nullcontext(RolloutEngine(model, tokenizer, tools=tools))
    return VllmEngine(model, tokenizer, settings, out, tools)
