"""Four times the context of the seedling: by the config alone, and after a short pretraining on long documents.

    python tests/benchmarks/bench_context.py FOLDER [--tokens 400000]

The seedling was trained on rows of at most 512 tokens; a copy of it says so. It moves to 2,048 in three ways: the
rotation as it was, another base, YaRN. Measured before any step and after pretraining on files of Python's standard
library in pieces of up to 2,048 tokens:

- bits per byte of held-out files by the place of a token in its window of 2,048;
- of trained models, the same of a window's second half, with only the nearest tokens before each;
- a repeat: 64 tokens, filler of other files, the same 64 tokens. What share of the last 48 is guessed, by length of
  the filler.

The last figures are in docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.settings.corpus import CorpusSource
from configs.settings.training import Context
from corpora.sources import texts
from derivatives.losses.cross_entropy import chunked_log_probs
from derivatives.seedling import SEEDLING_PATH
from derivatives.training.batch import Row, pack
from derivatives.training.chat import encode_text
from derivatives.training.context import extend
from derivatives.training.forward import hidden_states
from derivatives.training.model import head_weight, load_model

OLD, NEW = 512, 2048
WAYS: dict[str, dict[str, Any]] = {
    "rotation as it was": {"length": NEW, "rope_base": 10_000.0},
    "base 100,000": {"length": NEW, "rope_base": 100_000.0},
    "YaRN, factor 4": {"length": NEW, "yarn": {"factor": NEW / OLD, "original": OLD}},
}
PLACES = (0, 256, 512, 1024, 2048)
FILLERS = (320, 900, 1800)
REPEATED, CUE, NEAR = 64, 16, 256
NUM_WINDOWS, NUM_REPEATS = 64, 60


def run(module: str, out: Path, base: Path, inputs: dict[str, Path], **stage: Any) -> None:
    """A stage command, in a process of its own; what is done is left as it is."""
    given = {name: {"kind": "base", "path": str(path)} for name, path in {"base": base, **inputs}.items()}
    machine = {"name": "cpu", "num_threads": 1}
    content = {"recipe": "bench", "stage": stage, "model": "base", "inputs": given, "machine": machine}
    path = out.with_suffix(".json")
    path.write_text(json.dumps(content), encoding="utf-8")
    subprocess.run([sys.executable, "-m", module, str(path), str(out)], check=True)


def heldout_ids(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """All held-out files one after the other, as one line of ids."""
    source = CorpusSource(name="python_stdlib", split="heldout")
    return torch.tensor([id_ for text in texts(source) for id_ in encode_text(tokenizer, text)])


def held_windows(tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """The first whole windows of held-out files, each one piece of a file."""
    source = CorpusSource(name="python_stdlib", split="heldout")
    pieces = [part for text in texts(source) for part in torch.tensor(encode_text(tokenizer, text)).split(NEW)]
    windows = [part for part in pieces if len(part) == NEW][:NUM_WINDOWS]
    assert len(windows) == NUM_WINDOWS
    return windows


def bits_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Bits of each token; 0 for the first, which nothing predicts."""
    (batch,) = pack([Row(ids.tolist())], NEW)
    found_T, _ = chunked_log_probs(hidden_states(model, batch), head_weight(model), batch.targets_T)
    return -found_T.roll(1) / math.log(2)


