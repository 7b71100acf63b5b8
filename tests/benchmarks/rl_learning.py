"""What reinforcement learning makes of the problems that a model solves now and then.

    python tests/benchmarks/rl_learning.py --model CHECKPOINT --problems PROBLEMS.jsonl --out FOLDER

A sample stage measures how often the model solves each problem; an rl stage trains on those with a rate in `--between`,
which its curriculum starts from; afterwards both models solve the same problems anew. Prints how many problems there
were, the train accuracy by step (share of right completions as they were drawn, at the rollouts' temperature), what the
model solves before and after, and how far the sampler's log-probabilities are from the trainer's. A killed run goes on
with the same command. With a derivative's run in the store, CHECKPOINT is its sft stage's `model` and PROBLEMS its
corpus stage's `data/problems.jsonl`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

from configs.schema import Stage
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage, SampleStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl, sample

VISITS = 50
"""Steps that a printed line of the curve is the mean of."""


def main() -> None:
    given = arguments()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    problems = some_of(given.problems, given.count, out / "problems.jsonl")
    sampling = {"temperature": 1.0, "max_new_tokens": given.max_new_tokens}
    common = {"verifier": given.verifier, "sampling": sampling, "precision": given.precision}
    base = {"base": StageInput(kind="base", path=str(given.model.resolve()))}

    picking = {"id": "picked", "num_samples": given.num_samples, **common}
    run_stage(SampleStage.model_validate({**picking, "data": [str(problems)]}), base, out / "picked", given)
    training = {
        "id": "rl", "data": ["picked"], "steps": given.steps, "prompts_per_step": given.prompts, "group_size": 8,
        "learning_rate": given.learning_rate, "schedule": "cosine", "loss": given.loss, "checkpoint_every": 50,
        "pass_rates": {"stage": "picked", "between": given.between}, **common, **json.loads(given.more),
    }  # fmt: skip
    inputs = {**base, "picked": StageInput(kind="sample", path=str(out / "picked"))}
    run_stage(RlStage.model_validate(training), inputs, out / "rl", given)
    rates = json.loads((out / "picked" / "data" / "report.json").read_text())
    metrics = json.loads((out / "rl" / "metrics.json").read_text())
    counts = {name.removeprefix("rl/"): metrics[name] for name in metrics if "left_out" in name or "problems" in name}
    print(f"{rates['sampled']} problems, mean pass rate {rates['pass_rate']:.3f}; trained on and left out: {counts}")
    curve(read_progress(out / "rl"))

    trained = gzip.decompress((out / "rl" / "rollouts" / "problems.jsonl.gz").read_bytes())
    (out / "trained.jsonl").write_bytes(trained)
    for name, folder in (("before", given.model.resolve()), ("after", out / "rl" / "model")):
        inputs = {"base": StageInput(kind="base", path=str(folder))}
        again = SampleStage.model_validate({**picking, "data": [str(out / "trained.jsonl")]})
        run_stage(again, inputs, out / name, given, seed=1)
        found = json.loads((out / name / "data" / "report.json").read_text())
        print(f"{name}: {found['pass_rate']:.4f} of {found['sampled']} problems x {given.num_samples}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=600, help="problems whose pass rate is measured")
    parser.add_argument("--num-samples", type=int, default=8)
    parser.add_argument("--between", type=float, nargs=2, default=(0.2, 0.8))
    parser.add_argument("--verifier", default="math")
    parser.add_argument("--max-new-tokens", type=int, default=112)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--loss", default="dapo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--more", default="{}", help="more settings of the rl stage, as JSON")
    return parser.parse_args()


def some_of(problems: Path, count: int, out: Path) -> Path:
    """`count` problems at random, in the file's order."""
    lines = problems.read_text(encoding="utf-8").splitlines()
    places = sorted(random.Random(0).sample(range(len(lines)), min(count, len(lines))))
    out.write_text("".join(lines[place] + "\n" for place in places), encoding="utf-8")
    return out


def run_stage(
    stage: Stage, inputs: dict[str, StageInput], out: Path, given: argparse.Namespace, seed: int = 0
) -> None:
    machine = Machine(name="cpu", num_threads=given.threads, num_verifier_workers=1)
    out.mkdir(exist_ok=True)
    stage_file = StageFile(recipe="learning", stage=stage, model="base", inputs=inputs, machine=machine, seed=seed)
    (rl.run if isinstance(stage, RlStage) else sample.run)(stage_file, out)


def curve(log: list[dict[str, Any]]) -> None:
    names = ("solved_fraction", "solved_any", "entropy", "length", "mismatch", "largest_mismatch")
    print("steps       ", *(f"{name:>16}" for name in names))
    for first in range(0, len(log), VISITS):
        part = log[first : first + VISITS]
        means = [sum(line[f"rl/{name}"] for line in part) / len(part) for name in names]
        print(f"{first + 1:4d} to {first + len(part):4d}", *(f"{value:16.7f}" for value in means))


if __name__ == "__main__":
    main()
