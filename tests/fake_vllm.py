"""A server that answers as `vllm serve` does, small and in this process, with faults to order.

It reads the checkpoint that it is told to load and draws from it, so that what comes back has the log-probabilities of
those weights. Faults: `replace` answers a path with something else, `ignore_reload` and `raw` misbehave, `delay_s`
waits. `calls` lists what was asked.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from derivatives.training.model import load_tokenizer

Answer = tuple[int, bytes]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        pass  # the other side left before the answer


class FakeVllm:
    """Serves a checkpoint until it is closed."""

    def __init__(self, folder: Path, max_length: int = 256) -> None:
        self.model = self._read(folder)
        self.tokenizer = load_tokenizer(folder)
        self.max_length = max_length
        self.calls: list[tuple[str, Any]] = []
        self.replace: dict[str, Answer] = {}
        self.change: dict[str, Any] = {}
        self.ignore_reload = self.raw = False
        self.delay_s = 0.0
        self.key: str | None = None
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(json.loads(content) if content else None)

            def _answer(self, body: Any) -> None:
                path = self.path.partition("?")[0]
                with fake._lock:
                    fake.calls.append((self.path, body))
                if fake.key is not None and self.headers.get("Authorization") != f"Bearer {fake.key}":
                    status, content = 401, b'{"error": "Unauthorized"}'
                else:
                    time.sleep(fake.delay_s if path == "/v1/completions" else 0.0)
                    status, content = fake.replace.get(path) or fake.answer(path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, path: str) -> list[Any]:
        """Bodies of all requests to a path."""
        return [body for asked, body in self.calls if asked.partition("?")[0] == path]

    def answer(self, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            found: Any = {"data": [{"id": "policy", "max_model_len": self.max_length, "root": "somewhere"}]}
        elif path == "/collective_rpc":
            if not self.ignore_reload:
                self.model = self._read(Path(body["kwargs"]["weights_path"]))
            found = {"results": [None]}
        elif path == "/reset_prefix_cache":
            found = {"success": True}
        elif path == "/v1/completions":
            if body["model"] != "policy":
                error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError"}
                return 404, json.dumps({"error": error}).encode()
            found = self._completion(body)
        elif path in ("/pause", "/resume", "/health"):
            return 200, b""
        else:
            return 404, b'{"detail": "Not Found"}'
        return 200, json.dumps(found).encode()

    def _holds(self, stops: list[str], ids: list[int]) -> bool:
        text = self.tokenizer.decode(ids)
        return any(stop in text for stop in stops)

    @staticmethod
    def _read(folder: Path) -> Qwen2ForCausalLM:
        return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "prompt_token_ids": prompt}
        if "prompt_logprobs" in body:
            values = self.model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
            pairs = zip(prompt[1:], values, strict=True)
            listed = [{str(token): {"logprob": float(row[token])}} for token, row in pairs]
            return {"choices": [{**choice, "prompt_logprobs": [None, *listed], "token_ids": [0]}]}
        random = torch.Generator().manual_seed(body["seed"])
        ids: list[int] = []
        log_probs: list[float] = []
        while len(ids) < body["max_tokens"]:
            raw = self.model(torch.tensor([[*prompt, *ids]])).logits[0, -1]
            logits = raw.clone()
            for token, bias in body["logit_bias"].items():
                logits[int(token)] += bias
            logits /= body["temperature"] or 1.0
            if body["top_k"]:
                logits[logits < logits.topk(body["top_k"]).values[-1]] = float("-inf")
            shares = logits.softmax(-1)
            token = int(shares.multinomial(1, generator=random)) if body["temperature"] else int(logits.argmax())
            ids.append(token)
            log_probs.append(float((raw if self.raw else logits).log_softmax(-1)[token]))
            if token in body["stop_token_ids"] or (body["stop"] and self._holds(body["stop"], ids)):
                choice["finish_reason"] = "stop"
                break
        choice |= {"token_ids": ids, "logprobs": {"token_logprobs": log_probs}, "text": "not read"}
        return {"choices": [{**choice, **self.change}]}
