"""The true shape of Qwen2.5-0.5B, with random weights and the real tokenizer, through two steps of fine-tuning."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from configs.stage import read_progress
from tests.training_fixtures import sft_file, write_sums

MEMORY_BYTES = 14 * 2**30
"""The most that two steps may hold; weights are 1 GiB, masters 2, moments 4, gradients 2 to 3, the rest activations."""


def write_random_qwen(folder: Path, tokenizer: Path) -> Path:
    shutil.copytree(tokenizer, folder)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, tie_word_embeddings=True, rope_theta=1e6, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        Qwen2ForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_steps_at_the_shape_of_qwen_half_a_billion_stay_within_memory(tmp_path: Path, data_mirror: Path) -> None:
    base = write_random_qwen(tmp_path / "base", data_mirror / "qwen2.5-tokenizer")
    given = sft_file(
        base, write_sums(tmp_path / "sums.jsonl", 16), precision="bf16", learning_rate=1e-5, micro_batch_tokens=512
    )
    given = given.model_copy(update={"machine": given.machine.model_copy(update={"num_threads": 2})})
    (tmp_path / "stage.json").write_text(given.model_dump_json())
    command = [sys.executable, "-m", "derivatives.sft", str(tmp_path / "stage.json"), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=1100, env={**os.environ, "OMP_NUM_THREADS": "2"})

    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"peak memory {peak_bytes / 2**30:.1f} GiB")
    assert peak_bytes < MEMORY_BYTES
    lines = read_progress(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["sft/loss"] == pytest.approx(12, abs=0.5)  # ln 151,936 = 11.93: nothing is known yet
    saved = tmp_path / "out" / "model"
    assert json.loads((saved / "generation_config.json").read_text())["eos_token_id"] == [151_645, 151_643]
    weights = AutoModelForCausalLM.from_pretrained(saved).get_input_embeddings().weight
    assert weights.shape == (151_936, 896) and weights.dtype == torch.bfloat16
