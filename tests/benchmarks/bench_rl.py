"""Reinforcement learning beside TRL's GRPOTrainer, and drawing beside transformers' generate(): tokens/s and memory.

    python tests/benchmarks/bench_rl.py [--rows seedling 7M-64 ...] [--repeats 3] [--cores 0,1] [--out FILE.json]

Both sides train one checkpoint with GRPO on the same prompts in each step, 8 of them with 8 completions each, drawn at
temperature 1, rate 1e-5, no KL term, FP32 masters and bf16 arithmetic, on two threads, in turns. The reward is 1 where
the completion holds the gold text: a function in the trainer's process there, a verifier in the pool's workers here.
TRL is given every setting that may be its best: FP32 weights under autocast (nearest to ours), plain FP32, plain bf16
weights (which lose updates as small as these), the 64 completions in one pass and in four, a static cache (which TRL
itself never compiles, and which fails under autocast); each is tried once, and the fastest is repeated, as is the
fastest with FP32 weights. (Its continuous batching is left out: on busy CPU cores, once, whole steps of the seedling's
row gave 173 tokens/s in 12 GB, where plain generate() gave 1,200.)
The decode rows draw exactly as many tokens of each, on either side, and stop at nothing.

| row | model | completions |
|---|---|---|
| seedling | the seedling, 4M parameters, vocabulary 2,048, adding three numbers | up to 64 tokens; ends by itself |
| 7M-64, 7M-256 | 6 layers, width 320, vocabulary 2,048, random weights | 64 and 256 tokens, nearly all of them full |
| 45M-64 | 6 layers, width 256, Qwen2.5's vocabulary, random weights | 64 tokens; needs the mirror of DERIVE_DATA |

Random weights never answer: there the gold is a pair of letters that half of the completions hold, and a cut
completion is judged like any other (TRL's way; `--judge-cut` of `bench_rl_ours.py`), so that nearly every group has
spread and every token is trained on, on both sides. Where a group has none (the seedling row), its rewards give no
gradient: we leave it out of the update, TRL computes it. The share of such groups is in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import string
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs.settings.common import Sampling  # noqa: E402 - needs the path above
from derivatives.rollout.engine import RolloutEngine  # noqa: E402
from derivatives.seedling import SEEDLING_PATH  # noqa: E402
from derivatives.training.chat import conversation, encode_chat, render  # noqa: E402
from derivatives.training.model import load_model, load_tokenizer  # noqa: E402
from derivatives.training.order import items_between  # noqa: E402
from tests.benchmarks.bench_training import SIZES, Side, make_model, memory, tokenizer_of  # noqa: E402
from tests.benchmarks.peers import TRL, NoPeerError, interpreter  # noqa: E402

HERE = Path(__file__).parent
SEED, LEARNING_RATE, PROMPTS, GROUP = 0, 1e-5, 8, 8
SHAPES = {size.name: size for size in SIZES}


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    shape: str | None
    """Name of a shape of random weights; None takes the seedling."""
    length: int
    steps: int
    decodes: bool
    """Whether drawing alone is measured as well."""


ROWS = (
    Row("seedling", None, 64, 10, False),
    Row("7M-64", "7M", 64, 8, True),
    Row("7M-256", "7M", 256, 5, True),
    Row("45M-64", "45M", 64, 4, True),
)

# TRL's ways, by name: options of bench_rl_trl.py. The first ones are tried for drawing alone as well.
DTYPES = {
    "fp32 weights, autocast": ["--dtype", "float32", "--autocast"],
    "fp32": ["--dtype", "float32"],
    "bf16 weights": ["--dtype", "bfloat16"],
}
DECODING = {
    **DTYPES,
    "fp32, static cache": ["--dtype", "float32", "--cache", "static"],
    "bf16 weights, static cache": ["--dtype", "bfloat16", "--cache", "static"],
}
TRAINING = {
    **DTYPES,
    "fp32 weights, autocast, 16 a pass": [*DTYPES["fp32 weights, autocast"], "--micro", "16"],
    "bf16 weights, 16 a pass": [*DTYPES["bf16 weights"], "--micro", "16"],
    "fp32, static cache": [*DTYPES["fp32"], "--cache", "static"],
    "bf16 weights, static cache": [*DTYPES["bf16 weights"], "--cache", "static"],
}


def model_of(row: Row, folder: Path) -> Path:
    """The checkpoint of a row, made if it has random weights. Raises FileNotFoundError, with what to do."""
    if row.shape is None:
        return SEEDLING_PATH
    tokenizer_of(SHAPES[row.shape])
    make_model(SHAPES[row.shape], folder / "model")
    return folder / "model"


def sums(count: int) -> list[tuple[str, str]]:
    """Distinct questions with their answers; the seedling gets most groups partly right."""
    draw = random.Random(SEED)
    found: dict[str, str] = {}
    while len(found) < count:
        numbers = draw.randrange(1000, 10000), draw.randrange(100, 1000), draw.randrange(10, 100)
        found["Calculate {} + {} + {}.".format(*numbers)] = str(sum(numbers))
    return list(found.items())


def even_gold(model_folder: Path, prompts: list[str], length: int) -> str:
    """Two letters that about half of a model's completions hold."""
    torch.set_num_threads(2)
    model, tokenizer = load_model(model_folder)
    ids = [encode_chat(tokenizer, conversation(prompt)) for prompt in prompts[:PROMPTS]]
    groups = RolloutEngine(model, tokenizer).generate(ids, GROUP, Sampling(max_new_tokens=length), SEED)
    texts = [one.text for group in groups for one in group]
    letters = string.ascii_letters
    return min(
        (first + second for first in letters for second in letters),
        key=lambda pair: abs(sum(pair in text for text in texts) / len(texts) - 0.5),
    )


