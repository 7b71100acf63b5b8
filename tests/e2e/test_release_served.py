"""An emitted release and its int4 export served by vLLM as anybody would: OpenAI chat completions on CPU.

The int8 export is not served here: vLLM 0.32 has kernels for 8-bit weights beside bf16 activations for GPUs alone.

DERIVE_VLLM=$(python tests/benchmarks/vllm_environment.py) pytest tests/e2e/test_release_served.py
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from configs.settings.common import Sampling
from derivatives.export import export_model
from derivatives.formats.packed import write_packed
from derivatives.formats.quality import put
from derivatives.formats.weights import read_packed
from derivatives.rollout.engine import RolloutEngine
from derivatives.seedling import SEEDLING_PATH
from derivatives.training.chat import conversation, encode_chat
from derivatives.training.model import load_model

PYTHON = os.environ.get("DERIVE_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not PYTHON or not Path(PYTHON).is_file(),
        reason="DERIVE_VLLM names no interpreter of an environment with vLLM (tests/benchmarks/vllm_environment.py)",
    ),
]
SYSTEM = "You calculate."
NUM_PROBLEMS, TOKENS = 20, 64
NEAR_TIE = 0.25
"""Nats between the two likeliest tokens below which bf16 arithmetic may order them either way: logits of about 16 are
0.06 to 0.12 apart in bf16, and two engines round several times."""
START_S = 600


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seedling as a release stage writes it, with a system prompt that only the chat template knows."""
    folder = tmp_path_factory.mktemp("served") / "release"
    export_model(SEEDLING_PATH, folder, SYSTEM)
    return folder


def problems() -> list[str]:
    drawn = random.Random(7)
    pairs = [(drawn.randrange(10, 999), drawn.randrange(10, 999)) for _ in range(NUM_PROBLEMS)]
    return [f"What is {a} + {b}?" for a, b in pairs]


@contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """vLLM with nothing but the folder; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(PYTHON).parent / "vllm"), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port),
               "--served-model-name", "release", "--enforce-eager", "--max-model-len", "512"]  # fmt: skip
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
                   "OMP_NUM_THREADS": "2", "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}"}  # fmt: skip
    environment.pop("PYTHONPATH", None)
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def chat(address: str, question: str) -> dict[str, Any]:
    """One greedy answer, the system prompt left to the release's own template."""
    asked = {"model": "release", "messages": [{"role": "user", "content": question}], "temperature": 0.0,
             "max_tokens": TOKENS}  # fmt: skip
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        found: dict[str, Any] = json.loads(answer.read())["choices"][0]
    return found


def tie(model: Any, prompt: list[int], own: list[int], other: list[int]) -> float:
    """Nats between the two likeliest tokens at the first place where the answers differ."""
    place = next((n for n, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
    with torch.inference_mode():
        logits_V = model(input_ids=torch.tensor([[*prompt, *own[:place]]]), use_cache=False).logits[0, -1].float()
    first, second = logits_V.topk(2).values
    return float(first - second)


@pytest.mark.parametrize("kind", ["bf16", "int4"])
def test_vllm_answers_as_our_engine_does(release: Path, tmp_path: Path, kind: Literal["bf16", "int4"]) -> None:
    folder = release
    model, tokenizer = load_model(release, "bf16")
    if kind != "bf16":
        folder = tmp_path / kind
        write_packed(release, folder, kind)
        put(model, read_packed(folder))
    prompts = [encode_chat(tokenizer, conversation(question, SYSTEM)) for question in problems()]
    greedy = Sampling(temperature=0.0, max_new_tokens=TOKENS)
    ours = [group[0] for group in RolloutEngine(model, tokenizer).generate(prompts, 1, greedy)]
    with served(folder, tmp_path / "vllm.log") as address:
        theirs = [chat(address, question) for question in problems()]

    ties: list[float] = []
    equal = 0
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        if one.text == other["message"]["content"]:
            equal += 1
            assert other["finish_reason"] == one.finish_reason
        else:
            ids = tokenizer(other["message"]["content"], add_special_tokens=False)["input_ids"]
            ties.append(tie(model, prompt, one.token_ids, ids))
    print(f"{kind}: {equal} of {NUM_PROBLEMS} answers are the same; margins of the others: {ties}")
    assert equal + sum(margin < NEAR_TIE for margin in ties) == NUM_PROBLEMS, ties
    assert equal >= NUM_PROBLEMS // 2
