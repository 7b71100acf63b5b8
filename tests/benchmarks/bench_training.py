"""Supervised fine-tuning beside TRL's SFTTrainer: useful tokens a second, peak memory, and the same losses.

    python tests/benchmarks/bench_training.py [--rows 7M 45M] [--repeats 3] [--cores 0,1] [--out FILE.json]

Both sides train one checkpoint of random weights on the same examples (the same token ids), FP32 masters and bf16
arithmetic, AdamW with one rate, the same examples in each step, on two threads, in turns. TRL is given every setting
that may be its best: padded and packed, in order and grouped by length, the whole step in one pass and in parts; each
is tried once, and the fastest is repeated. (Grouped and packed steps hold other examples, and packed rows on CPU let
documents see one another, as TRL itself warns; they count all the same.) Losses are compared step by step with the
padded run in order.

| row | layers, width | vocabulary | examples |
|---|---|---|---|
| 7M | 6, 320 | 2,048, the seedling's tokenizer | procedural problems with worked solutions |
| 45M | 6, 256 | 151,936, Qwen2.5's tokenizer | GSM8K's training set |

The second row needs the mirror that DERIVE_DATA names. TRL lives in an environment of its own (`peers.py`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs.catalogue import open_rows  # noqa: E402 - needs the path above
from configs.settings.common import TaskSource  # noqa: E402
from derivatives.seedling import SEEDLING_PATH  # noqa: E402
from derivatives.training.chat import conversation  # noqa: E402
from derivatives.training.model import load_tokenizer, save_model  # noqa: E402
from derivatives.training.order import items_between  # noqa: E402
from tests.benchmarks.peers import TRL, NoPeerError, interpreter  # noqa: E402
from verifiers.tasks import load_tasks  # noqa: E402
from verifiers.tasks.worked import worked_solution  # noqa: E402

HERE = Path(__file__).parent
SEED, LEARNING_RATE, MAX_LENGTH = 0, 1e-3, 1024


FAMILIES = ("leg_counting", "gcd", "simple_equations", "chain_sum", "basic_arithmetic", "products")


@dataclass(frozen=True)
class Size:
    """One row of the table: a shape, its steps, and how many examples of one pass of TRL's are tried."""

    name: str
    shape: dict[str, int]
    steps: int
    examples: int
    """Of a step; few where TRL takes minutes for a step."""
    micro: tuple[int, ...]
    grouped_micro: int
    tokenizer: str | None = None
    """Folder under DERIVE_DATA; None takes the seedling's."""


SIZES = (
    Size(
        "7M",
        {"num_hidden_layers": 6, "hidden_size": 320, "intermediate_size": 896, "num_attention_heads": 5,
         "num_key_value_heads": 1, "vocab_size": 2048},
        12, 64, (64, 16), 64,
    ),
    Size(
        "45M",
        {"num_hidden_layers": 6, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 151_936},
        5, 16, (16, 4), 16, "qwen2.5-tokenizer",
    ),
)  # fmt: skip


def tokenizer_of(size: Size) -> Path:
    """Folder of a row's tokenizer. Raises FileNotFoundError, with what to do."""
    if size.tokenizer is None:
        return SEEDLING_PATH
    mirror = os.environ.get("DERIVE_DATA")
    folder = Path(mirror or "") / size.tokenizer
    if mirror is None or not folder.is_dir():
        raise FileNotFoundError(f"{size.name} is left out: DERIVE_DATA names no mirror with {size.tokenizer}")
    return folder


def make_model(size: Size, folder: Path) -> int:
    """A checkpoint of random weights; returns its parameters, the tied head counted once."""
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(tokenizer_of(size))
    config = Qwen2Config(**size.shape, max_position_embeddings=2048, tie_word_embeddings=True, rope_theta=10_000.0)
    model = Qwen2ForCausalLM(config)
    save_model(model, tokenizer, folder)
    return model.num_parameters()


