"""A model with a longer context, as vLLM itself reads it, on CPU.

DERIVE_VLLM=$(python tests/benchmarks/vllm_environment.py) pytest tests/e2e/test_context_vllm_real.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.settings.training import Context
from derivatives.losses.cross_entropy import chunked_log_probs
from derivatives.seedling import SEEDLING_PATH
from derivatives.training.batch import Row, pack
from derivatives.training.context import extend
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight, load_model, save_model

PYTHON = os.environ.get("DERIVE_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not PYTHON or not Path(PYTHON).is_file(),
        reason="DERIVE_VLLM names no interpreter of an environment with vLLM (tests/benchmarks/vllm_environment.py)",
    ),
]
OLD, NEW, PROMPT = 512, 2048, 2040
WAYS: dict[str, dict[str, Any]] = {
    "base": {"length": NEW, "rope_base": 1e5},
    "yarn": {"length": NEW, "yarn": {"factor": NEW / OLD, "original": OLD}},
}
ROUNDING = 1e-4
"""Nats by which two fp32 engines may differ at a token; the largest difference seen was 2e-5."""
READ = '''
import json, sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    ids = json.load(open("ids.json"))
    llm = LLM(model="model", dtype="float32", enforce_eager=True, max_num_seqs=1, enable_prefix_caching=False)
    (read,) = llm.generate([{"prompt_token_ids": ids}], SamplingParams(max_tokens=1, prompt_logprobs=0))
    found = [one[id_].logprob for one, id_ in zip(read.prompt_logprobs[1:], ids[1:])]
    json.dump({"log_probs": found, "length": llm.llm_engine.model_config.max_model_len}, open("read.json", "w"))
'''
"""The whole of what is done in vLLM's environment: the log-probability of each token of a prompt."""


@pytest.mark.parametrize("way", WAYS)
def test_vllm_gives_a_prompt_the_log_probabilities_of_the_training_forward(tmp_path: Path, way: str) -> None:
    shutil.copytree(SEEDLING_PATH, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": OLD}))
    model, tokenizer = load_model(tmp_path / "base", "fp32")
    extend(model, tokenizer, Context.model_validate(WAYS[way]))
    save_model(model, tokenizer, tmp_path / "model")

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 2000, (PROMPT,), generator=generator).tolist()
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    (tmp_path / "read.py").write_text(READ)
    environment = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment |= {"OMP_NUM_THREADS": "2", "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [PYTHON, "read.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read = json.loads((tmp_path / "read.json").read_text())

    assert read["length"] == NEW  # from config.json alone
    (batch,) = pack([Row(ids)], NEW)
    with torch.inference_mode():
        own_T, _ = chunked_log_probs(hidden_states(model, batch), head_weight(model), batch.targets_T)
    torch.testing.assert_close(torch.tensor(read["log_probs"]), own_T[:-1], rtol=0, atol=ROUNDING)
