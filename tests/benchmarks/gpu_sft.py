"""Supervised fine-tuning on one GPU: tokens per second, MFU and peak memory at Qwen2.5's shapes, beside a peer.

    python tests/benchmarks/gpu_sft.py --out OUT [--rows checks,ours-1.5B] [--deadline-s 520]
    python tests/benchmarks/gpu_sft.py --out OUT --dry         toy shapes, on the CPU: does the script run?

Needs torch, transformers and a CUDA device; pytest for the checks, peft for adapters. Prefect, pydantic, datasets and a
network are not needed. Each row is a process of its own, so that one that crashes or does not fit costs only itself;
lines go to OUT/rows.jsonl as they come, a table to OUT/table.md at the end; log.txt has what the rows printed,
profiles.txt the kernels that a step spends its time in.

**Weights** are random, made on the device, with the shapes, vocabularies and tied embeddings of the originals; the
first loss is near the logarithm of the vocabulary. **Data**: documents of random tokens, lengths log-normal with median
512 and sigma 1, cut to 32 to 8,192, the same ones for all sides; every token but a document's first is
trained on, as in the published figures. A step is 64,000 tokens in packed rows of at most 8,192.

**Ours** are the trainer's parts as `Trainer.update` joins them: packing, packed attention, chunked cross-entropy, FP32
masters with FP32 sums of gradients. Weights and optimizer take 18 bytes a parameter, so 7B (137 GB) trains in full only
where that much is there; elsewhere its rows are forward and backward without an update, and adapters.

**Peer**: TRL's SFTTrainer where it can be imported; else a plain loop over transformers in the settings that TRL has
without flash-attn: padded and grouped by length, or packed under a dense mask. Labelled as what it is.

**MFU** is `throughput.ModelFlops` (with attention; what is recomputed or padded counts nothing) over 989 TFLOP/s.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_sft_row import SHAPES

ROOT = Path(__file__).resolve().parents[2]
GPU_TESTS = ("tests/equivalence/test_training_on_gpu.py",)
"""Tests marked `gpu` that need neither pydantic nor a tokenizer."""
MORE_GPU_TESTS = ("tests/equivalence/test_training_attention.py", "tests/equivalence/test_rollout_engine.py")
"""Those that import the recipe's schemas."""
BUDGETS_S = {
    "checks": 90, "ours-1.5B": 95, "ours-7B": 90, "ours-0.5B": 75, "peer-1.5B": 50, "peer-0.5B": 40, "peer-7B": 45,
    "ours-7B-lora": 35,
}  # fmt: skip
"""Rows in the order of their weight, each with the seconds after which it is ended; together the default deadline."""


def checks(out: Path, dry: bool) -> int:
    """The tests marked `gpu`, all of them where pydantic is there; and what a plain product of matrices reaches."""
    import torch

    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "transformers")}
    machine = {} if dry else {"device": torch.cuda.get_device_name(), "matmul_tflops": matmul_tflops()}
    write(out, row="machine", **versions, **machine)
    has_schemas = importlib.util.find_spec("pydantic") is not None
    left_out = {} if has_schemas else {"left_out": f"{', '.join(MORE_GPU_TESTS)}: pydantic is not installed"}
    # Warnings of other versions' own are no failures here.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rA", "-W", "default", "-p", "no:cacheprovider"]
    tests = [*GPU_TESTS, *(MORE_GPU_TESTS if has_schemas else ())]
    last = ""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, *tests], cwd=ROOT, **streams) as run:
        assert run.stdout is not None
        for text in run.stdout:
            print(text, end="", flush=True)
            last = text.strip() or last
    write(out, row="checks", passed=run.returncode == 0, pytest=last[:200], **left_out)
    return run.returncode


def write(out: Path, **line: Any) -> None:
    """Append one line to the results, and print it."""
    print(json.dumps(line), flush=True)
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def matmul_tflops() -> float:
    """Rate of an 8192 x 8192 x 8192 product of random bf16 matrices over a second, so that clocks have settled."""
    import torch

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        left @ right
    torch.cuda.synchronize()
    started, count = time.perf_counter(), 600
    for _ in range(count):
        left @ right
    torch.cuda.synchronize()
    return round(count * 2 * 8192**3 / (time.perf_counter() - started) / 1e12, 1)


def run_row(name: str, out: Path, dry: bool, budget_s: float) -> None:
    """One row in a process group of its own, ended after its budget."""
    row = Path(__file__).with_name("gpu_sft_row.py")
    words = [str(Path(__file__)), "--checks"] if name == "checks" else [str(row), name, "--budget-s", str(budget_s)]
    command = [sys.executable, *words, "--out", str(out)]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }  # fmt: skip
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        print(f"===== {name}", file=log, flush=True)
        started = time.monotonic()
        child = subprocess.Popen(
            [*command, *(["--dry"] if dry else [])], env=environment, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = child.wait(timeout=budget_s + 5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            code = None
    ended = "ended: out of time" if code is None else f"exit code {code}"
    print(f"{name}: {ended} after {time.monotonic() - started:.0f} s", flush=True)
    if code != 0:
        write(out, row=name, failed=f"{ended}; see log.txt")


def table(out: Path) -> str:
    """All lines so far as a Markdown table, then ours against the peer's best."""
    lines = [json.loads(text) for text in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    text = ["| row | setting | tokens/s | MFU | peak GB | first loss | note |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        setting = ", ".join(f"{key} {value}" for key, value in line.get("setting", {}).items() if key != "least_gb")
        named = {"row", "setting", "tokens_per_s", "mfu", "peak_gb", "first_loss"}
        note = ", ".join(f"{key} {value}" for key, value in line.items() if key not in named)
        cells = [line["row"], setting, *(line.get(key, "") for key in ("tokens_per_s", "mfu", "peak_gb", "first_loss"))]
        text.append("| " + " | ".join(str(cell).replace("|", "/") for cell in [*cells, note.replace("\n", " ")]) + " |")
    best: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.get("tokens_per_s", 0) > best.get(line["row"], {}).get("tokens_per_s", 0):
            best[line["row"]] = line
    text.append("")
    for size in SHAPES:
        mine, other = best.get(f"ours-{size}"), best.get(f"peer-{size}")
        if mine and other:
            ratio = mine["tokens_per_s"] / other["tokens_per_s"]
            text.append(f"{size}: {ratio:.2f} times the peer's best setting ({other['peer']}), MFU {mine['mfu']}")
    return "\n".join(text)


def main() -> int:
    """Run the rows, or one of them where this is its process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found; files there are added to")
    parser.add_argument("--rows", default=",".join(BUDGETS_S), help="which rows, in order")
    parser.add_argument("--deadline-s", type=float, default=float(sum(BUDGETS_S.values())), help="seconds for all rows")
    parser.add_argument("--dry", action="store_true", help="toy shapes on the CPU, to see that the script runs")
    parser.add_argument("--checks", action="store_true", help="nothing but the row of checks, in this process")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    if given.checks:
        return checks(out, given.dry)
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in BUDGETS_S]:
        parser.error(f"--rows: {', '.join(unknown)} unknown; allowed: {', '.join(BUDGETS_S)}")
    (out / "rows.jsonl").touch()
    until = time.monotonic() + given.deadline_s
    for name in names:
        left = until - time.monotonic() - 6
        if left < min(25, BUDGETS_S[name]):
            print(f"{name}: not begun, {left:.0f} s are left", flush=True)
            continue
        run_row(name, out, given.dry, left if given.dry else min(left, BUDGETS_S[name]))
    text = table(out)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