def make_data(size: Size, model: Path, folder: Path) -> tuple[Path, Path]:
    """The same examples twice: for our side, and templated in the order of its steps for the peer's."""
    if size.tokenizer is None:
        per = -(-size.examples * size.steps // len(FAMILIES))
        tasks = [
            task
            for family in FAMILIES
            for task in load_tasks(TaskSource(name=f"reasoning_gym/{family}", split="train", count=per, seed=7))
        ]
        pairs = [(task.prompt, text) for task in tasks if (text := worked_solution(task)) is not None]
    else:
        rows = itertools.islice(open_rows("gsm8k", "train"), size.examples * size.steps)
        pairs = [(row["question"], row["solution"]) for row in rows]
    tokenizer = load_tokenizer(model)
    ours, peers = folder / "ours.jsonl", folder / "peer.jsonl"
    _write(ours, pairs)
    templated = []
    for prompt, completion in pairs:
        text = tokenizer.apply_chat_template(conversation(prompt, None), tokenize=False, add_generation_prompt=True)
        templated.append((str(text), f"{completion}<|im_end|>"))
    _write(peers, [templated[item] for item in items_between(0, len(pairs), len(pairs), SEED)])
    return ours, peers


def _write(path: Path, pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Side:
    """What is run, again and again: a command whose last line of output is JSON."""

    def __init__(self, name: str, command: list[str], cores: str) -> None:
        self.name, self.command = name, ["taskset", "-c", cores, *command]
        self.runs: list[dict[str, Any]] = []

    def run(self) -> None:
        """Run it once; a failure is told and leaves no run."""
        quiet = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "TOKENIZERS_PARALLELISM": "false",
                 "HF_HUB_OFFLINE": "1"}  # fmt: skip
        done = subprocess.run(self.command, capture_output=True, text=True, env=quiet, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"  {self.name}: exit {done.returncode}: {last}", flush=True)
            return
        self.runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(f"  {self.name}: {speed(self.runs[-1]):,.0f} tokens/s, {self.runs[-1]['memory_mb']:,.0f} MB", flush=True)

    def median(self, what: Any) -> float:
        """Median over the runs."""
        return statistics.median(what(run) for run in self.runs)


def speed(run: dict[str, Any]) -> float:
    """Useful tokens a second, without the first step, which warms up."""
    return float(sum(run["tokens"][1:]) / sum(run["seconds"][1:]))


def memory(run: dict[str, Any]) -> float:
    """Peak in 1e6 bytes above the imports."""
    return float(run["memory_mb"])


def ours(size: Size, model: Path, data: Path, folder: Path, cores: str) -> Side:
    """Our side: a stage file, and a fresh folder for each run."""
    threads = len(cores.split(","))
    stage = {
        "id": "sft", "kind": "sft", "data": [str(data)], "learning_rate": LEARNING_RATE, "schedule": "constant",
        "warmup_fraction": 0.0, "batch_examples": size.examples, "max_length": MAX_LENGTH, "precision": "bf16",
        "checkpoint_every": 10_000,
    }  # fmt: skip
    content = {
        "recipe": "bench", "stage": stage, "model": "base", "seed": SEED,
        "inputs": {"base": {"kind": "base", "path": str(model)}}, "machine": {"name": "cpu", "num_threads": threads},
    }  # fmt: skip
    path = folder / "stage.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return Side("ours", [sys.executable, str(HERE / "bench_training_ours.py"), str(path)], cores)


def peers(size: Size, model: Path, data: Path, python: str, cores: str) -> list[Side]:
    """TRL's settings that are tried."""
    common = [python, str(HERE / "bench_training_trl.py"), "--model", str(model), "--data", str(data),
              "--lr", str(LEARNING_RATE), "--max-length", str(MAX_LENGTH), "--threads",
              str(len(cores.split(",")))]  # fmt: skip
    steps = ["--steps", str(size.steps), "--examples", str(size.examples)]
    found = [
        Side(f"trl padded, {micro} a pass", [*common, *steps, "--micro", str(micro)], cores) for micro in size.micro
    ]
    grouped = [*common, *steps, "--order", "group_by_length", "--micro", str(size.grouped_micro)]
    found.append(Side(f"trl padded, grouped by length, {size.grouped_micro} a pass", grouped, cores))
    rows = ["--examples", str(size.examples // 8), "--micro", str(max(1, size.examples // 16))]  # packed ones are full
    packed = ["--packing", "bfd", "--steps", str(max(3, size.steps // 2)), *rows]
    found.append(Side("trl packed", [*common, *packed], cores))
    return found


def bench(size: Size, repeats: int, cores: str, python: str) -> dict[str, Any]:
    """One row: all settings once, then ours and the peer's fastest in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        num_parameters = make_model(size, model)
        data, templated = make_data(size, model, folder)
        own, others = ours(size, model, data, folder, cores), peers(size, model, templated, python, cores)
        out = folder / "out"
        own.command.append(str(out))
        print(f"{size.name}: {num_parameters / 1e6:.1f} million parameters", flush=True)
        for side in others:
            side.run()
        others = [side for side in others if side.runs]
        best = max(others, key=lambda side: speed(side.runs[0]))
        in_order = next(side for side in others if side.name.startswith("trl padded, 16"))
        for number in range(repeats):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            own.run()
            if number + 1 < repeats:
                best.run()
        mine, theirs = own.runs[0]["losses"], in_order.runs[0]["losses"]
        return {
            "size": size.name, "parameters": num_parameters, "ours": own.runs,
            "peers": {side.name: side.runs for side in others}, "best": best.name,
            "ratio": own.median(speed) / best.median(speed), "memory": own.median(memory) / best.median(memory),
            "least_memory": own.median(memory) / min(side.median(memory) for side in others),
            "tokens_per_s": [own.median(speed), best.median(speed)],
            "memory_mb": [own.median(memory), best.median(memory)],
            "losses": [mine, theirs],
            "tokens_equal": own.runs[0]["tokens"] == in_order.runs[0]["tokens"],
            "loss_gap": max(abs(a - b) for a, b in zip(mine, theirs, strict=True)),
        }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| model | tokens/s: ours, TRL's best (which) | ratio | peak MB above imports: ours, TRL's best | share "
        "| losses: last step, ours and TRL's; largest gap of a step |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['size']} | {row['tokens_per_s'][0]:,.0f}, {row['tokens_per_s'][1]:,.0f} ({row['best']}) "
            f"| {row['ratio']:.2f} | {row['memory_mb'][0]:,.0f}, {row['memory_mb'][1]:,.0f} | {row['memory']:.2f} "
            f"| {row['losses'][0][-1]:.4f}, {row['losses'][1][-1]:.4f}; {row['loss_gap']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[size.name for size in SIZES], help="rows to measure, else all")
    parser.add_argument("--repeats", type=int, default=3, help="runs of either side")
    parser.add_argument("--cores", default="0,1", help="processors that either side runs on")
    parser.add_argument("--out", type=Path, help="JSON file for every run's figures")
    given = parser.parse_args()
    try:
        python = interpreter(TRL)
    except NoPeerError as error:
        sys.exit(f"error: {error}")
    rows = []
    for size in SIZES:
        if given.rows and size.name not in given.rows:
            continue
        try:
            tokenizer_of(size)
        except FileNotFoundError as error:
            print(error, flush=True)
            continue
        rows.append(bench(size, given.repeats, given.cores, python))
        if given.out is not None:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
