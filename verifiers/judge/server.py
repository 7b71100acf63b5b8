"""A judge behind an OpenAI-compatible address: `POST ADDRESS/chat/completions`, as vLLM, SGLang and others serve it.

Each request asks for one completion at temperature 0 with a fixed seed. What fails is asked again with growing pauses,
as often as `attempts` says; a server's `Retry-After` is kept to within bounds. The key comes from an environment
variable whose name is set, is sent in a header, and stands in no message.

A silence has one of four kinds, which the verifier needs to tell whose fault it is:

| kind | what happened | can a completion cause it |
|---|---|---|
| `unavailable` | no connection, 401, 404, 408, 429, 503, a redirect, no key | no |
| `context` | refused as too long | yes, unless the task alone is |
| `slow` | no reply in time | perhaps |
| `failed` | any other refusal, a reply that breaks off or is none | perhaps |

What this does not do: no proxies, no streaming. One request at a time from each worker of a pool: as many workers as
requests should be in flight.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

FaultKind = Literal["unavailable", "context", "slow", "failed"]
PAUSE_S = 0.5
"""Before the second attempt; doubled before each further one."""
MAX_PAUSE_S = 10.0
MAX_REPLY_BYTES = 4_000_000
MAX_TOLD = 160
"""Characters of a server's message that a fault repeats."""
_NEVER_THE_TEXT = (401, 404, 405, 408, 429, 503)
_TOO_LONG = re.compile(r"context.{0,40}(?:length|window|size)|maximum.{0,40}(?:length|tokens)|too (?:long|many tokens)",
                       re.IGNORECASE | re.DOTALL)  # fmt: skip


class Silence(Exception):
    """A judge gave no reply. The text says why, in one line, without a key."""

    def __init__(self, kind: FaultKind, told: str) -> None:
        super().__init__(told)
        self.kind: FaultKind = kind


class JudgeServer:
    """Asks a model behind an address.

    Args:
        url: Address up to and with `/v1`, such as `http://127.0.0.1:8000/v1`.
        model: Name by which the server knows the model.
        key_variable: Environment variable that holds the key; None where the server asks for none.
        timeout_s: Seconds for one request.
        attempts: Requests for one reply, at most.
        max_tokens: Tokens of a reply; enough for a thought, where the model thinks.
        seed: Of the server's sampling.

    Attributes:
        version: The model and how it is asked; not where it is.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str | None = None,
        timeout_s: float = 60.0,
        attempts: int = 3,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ValueError(f"url: {url!r}; allowed: http://HOST:PORT/v1 or https://..., without a key in it")
        for name, value in (("timeout_s", timeout_s), ("attempts", attempts), ("max_tokens", max_tokens)):
            if not value > 0:
                raise ValueError(f"{name}: {value!r}; allowed: more than 0")
        if not model:
            raise ValueError("model: empty; give the name by which the server knows it")
        self.url, self.model, self.key_variable = url.rstrip("/"), model, key_variable
        self.timeout_s, self.attempts, self.max_tokens, self.seed = timeout_s, attempts, max_tokens, seed
        self.version = f"{model}+temperature-0+seed-{seed}+max_tokens-{max_tokens}"

    @property
    def patience_s(self) -> float:
        """The longest that one `ask` takes, in seconds."""
        return self.attempts * (self.timeout_s + MAX_PAUSE_S)

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The model's reply to chat messages. Raises Silence."""
        body = {
            "model": self.model, "messages": list(messages), "temperature": 0, "seed": self.seed,
            "max_tokens": self.max_tokens, "n": 1, "stream": False,
        }  # fmt: skip
        content, key = json.dumps(body).encode(), self._key()
        pause_s = PAUSE_S
        for attempt in range(self.attempts):
            try:
                return self._once(content, key)
            except _Failed as failed:
                if failed.kind == "context" or failed.is_final or attempt + 1 == self.attempts:
                    raise Silence(failed.kind, _without(failed.told, key)) from None
                time.sleep(min(MAX_PAUSE_S, max(pause_s, failed.wait_s)) * (0.75 + os.getpid() % 50 / 100))
                pause_s *= 2
        raise AssertionError("unreachable")

    def _key(self) -> str:
        """The key; empty where none is wanted. Raises Silence, which does not hold it."""
        if self.key_variable is None:
            return ""
        key = os.environ.get(self.key_variable, "")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise Silence("unavailable", f"the variable {self.key_variable} holds no key")
        return key

    def _once(self, content: bytes, key: str) -> str:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise _Failed("unavailable", f"no connection ({type(error).__name__})") from None
        ends = time.monotonic() + self.timeout_s
        try:
            connection.request("POST", f"{parts.path}/chat/completions", content, headers)
            with connection.getresponse() as answer:
                text = _read(answer, ends)
        except TimeoutError:
            raise _Failed("slow", f"no reply in {self.timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Failed("failed", f"the reply broke off ({type(error).__name__})") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise _refusal(answer.status, text, answer.headers.get("Retry-After", ""))
        return _content(text)


class _Failed(Exception):
    """One request without a reply."""

    def __init__(self, kind: FaultKind, told: str, wait_s: float = 0.0, is_final: bool = False) -> None:
        super().__init__(told)
        self.kind, self.told, self.wait_s, self.is_final = kind, told, wait_s, is_final


def _read(answer: http.client.HTTPResponse, ends: float) -> bytes:
    """The body; a server that drips does not get more time than one that is silent."""
    parts, size = [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > MAX_REPLY_BYTES:
            raise http.client.HTTPException("too long")
        if time.monotonic() > ends:
            raise TimeoutError
    return b"".join(parts)


def _refusal(status: int, text: bytes, retry_after: str) -> _Failed:
    told = " ".join(text[:2_000].decode("utf-8", "replace").split())
    told = "".join(filter(str.isprintable, told))
    shown = f"status {status}: {told[:MAX_TOLD]}".rstrip(": ")
    if status in (400, 413, 422) and _TOO_LONG.search(told):
        return _Failed("context", shown)
    if status in _NEVER_THE_TEXT or 300 <= status < 400:
        wait_s = float(retry_after) if re.fullmatch(r"[0-9]{1,4}", retry_after) else 0.0
        return _Failed("unavailable", shown, wait_s, is_final=status not in (408, 429, 503))
    return _Failed("failed", shown, is_final=status < 500)


def _content(text: bytes) -> str:
    try:
        (choice, *_) = json.loads(text)["choices"]
        content: Any = choice["message"]["content"]
        finished = choice.get("finish_reason")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Failed("failed", "the reply is no chat completion") from None
    if finished == "length":
        raise _Failed("failed", "the reply was cut off at max_tokens", is_final=True)
    return content if isinstance(content, str) else ""


def _without(told: str, key: str) -> str:
    return told.replace(key, "***") if key else told
