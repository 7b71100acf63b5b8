"""The true shape of Qwen2.5-0.5B, with random weights and the real tokenizer, from base to release.

Two steps of fine-tuning, two of reinforcement learning, an evaluation and a release with open gates, through the real
command line. Random weights draw every id about equally often, also those that only pad the vocabulary, if they may.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from configs.settings.common import Sampling
from configs.stage import read_progress
from derivatives.rollout.engine import RolloutEngine
from derivatives.training.model import QWEN_ADDED_TOKENS, load_tokenizer
from tests.training_fixtures import write_sums

ROOT = Path(__file__).parents[2]
MAX_MEMORY_GB = 14
"""GiB of the largest process. Reinforcement learning with a reference: weights 1 and 1, masters 2, moments 4,
gradients 2 to 3, the rest activations and libraries."""
NUM_TOKENS, NUM_ROWS = 151_665, 151_936
PUBLISHED_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_643,
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32_768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1e6,
    "sliding_window": 32_768, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
    "use_mrope": False, "use_sliding_window": False, "vocab_size": NUM_ROWS,
}  # fmt: skip
"""config.json of Qwen2.5-0.5B, in the older spelling in which it was published."""


def random_qwen(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        return Qwen2ForCausalLM(Qwen2Config(**{**PUBLISHED_CONFIG, **changes}))
    finally:
        torch.set_default_dtype(torch.float32)


def write_base(folder: Path, tokenizer: Path) -> Path:
    folder.mkdir()
    random_qwen().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(PUBLISHED_CONFIG))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


def write_preset(folder: Path) -> Path:
    """The line, small in everything but the model.

    Nothing is solved, so the advantages of reinforcement learning are 0. The weight decay of its first step takes the
    policy away from the reference (by a hundredth: less would be lost in bf16), and the second follows the KL term.
    """
    problems = [{"id": str(n), "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(8)]
    for name, chosen in (("train", problems[:4]), ("heldout", problems[4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in chosen))
    (folder / "text.jsonl").write_text(json.dumps({"text": "Twelve and thirty are forty-two. " * 4}) + "\n")
    write_sums(folder / "sums.jsonl", 16)
    training = {"learning_rate": 1e-4, "micro_batch_tokens": 512}
    stages = [
        {"id": "sft", "kind": "sft", "data": [str(folder / "sums.jsonl")], "batch_examples": 8, **training},
        {
            "id": "rl", "kind": "rl", "data": [str(folder / "train.jsonl")], "steps": 2, "prompts_per_step": 2,
            "group_size": 2, "kl_coefficient": 0.1, "weight_decay": 100.0, "sampling": {"max_new_tokens": 8},
            **training,
        },
        {
            "id": "evaluate", "kind": "evaluate", "models": ["base", "rl"], "few_shot": 0,
            "tasks": [{"name": str(folder / "heldout.jsonl"), "split": "all"}], "sampling": {"max_new_tokens": 8},
            "heldout_text": [{"name": str(folder / "text.jsonl"), "split": "all"}],
        },
        {
            "id": "release", "kind": "release", "evaluation": "evaluate", "name": "true-shape",
            "keep": {"tasks": "none", "bits_per_byte": "none"}, "allow_same_judge": True,
            "gates": [{"metric": "pass@1", "min_gain": -100.0}, {"metric": "bits_per_byte", "min_gain": -100.0}],
        },
    ]  # fmt: skip
    recipe = {"name": "true/shape", "title": "Qwen2.5-0.5B's shape", "status": "validated only", "stages": stages}
    (folder / "line.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "line.yaml"


def derive(folder: Path, *words: str) -> dict[str, Any]:
    """The record of a run on all cores that this process may use."""
    (folder / "machine.yaml").write_text("name: here\n")
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    machine = ["--machine", str(folder / "machine.yaml")]
    command = [sys.executable, "-m", "flows.cli", *words, *machine, "--store", str(folder / "store"), "--no-prefect"]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record: dict[str, Any] = json.loads(done.stdout)
    return record


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shape_of_qwen_half_a_billion_goes_from_base_to_release(tmp_path: Path, data_mirror: Path) -> None:
    base = write_base(tmp_path / "base", data_mirror / "qwen2.5-tokenizer")
    record = derive(tmp_path, "run", str(write_preset(tmp_path)), "--base", str(base))

    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    stages = {stage["id"]: Path(stage["folder"]) for stage in record["stages"]}
    print(f"{record['seconds']:.0f} s, peak {peak_gb:.1f} GiB", {s["id"]: s["seconds"] for s in record["stages"]})
    assert list(stages) == ["sft", "rl", "evaluate", "release"]
    assert peak_gb < MAX_MEMORY_GB
    check_training(stages["sft"], stages["rl"])
    check_evaluation(stages["evaluate"])
    check_release(Path(record["release"]))


def check_training(sft: Path, rl: Path) -> None:
    """Two steps each; nothing is known yet, so a token's loss is that of a uniform draw."""
    steps = read_progress(sft)
    assert [line["step"] for line in steps] == [1, 2]
    assert steps[0]["sft/loss"] == pytest.approx(math.log(NUM_ROWS), abs=0.5)
    steps = read_progress(rl)
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert line["rl/trained_tokens"] == line["rl/tokens"] > 0
        # To the trainer a padded id has log-probability minus infinity: one draw of it is an infinite mismatch.
        assert line["rl/mismatch"] <= line["rl/largest_mismatch"] < 0.2
        assert line["rl/entropy"] == pytest.approx(math.log(NUM_TOKENS), abs=0.5)
    for name in ("rl/divergence", "rl/grad_norm"):
        assert 0 == steps[0][name] < steps[1][name]  # in the first step the policy is the reference
    rollouts = [json.loads(line) for line in (rl / "rollouts.jsonl").read_text().splitlines()]
    assert len(rollouts) == 2 * 2 * 2
    assert all(one["completion"] for one in rollouts)  # a padded id has no text


