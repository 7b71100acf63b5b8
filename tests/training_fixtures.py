"""What the training tests share: a tiny random Qwen2 with a tokenizer of bytes, its data and its stage files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from configs.stage import StageFile
from derivatives.training.model import load_tokenizer, save_model

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NUM_TOKENS = 256 + len(SPECIAL)
VOCABULARY = 272
"""Embedding rows: more than there are tokens, as in Qwen2.5."""


def write_tokenizer(folder: Path, special: tuple[str, ...] = SPECIAL) -> None:
    """A tokenizer with one token per byte, then the special ones."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0]).save_pretrained(folder)


def tiny_model(seed: int = 0, **config: Any) -> Qwen2ForCausalLM:
    """Two layers, 32 wide, FP32, tied; weights are large enough for attention to matter."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "tie_word_embeddings": True, "initializer_range": 0.2,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**{**shape, **config}))


def write_checkpoint(folder: Path, **config: Any) -> Path:
    """A whole tiny checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    save_model(tiny_model(**config), load_tokenizer(folder), folder)
    return folder


def write_sums(path: Path, count: int) -> Path:
    """Examples of prompts and completions of different lengths, the same ones every time."""
    lines = []
    for number in range(count):
        terms = [(number * 7 + place * 11) % 50 for place in range(2 + number % 4)]
        example = {"prompt": " + ".join(map(str, terms)) + " =", "completion": str(sum(terms))}
        lines.append(json.dumps(example) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def stage_file(base: Path, machine: dict[str, Any] | None = None, seed: int = 3, **stage: Any) -> StageFile:
    """A stage file that starts from a checkpoint folder, on one thread."""
    defaults = {"learning_rate": 3e-3, "precision": "fp32", "checkpoint_every": 2, "micro_batch_tokens": 256}
    return StageFile.model_validate(
        {
            "recipe": "test",
            "stage": {"id": "trained", "kind": "sft", **defaults, **stage},
            "model": "base",
            "seed": seed,
            "inputs": {"base": {"kind": "base", "path": str(base)}},
            "machine": {"name": "cpu", "num_threads": 1, **(machine or {})},
        }
    )


def sft_file(base: Path, data: Path, **stage: Any) -> StageFile:
    """An sft stage over one JSONL file, eight examples a step."""
    return stage_file(base, data=[str(data)], **{"batch_examples": 8, **stage})
