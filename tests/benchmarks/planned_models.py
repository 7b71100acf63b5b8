"""Random-weight checkpoints, data and stages of the sizes that a small CPU machine trains, for `bench_plan.py`."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.stage import StageFile
from derivatives.training.model import load_tokenizer, save_model

SEEDLING = Path(__file__).parents[2] / "derivatives" / "seedling" / "checkpoint"
WIDE = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
SHAPES: dict[str, dict[str, int]] = {
    "4M": {},  # the seedling itself
    "7M": {**WIDE, "intermediate_size": 1152, "vocab_size": 2048},
    "45M": {**WIDE, "intermediate_size": 1024, "vocab_size": 151_936},
    "0.5B": {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": 151_936,
    },
    "1.5B": {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "intermediate_size": 8960, "vocab_size": 151_936,
    },
}  # fmt: skip
"""The seedling's tokenizer for all: a larger vocabulary is padding, which costs as much."""


@dataclass(frozen=True)
class Case:
    """One stage that is predicted, then run."""

    size: str
    kind: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        more = [str(self.settings[name]) for name in ("recompute",) if name in self.settings]
        more += ["lora"] if "lora" in self.settings else []
        return " ".join([self.size, self.kind, *more])


COMMON = {"learning_rate": 1e-5, "spikes": {"action": "ignore"}, "checkpoint_every": 1000}
SFT = {**COMMON, "batch_examples": 32, "max_length": 512}
CASES = (
    Case("4M", "sft", {**SFT, "examples": 320}),
    Case("4M", "pretrain", {**COMMON, "num_tokens": 60_000, "batch_tokens": 8192}),
    Case("4M", "rl", {**COMMON, "steps": 4, "sampling": {"max_new_tokens": 112}}),
    Case("7M", "sft", {**SFT, "examples": 320}),
    Case("7M", "sft", {**SFT, "examples": 320, "recompute": "full"}),
    Case("45M", "sft", {**SFT, "examples": 128}),
    Case("0.5B", "sft", {**SFT, "examples": 32, "batch_examples": 8}),
    Case("1.5B", "sft", {**SFT, "examples": 120, "batch_examples": 40, "lora": {"rank": 16}, "recompute": "selective"}),
)


def write_model(size: str, folder: Path) -> Path:
    """A checkpoint of this size; the seedling's weights, or random ones."""
    if not SHAPES[size]:
        return Path(shutil.copytree(SEEDLING, folder))
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[size], tie_word_embeddings=True, max_position_embeddings=2048)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    save_model(model, load_tokenizer(SEEDLING), folder)
    return folder


def write_data(case: Case, folder: Path) -> dict[str, Any]:
    """Data of a case, made up; what the stage's settings say of it, and the inputs of its stage file."""
    folder.mkdir(parents=True)
    drawn = random.Random(0)
    settings = dict(case.settings)
    if case.kind == "pretrain":
        return {"settings": {**settings, "data": ["corpus"]}, "inputs": _corpus(folder, drawn)}
    path = folder / f"{case.kind}.jsonl"
    lines = []
    for _ in range(settings.pop("examples", 256)):
        terms = [drawn.randrange(1, 99) for _ in range(drawn.randrange(2, 9))]
        question, total, work = " + ".join(map(str, terms)), terms[0], []
        for term in terms[1:]:
            work.append(f"{total} + {term} = {total + term}.")
            total += term
        example = {"prompt": f"What is {question}? Add one number at a time."}
        example |= {"completion": " ".join(work)} if case.kind == "sft" else {"answer": str(total)}
        lines.append(json.dumps(example) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return {"settings": {**settings, "data": [str(path)]}, "inputs": {}}


def _corpus(folder: Path, drawn: random.Random) -> dict[str, Any]:
    """Packed tokens of documents of 20 to 512 tokens, as a corpus stage leaves them."""
    import numpy as np

    lengths = [drawn.randrange(20, 513) for _ in range(300)]
    data = folder / "data"
    data.mkdir()
    tokens = np.array([drawn.randrange(2000) for _ in range(sum(lengths))], dtype="<u4")
    tokens.tofile(data / "tokens.bin")
    np.save(data / "documents.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    np.save(data / "sources.npy", np.zeros(len(lengths), dtype=np.int16))
    report = {"documents": len(lengths), "tokens": sum(lengths), "source_names": ["made"], "sources": {"made": {}}}
    (data / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return {"corpus": {"kind": "corpus", "path": str(folder)}}


def stage_file(case: Case, model: Path, data: dict[str, Any], num_threads: int) -> StageFile:
    """What the stage command is given."""
    return StageFile.model_validate(
        {
            "recipe": "bench",
            "stage": {"id": "trained", "kind": case.kind, **data["settings"]},
            "model": "base",
            "inputs": {"base": {"kind": "base", "path": str(model)}, **data["inputs"]},
            "machine": {"name": "cpu", "num_threads": num_threads},
        }
    )