def check_evaluation(folder: Path) -> None:
    models = json.loads((folder / "results.json").read_text())["models"]
    assert set(models) == {"base", "rl"}
    for model in models.values():
        assert model["pass@1"]["total"] == 4 and model["pass@1"]["no_verdict"] == 0
        bits = model["bits_per_byte"]["text.jsonl"]
        assert 2 < bits < 2 * math.log2(NUM_TOKENS)  # a token is a few bytes


def check_release(folder: Path) -> None:
    """What a stranger's transformers makes of it."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118  # the handle is no dict
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [NUM_ROWS, 896]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert model.dtype == torch.bfloat16 and model.config.tie_word_embeddings
    assert model.num_parameters() == 494_032_768  # as published
    assert model.config.rope_parameters["rope_theta"] == 1e6

    assert len(tokenizer) == NUM_TOKENS
    assert tokenizer.convert_tokens_to_ids(list(QWEN_ADDED_TOKENS)) == list(range(151_643, NUM_TOKENS))
    named = {"<|im_end|>": 151_645, "<|fim_prefix|>": 151_659, "<|repo_name|>": 151_663, "<|file_sep|>": 151_664}
    assert {token: tokenizer(token).input_ids for token in named} == {token: [id_] for token, id_ in named.items()}
    assert model.generation_config.eos_token_id == [151_645, 151_643]
    assert model.generation_config.suppress_tokens == list(range(NUM_TOKENS, NUM_ROWS))

    asked = [{"role": "user", "content": "What is 12 + 30?"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n")
    given = tokenizer(text, return_tensors="pt")
    drawn = model.generate(**given, max_new_tokens=4)[0, given.input_ids.shape[1] :].tolist()
    assert 1 <= len(drawn) <= 4 and max(drawn) < NUM_TOKENS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ids_that_pad_the_vocabulary_are_never_drawn_however_likely(tmp_path: Path, data_mirror: Path) -> None:
    tokenizer = load_tokenizer(data_mirror / "qwen2.5-tokenizer")
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = random_qwen(**small, max_window_layers=2, initializer_range=0.2)
    with torch.no_grad():
        model.get_input_embeddings().weight[NUM_TOKENS:] *= 8  # far likelier than the real ones
    engine = RolloutEngine(model.eval(), tokenizer, num_slots=64)
    assert engine.num_real_tokens == NUM_TOKENS and len(engine.stops_V) == NUM_ROWS
    prompts = [tokenizer(f"What is {n} + 1?").input_ids for n in range(4)]

    for sampling in (Sampling(max_new_tokens=48), Sampling(max_new_tokens=8, top_p=0.9, temperature=2.0)):
        drawn = drawn_ids(engine, prompts, sampling)
        assert len(drawn) > 60 * 8 and max(drawn) < NUM_TOKENS
    assert max(drawn_ids(engine, prompts, Sampling(temperature=0.0, max_new_tokens=8))) < NUM_TOKENS

    engine.num_real_tokens = NUM_ROWS  # without the mask they would be
    drawn = drawn_ids(engine, prompts, Sampling(max_new_tokens=2))
    assert sum(id_ >= NUM_TOKENS for id_ in drawn) > len(drawn) / 2


def drawn_ids(engine: RolloutEngine, prompts: list[list[int]], sampling: Sampling) -> list[int]:
    groups = engine.generate(prompts, 16, sampling, seed=1)
    assert all(math.isfinite(value) for group in groups for one in group for value in one.log_probs)
    return [id_ for group in groups for one in group for id_ in one.token_ids]