def make_data(row: Row, model: Path, folder: Path) -> tuple[Path, Path]:
    """The same problems twice: for our side, and templated in the order of its steps for the peer's."""
    pairs = sums(PROMPTS * row.steps)
    if row.shape is not None:
        gold = even_gold(model, [prompt for prompt, _ in pairs], row.length)
        pairs = [(prompt, gold) for prompt, _ in pairs]
    ours, peers, tokenizer = folder / "ours.jsonl", folder / "peer.jsonl", load_tokenizer(model)
    ordered = [pairs[item] for item in items_between(0, len(pairs), len(pairs), SEED)]
    templated = [(render(tokenizer, conversation(prompt), True), answer) for prompt, answer in ordered]
    for path, lines in ((ours, pairs), (peers, templated)):
        text = "".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in lines)
        path.write_text(text, encoding="utf-8")
    return ours, peers


def median_speed(run: dict[str, Any]) -> float:
    """Completion tokens a second: the median over the steps without the first, which warms up."""
    return statistics.median(n / s for n, s in zip(run["tokens"][1:], run["seconds"][1:], strict=True))


def later(name: str) -> Any:
    """The median of a figure over the steps without the first."""
    return lambda run: statistics.median(run[name][1:])


def drawing_share(run: dict[str, Any]) -> float:
    """Share of the time that drawing took."""
    return float(sum(run["drawing"][1:]) / sum(run["seconds"][1:]))


def stage_file(row: Row, steps: int, model: Path, data: Path, threads: int) -> dict[str, Any]:
    """Our stage."""
    stage = {
        "id": "rl", "kind": "rl", "data": [str(data)], "loss": "grpo", "verifier": "contains", "steps": steps,
        "prompts_per_step": PROMPTS, "group_size": GROUP, "curriculum": False, "learning_rate": LEARNING_RATE,
        "schedule": "constant", "warmup_fraction": 0.0, "precision": "bf16", "checkpoint_every": 10_000,
        "sampling": {"temperature": 1.0, "max_new_tokens": row.length},
    }  # fmt: skip
    return {
        "recipe": "bench", "stage": stage, "model": "base", "seed": SEED,
        "inputs": {"base": {"kind": "base", "path": str(model)}}, "machine": {"name": "cpu", "num_threads": threads},
    }  # fmt: skip