def bytes_of(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Bytes of each token: a character of byte-level BPE's vocabulary is one."""
    return torch.tensor([len(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])


@torch.inference_mode()
def by_place(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """Bits per byte of tokens between the places of a window."""
    num_bytes, bits, size = bytes_of(tokenizer), torch.zeros(len(PLACES) - 1), torch.zeros(len(PLACES) - 1)
    for window in held_windows(tokenizer):
        found_T = bits_of(model, window)
        for number, (first, last) in enumerate(zip(PLACES, PLACES[1:], strict=False)):
            first = max(first, 1)
            bits[number] += found_T[first:last].sum()
            size[number] += num_bytes[window[first:last]].sum()
    return (bits / size).tolist()


@torch.inference_mode()
def from_far(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Bits per byte of a window's second half: with all before it, and with the 256 to 511 tokens before each alone."""
    num_bytes, whole, near = bytes_of(tokenizer), [], []
    for window in held_windows(tokenizer):
        size = int(num_bytes[window[NEW // 2 :]].sum())
        whole.append(float(bits_of(model, window)[NEW // 2 :].sum()) / size)
        starts = range(NEW // 2, NEW, NEAR)
        near.append(sum(float(bits_of(model, window[at - NEAR : at + NEAR])[NEAR:].sum()) for at in starts) / size)
    gains = torch.tensor(near) - torch.tensor(whole)
    error = float(gains.std()) / len(gains) ** 0.5
    means = [sum(values) / len(values) for values in (whole, near)]
    return (
        f"whole window {means[0]:.3f}, {NEAR} to {2 * NEAR - 1} tokens {means[1]:.3f}: "
        f"{float(gains.mean()):.3f} ({error:.3f}) from the rest"
    )


@torch.inference_mode()
def repeats(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """Share of the repeated tokens, after a cue of the first of them, that the model guesses right."""
    ids, shares = heldout_ids(tokenizer), []
    for filler in FILLERS:
        right = 0
        for number in range(NUM_REPEATS):
            start = number * 3000
            segment = ids[start : start + REPEATED]
            between = ids[start + 100_000 :][:filler] if start + 100_000 + filler < len(ids) else ids[:filler]
            (batch,) = pack([Row(torch.cat((segment, between, segment)).tolist())], NEW)
            last = hidden_states(model, batch)[-REPEATED + CUE - 1 : -1] @ head_weight(model).T
            right += int((last.argmax(1) == segment[CUE:]).sum())
        shares.append(right / NUM_REPEATS / (REPEATED - CUE))
    return shares


def show(title: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A line of each table."""
    bits, shares = by_place(model, tokenizer), repeats(model, tokenizer)
    print(f"| {title} |", " | ".join(f"{value:.3f}" for value in bits), "|", end=" ")
    print(" | ".join(f"{share:.1%}" for share in shares), "|", flush=True)


def main() -> None:
    """Train each way, and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where stages are written; a started run goes on")
    parser.add_argument("--tokens", type=int, default=400_000, help="tokens of each pretraining")
    parser.add_argument("--rate", type=float, default=5e-4, help="its learning rate")
    given = parser.parse_args()
    folder: Path = given.folder
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    base, corpus = folder / "base", folder / "corpus"
    if not base.is_dir():
        shutil.copytree(SEEDLING_PATH, base)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": OLD}))
    if not (corpus / "metrics.json").is_file():
        budget = {"num_tokens": given.tokens, "sequence_length": NEW}
        sources = [{"name": "python_stdlib"}]
        run("corpora.build", corpus, base, {}, id="corpus", kind="corpus", output="tokens", sources=sources, **budget)
    places = " | ".join(f"{first} to {last}" for first, last in zip(PLACES, PLACES[1:], strict=False))
    print(f"| model | {places} |", " | ".join(f"repeat after {filler}" for filler in FILLERS), "|")
    print("|" + "---|" * (len(PLACES) + len(FILLERS)))
    for way, setting in WAYS.items():
        model, tokenizer = load_model(base)
        extend(model, tokenizer, Context.model_validate(setting))
        show(f"{way}, config alone", model, tokenizer)
        out = folder / way.replace(" ", "_").replace(",", "")
        run(
            "derivatives.pretrain", out, base, {"corpus": corpus}, id="longer", kind="pretrain", data=["corpus"],
            num_tokens=given.tokens, context=setting, learning_rate=given.rate, batch_tokens=16_384,
            micro_batch_tokens=8192,
        )  # fmt: skip
        trained = load_model(out / "model")
        show(f"{way}, trained", *trained)
        print(from_far(*trained), flush=True)


if __name__ == "__main__":
    main()
