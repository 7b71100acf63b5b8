"""The exported verifiers in the tools they were exported for, each run for real: `make interop`.

    python tests/benchmarks/interop.py [--only trl lm-eval verl] [--steps 6] [--out build/interop.json]

The seedling answers sums (made here). TRL's GRPOTrainer trains on the exported reward for a few steps; lm-eval draws
answers and takes the exported metric; verl loads the exported module by its own configuration and scores completions of
the seedling through its reward managers. Nothing is downloaded. Each tool runs in an environment of its own
(`peers.py`), with this project on PYTHONPATH. Every reward that a tool saw is compared with what `VerifierPool` says
here of the same completion, and one difference fails the run.

The tool's side is in `interop_trl.py` and `interop_verl.py`; lm-eval is its own command line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from configs.settings.common import Sampling  # noqa: E402 - needs the path above
from derivatives.rollout.engine import RolloutEngine  # noqa: E402
from derivatives.seedling import SEEDLING_PATH  # noqa: E402
from derivatives.training.chat import conversation, encode_chat  # noqa: E402
from derivatives.training.model import load_model  # noqa: E402
from tests.benchmarks.peers import TRL, NoPeerError, Peer, interpreter  # noqa: E402
from verifiers.api import Task  # noqa: E402
from verifiers.export import write  # noqa: E402
from verifiers.pool import VerifierPool  # noqa: E402

OURS = ("pydantic>=2.10,<3", "pyyaml>=6", "sympy>=1.13")
"""What this project's verifiers import where it is not installed."""
PEERS = {
    "trl": TRL,
    "lm-eval": Peer("lm-eval", ("torch==2.13.0", "transformers==5.23.0", "lm-eval==0.4.13", "accelerate", *OURS)),
    "verl": Peer("verl", ("torch==2.13.0", "verl==0.9.1", *OURS)),
}
VERIFIER = "math"
NUM_PROBLEMS, GROUP, MAX_TOKENS = 40, 4, 64
PER_STEP = 8
"""Problems of a TRL step."""


def problems() -> list[dict[str, str]]:
    """Sums that the seedling solves most of the time."""
    drawn = random.Random(0)
    pairs = [(drawn.randrange(100, 9999), drawn.randrange(100, 9999)) for _ in range(NUM_PROBLEMS)]
    return [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in pairs]


def run(peer: Peer, command: Sequence[str], folder: Path) -> str:
    """Run a command of the peer's environment, this project on its path and no network; its standard output.

    Raises:
        RuntimeError: It failed; with the last lines of what it said.
    """
    python = Path(interpreter(peer))
    found = subprocess.run(
        [str(python.parent / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"),
             "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    if found.returncode:
        raise RuntimeError(f"{peer.name}: {command[0]} ended with {found.returncode}:\n{found.stderr[-3000:]}")
    return found.stdout


def run_trl(folder: Path, rows: list[dict[str, str]], steps: int) -> dict[str, Any]:
    """GRPO on the exported reward: losses, rewards, and every completion with the reward that TRL was given."""
    write(VERIFIER, "trl", folder)
    script = Path(__file__).with_name("interop_trl.py")
    said = run(PEERS["trl"], ["python", str(script), "--model", str(SEEDLING_PATH), "--problems", "problems.jsonl",
                              "--steps", str(steps), "--per-step", str(PER_STEP), "--group", str(GROUP),
                              "--length", str(MAX_TOKENS)], folder)  # fmt: skip
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    for seen in found["calls"].values():
        check([(one["question"], one["answer"], one["completion"], one["reward"]) for one in seen])
    return {**{key: value for key, value in found.items() if key != "calls"},
            "checked": sum(map(len, found["calls"].values()))}  # fmt: skip


def run_lm_eval(folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """The exported task: lm-eval's figures, and every answer with what its log says of it."""
    write(VERIFIER, "lm-eval", folder)
    run(PEERS["lm-eval"], ["lm-eval", "run", "--model", "hf", "--model_args",
                           f"pretrained={SEEDLING_PATH},dtype=float32", "--device", "cpu", "--include_path", ".",
                           "--tasks", f"{VERIFIER}_judged", "--batch_size", "8", "--apply_chat_template",
                           "--log_samples", "--output_path", "out"], folder)  # fmt: skip
    results = json.loads(next(folder.glob("out/**/results_*.json")).read_text())["results"][f"{VERIFIER}_judged"]
    samples = [json.loads(line) for line in next(folder.glob("out/**/samples_*.jsonl")).read_text().splitlines()]
    check([(one["doc"]["question"], one["doc"]["answer"], one["resps"][0][0], one["correct"]) for one in samples])
    figures = {name.partition(",")[0]: value for name, value in results.items() if ",judged" in name}
    return {**figures, "checked": len(samples)}


def run_verl(folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """The exported module through verl's loader and its reward managers, on the seedling's completions."""
    write(VERIFIER, "verl", folder)
    completions = draw([row["question"] for row in rows])
    lines = [{**row, "completion": text} for row, texts in zip(rows, completions, strict=True) for text in texts]
    (folder / "completions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    script = Path(__file__).with_name("interop_verl.py")
    said = run(PEERS["verl"], ["python", str(script), "--tokenizer", str(SEEDLING_PATH), "--module",
                               str(folder / f"{VERIFIER}_verl.py"), "--completions", "completions.jsonl"],
               folder)  # fmt: skip
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    for scores in found["scores"].values():
        check([(one["question"], one["answer"], one["completion"], score)
               for one, score in zip(lines, scores, strict=True)])  # fmt: skip
    means = {name: sum(one) / len(one) for name, one in found["scores"].items()}
    return {"version": found["version"], "managers": means,
            "checked": sum(map(len, found["scores"].values()))}  # fmt: skip


def draw(questions: list[str]) -> list[list[str]]:
    """Completions of the seedling, a group of each question."""
    model, tokenizer = load_model(SEEDLING_PATH, "fp32", "cpu")
    prompts = [encode_chat(tokenizer, conversation(text, None), add_generation_prompt=True) for text in questions]
    keys = [str(number) for number in range(len(prompts))]
    groups = RolloutEngine(model, tokenizer).generate(prompts, GROUP, Sampling(max_new_tokens=MAX_TOKENS), 0, keys)
    return [[one.text for one in group] for group in groups]


def check(seen: Sequence[tuple[str, str, str, float | None]]) -> None:
    """What a tool was given for each completion is what our pool says of it. Raises RuntimeError."""
    with VerifierPool(2, verifier=VERIFIER) as pool:
        verdicts = pool.judge([(Task("", question, answer), text) for question, answer, text, _ in seen])
    for (question, _, text, given), verdict in zip(seen, verdicts, strict=True):
        if given != verdict.score:
            raise RuntimeError(f"{question}: the tool saw {given}, our pool {verdict.score} ({verdict.reason}): {text}")


def main() -> int:
    """Run the tools and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--steps", type=int, default=6, help="of TRL's training")
    parser.add_argument("--out", type=Path, default=Path("build/interop.json"))
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            rows = problems()
            (Path(folder) / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            try:
                interpreter(PEERS[name])
            except NoPeerError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            began = time.monotonic()
            if name == "trl":
                found[name] = run_trl(Path(folder), rows, given.steps)
            else:
                found[name] = run_lm_eval(Path(folder), rows) if name == "lm-eval" else run_verl(Path(folder), rows)
            found[name]["seconds"] = round(time.monotonic() - began, 1)
            print(name, json.dumps(found[name]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if set(found) == set(given.only) else 1


if __name__ == "__main__":
    sys.exit(main())
