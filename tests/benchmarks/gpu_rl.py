"""Reinforcement learning on one GPU: decoding and whole GRPO steps at Qwen2.5's shapes, beside a peer.

    python tests/benchmarks/gpu_rl.py --out OUT [--rows checks,decode-1.5B] [--deadline-s 530]
    python tests/benchmarks/gpu_rl.py --out OUT --dry          toy shapes, on the CPU: does the script run?

Needs torch, transformers and a CUDA device; pytest for the checks. Prefect, pydantic, datasets and a network are not
needed. Each row is a process of its own with a budget; lines go to OUT/rows.jsonl as they come, a table to OUT/table.md
at the end; log.txt has what the rows printed, profiles.txt the kernels that a decode step spends its time in.

**A step** draws 8 completions of each of 32 prompts. **Weights** are random, made on the device, with the originals'
shapes; **prompts** are 128 to 512 random tokens, the same ones for all sides; nothing ends a completion before 1,024
tokens. Where a side is too slow for that in its row's time it draws fewer, which its line says (`new_tokens`).

**decode** is the rollout engine alone, prompts included, after a call that captured the graphs. **The bound** is what a
batch takes that only moves its bytes at the published bandwidth: weights once a step, the keys and values read, the
logits written (`gpu_rl_load.bound_tokens_per_s` has the formula). To reach: half of it.

**grpo** is drawing, a reward computed in this process (half of the completions have it), advantages and one update by
`PolicyUpdate` over FP32 masters; the cache stays in memory during the update, as in a run. `mismatch` is the mean
distance of the sampler's and the trainer's log-probabilities, in nats a token. `update_mfu` counts over 989 TFLOP/s.

**Peer**: TRL's GRPOTrainer where it can be imported, else a plain loop over transformers (`gpu_rl_peer.py`); each with
`generate()` and with continuous batching, weights and moments in bf16. Labelled as what it is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_sft import write
from gpu_sft_row import ROOT, SHAPES

HERE = Path(__file__).resolve().parent
GPU_TESTS = ("tests/equivalence/test_rollout_engine.py",)
"""With tests marked `gpu` of what is measured here; `gpu_sft.py` runs all that there are."""
BUDGETS_S = {
    "checks": 45, "decode-1.5B": 60, "grpo-1.5B": 100, "peer-1.5B": 120, "decode-0.5B": 45, "grpo-0.5B": 70,
    "peer-0.5B": 90,
}  # fmt: skip
"""Rows in the order of their weight, each with the seconds after which it is ended; together the default deadline."""
COLUMNS = ("tokens_per_s", "draw_tokens_per_s", "bound_share", "draw_s", "update_s", "peak_gb", "mismatch")


def checks(out: Path, dry: bool) -> int:
    """The tests marked `gpu` of the rollout engine; pydantic's place is taken where it is missing."""
    import torch

    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "transformers")}
    write(out, row="machine", **versions, **({} if dry else {"device": torch.cuda.get_device_name()}))
    # Warnings of other versions' own are no failures here.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rA", "-W", "default", "-p", "no:cacheprovider"]
    last = ""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, "-p", "gpu_rl_row", *GPU_TESTS], cwd=ROOT, **streams) as run:
        assert run.stdout is not None
        for text in run.stdout:
            print(text, end="", flush=True)
            last = text.strip() or last
    write(out, row="checks", passed=run.returncode == 0, pytest=last[:200])
    return run.returncode


def run_row(name: str, out: Path, dry: bool, budget_s: float) -> None:
    """One row in a process group of its own, ended after its budget."""
    words = [str(HERE / "gpu_rl_row.py"), name, "--budget-s", str(budget_s)]
    if name == "checks":
        words = [str(HERE / "gpu_rl.py"), "--checks"]
    found = filter(None, (str(ROOT), str(HERE), os.environ.get("PYTHONPATH")))
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        print(f"===== {name}", file=log, flush=True)
        started = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, *words, "--out", str(out), *(["--dry"] if dry else [])], stdout=log,
            stderr=subprocess.STDOUT, env={**os.environ, **offline, "PYTHONPATH": os.pathsep.join(found)},
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
    text = [f"| row | setting | {' | '.join(COLUMNS)} | note |", "|---" * (len(COLUMNS) + 3) + "|"]
    for line in lines:
        setting = ", ".join(f"{key} {value}" for key, value in line.get("setting", {}).items())
        named = {"row", "setting", *COLUMNS}
        note = ", ".join(f"{key} {value}" for key, value in line.items() if key not in named)
        cells = [line["row"], setting, *(line.get(key, "") for key in COLUMNS), note.replace("\n", " ")]
        text.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join([*text, "", *(sentence for size in SHAPES for sentence in ratios(lines, size))])


def ratios(lines: list[dict[str, Any]], size: str) -> list[str]:
    """Ours against the peer: whole steps, and drawing alone, each side's best setting."""
    found = []
    for what, side, key in (("GRPO", "grpo", "tokens_per_s"), ("drawing", "decode", "draw_tokens_per_s")):
        ours = [line for line in lines if line["row"] == f"{side}-{size}" and is_comparable(line)]
        other = [line for line in lines if line["row"] == f"peer-{size}" and key in line]
        if not ours or not other:
            continue
        mine = max(ours, key=lambda line: line["tokens_per_s"])
        best = max(other, key=lambda line: line[key])
        fewer = {line["new_tokens"] for line in (mine, best)}
        note = f"; completions of {mine['new_tokens']} and {best['new_tokens']} tokens" if len(fewer) > 1 else ""
        ratio = mine["tokens_per_s"] / best[key]
        found.append(f"{size} {what}: {ratio:.2f} times the peer ({best['peer']}, {best['setting']['draws']}{note})")
        if mine.get("bound_share"):
            found.append(f"{size} drawing: {mine['bound_share']:.1%} of the bandwidth bound")
    return found


def is_comparable(line: dict[str, Any]) -> bool:
    """Whether the line has a figure of what the peer does too, which is to draw at temperature 1."""
    return "tokens_per_s" in line and line["setting"].get("temperature", 1.0) == 1.0


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
