"""Two steps of reinforcement learning at the shape of Qwen2.5-0.5B, with random weights."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.schema import Machine, RlStage, Sampling
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl
from derivatives.training.model import load_tokenizer, save_model

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
MAX_GB = 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_steps_at_half_a_billion_parameters_fit_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    # A short vocabulary in a long embedding: nearly all of it is padding that must never be drawn.
    save_model(model, load_tokenizer(CHECKPOINT), tmp_path / "model")
    del model
    # A random model solves nothing, so no group has spread; the KL term makes every completion count.
    lines = [{"id": str(n), "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(tmp_path / "p.jsonl"),), steps=2, prompts_per_step=2, group_size=2, learning_rate=1e-6,
        kl_coefficient=0.01, sampling=Sampling(max_new_tokens=8), micro_batch_tokens=128,
    )  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(tmp_path / "model"))}
    machine = Machine(name="cpu", num_threads=2, num_verifier_workers=1)
    out = tmp_path / "out"
    out.mkdir()
    rl.run(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine), out)

    progress = read_progress(out)
    assert [line["step"] for line in progress] == [1, 2]
    assert all(line["rl/trained_tokens"] == line["rl/tokens"] > 0 for line in progress)
    assert all(line["rl/mismatch"] < 0.05 for line in progress)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 < MAX_GB
