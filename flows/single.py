"""Recipes of one stage, for `derive sft DATA.jsonl --base X` and its like: made in memory, run like any other.

The defaults are for a checkpoint that is tuned further: one pass, gentle learning rates, larger for the seedling,
which is a thousand times smaller than what the gentle ones are for. `--set STAGE.field=value` changes any field.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import check_recipe
from configs.overrides import apply_override, parse_override
from configs.schema import Recipe
from flows.inputs import EXAMPLES, PAIRS, PROBLEMS, TEXT, check_jsonl

BYTES_PER_TOKEN = 4
"""Of English text and code under Qwen's tokenizer; only sizes the default pass over a pretraining file."""

KEYS = {"pretrain": TEXT, "sft": EXAMPLES, "sample": PROBLEMS, "dpo": PAIRS, "rl": PROBLEMS}
GENTLE = {"pretrain": 1e-5, "sft": 1e-5, "dpo": 1e-6, "rl": 1e-6}
SEEDLING = {"pretrain": 1e-3, "sft": 1e-3, "dpo": 1e-4, "rl": 2e-4}
RL_STEPS = 50


def single_stage(kind: str, data: Path, base: str, overrides: Sequence[str]) -> Recipe:
    """A recipe that trains `base` on one JSONL file, or samples from it.

    Raises:
        UserError: for a file without the needed keys, or an override that does not fit.
    """
    data = data.expanduser().resolve()
    if data.suffix != ".jsonl":
        raise UserError(f"DATA: {str(data)!r} does not end in .jsonl; give a JSONL file")
    check_jsonl(data, KEYS[kind], "DATA")
    stage: dict[str, Any] = {"id": kind, "kind": kind, "data": [str(data)]}
    if kind in GENTLE:
        stage["learning_rate"] = (SEEDLING if base == "seedling" else GENTLE)[kind]
    stages = [stage]
    if kind == "pretrain":
        stage.update(data=["corpus"], num_tokens=max(1, data.stat().st_size // BYTES_PER_TOKEN))
        stages.insert(0, {"id": "corpus", "kind": "corpus", "output": "tokens", "sources": [{"name": str(data)}]})
    if kind == "rl":
        stage.update(steps=RL_STEPS)
    raw: dict[str, Any] = {
        "name": f"{kind}/{data.stem}",
        "title": f"{kind} of {base} on {data.name}",
        "status": "validated only",
        "base": base,
        "stages": stages,
    }
    for text in overrides:
        path, value = parse_override(text)
        apply_override(raw, path, value)
    return check_recipe(raw)