class Comparison:
    """Our side and the peer's settings for one row, trained or drawn alone."""

    def __init__(self, row: Row, decodes: bool, folder: Path, files: tuple[Path, Path, Path], given: Any) -> None:
        self.row, self.decodes, self.out = row, decodes, folder / "out"
        model, data, templated = files
        steps, threads = (4 if decodes else row.steps), len(given.cores.split(","))
        path = folder / f"stage-{decodes}.json"
        path.write_text(json.dumps(stage_file(row, steps, model, data, threads)), encoding="utf-8")
        what = ["decode"] if decodes else ["train", *(["--judge-cut"] if row.shape is not None else [])]
        command = [sys.executable, str(HERE / "bench_rl_ours.py"), *what, str(path), str(self.out)]
        self.own = Side("ours", command, given.cores)
        common = [given.python, str(HERE / "bench_rl_trl.py"), "--model", str(model), "--prompts", str(templated),
                  "--length", str(row.length), "--steps", str(steps), "--lr", str(LEARNING_RATE), "--threads",
                  str(threads), *(["--decode"] if decodes else [])]  # fmt: skip
        ways = DECODING if decodes else TRAINING
        self.others = [Side(name, [*common, *options], given.cores) for name, options in ways.items()]

    def bench(self, repeats: int) -> dict[str, Any]:
        """All of the peer's settings once, then ours and its fastest in turns. Raises SystemExit where a side fails."""
        print(f"{self.row.name}{', drawing alone' if self.decodes else ''}", flush=True)
        for side in self.others:
            side.run()
        others = [side for side in self.others if side.runs]
        if not others:
            sys.exit(f"error: {self.row.name}: no run of the peer's came to its end; see the messages above")
        best = fastest(others)
        precise = fastest([side for side in others if side.name.startswith("fp32")] or others)
        for number in range(repeats):
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir()
            self.own.run()
            for side in dict.fromkeys((best, precise)):
                if number + 1 < repeats:
                    side.run()
        if not self.own.runs:
            sys.exit(f"error: {self.row.name}: no run of ours came to its end; see the messages above")
        sides = self.own, best
        figures = {
            "tokens_per_s": median_speed, "tokens": later("tokens"), "seconds": later("seconds"),
            "drawing": drawing_share, "memory_mb": memory,
        }  # fmt: skip
        if not self.decodes:
            figures["without_spread"] = lambda run: statistics.mean(run["without_spread"][1:])
        found = {name: [side.median(what) for side in sides] for name, what in figures.items()}
        return {
            "row": self.row.name, "drawing_alone": self.decodes, "best": best.name, **found,
            "best_fp32": precise.name, "ratio_fp32": found["tokens_per_s"][0] / precise.median(median_speed),
            "ratio": found["tokens_per_s"][0] / found["tokens_per_s"][1],
            "memory_share": found["memory_mb"][0] / found["memory_mb"][1],
            "ours": self.own.runs, "peers": {side.name: side.runs for side in others},
        }  # fmt: skip


def fastest(sides: list[Side]) -> Side:
    """The side whose first run was."""
    return max(sides, key=lambda side: median_speed(side.runs[0]))


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown, ours first in each pair."""
    lines = [
        "| GRPO | completion tokens/s: ours, TRL's best (which) | ratio | to its best with FP32 weights "
        "| tokens a step | seconds a step | drawing | groups without spread | peak MB above imports | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if not row["drawing_alone"]):
        lines.append(
            f"| {row['row']} | {_pair(row, 'tokens_per_s', ',.0f')} ({row['best']}) | {row['ratio']:.2f} "
            f"| {row['ratio_fp32']:.2f} ({row['best_fp32']}) | {_pair(row, 'tokens', ',.0f')} "
            f"| {_pair(row, 'seconds', '.3f')} | {_pair(row, 'drawing', '.0%')} "
            f"| {_pair(row, 'without_spread', '.0%')} | {_pair(row, 'memory_mb', ',.0f')} "
            f"| {row['memory_share']:.2f} |"
        )
    lines += [
        "",
        "| drawing alone | tokens/s: ours, generate()'s best (which) | ratio | to its best with FP32 weights "
        "| peak MB above imports |",
        "|---|---|---|---|---|",
    ]
    for row in (row for row in rows if row["drawing_alone"]):
        lines.append(
            f"| {row['row']} | {_pair(row, 'tokens_per_s', ',.0f')} ({row['best']}) | {row['ratio']:.2f} "
            f"| {row['ratio_fp32']:.2f} ({row['best_fp32']}) | {_pair(row, 'memory_mb', ',.0f')} |"
        )
    return "\n".join(lines)


def _pair(row: dict[str, Any], name: str, form: str) -> str:
    return ", ".join(format(value, form) for value in row[name])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="rows to measure, else all")
    parser.add_argument("--what", choices=["train", "decode"], help="only GRPO, or only drawing; else both")
    parser.add_argument("--repeats", type=int, default=3, help="runs of either side")
    parser.add_argument("--cores", default="0,1", help="processors that either side runs on")
    parser.add_argument("--out", type=Path, help="JSON file for every run's figures")
    given = parser.parse_args()
    try:
        given.python = interpreter(TRL)
    except NoPeerError as error:
        sys.exit(f"error: {error}")
    os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    rows: list[dict[str, Any]] = []
    for row in (row for row in ROWS if not given.rows or row.name in given.rows):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                model = model_of(row, folder)
            except FileNotFoundError as error:
                print(error, flush=True)
                continue
            files = model, *make_data(row, model, folder)
            for decodes in (False, True):
                if (decodes and not row.decodes) or given.what == ("train" if decodes else "decode"):
                    continue
                rows.append(Comparison(row, decodes, folder, files, given).bench(given.repeats))
                if given.out is not None:
                    given.out.parent.mkdir(parents=True, exist_ok=True)
                    given.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
