"""DPO on the seedling: does it learn to prefer right answers, on problems that it was not trained on?

    python tests/benchmarks/bench_dpo.py FOLDER [--pairs 400] [--examples 600] [--own]

The seedling first learns worked solutions of one procedural family (sft), then pairs: of a worked solution and the same
with another number in the box, or (`--own`) of the model's own right and wrong answers, from a sample stage. Prints
held-out loss, margin and accuracy (share of pairs whose right answer gained more than the wrong one), and greedy
accuracy on other held-out problems before and after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from configs.settings.common import Sampling, TaskSource
from configs.settings.machine import Machine
from configs.stage import StageFile, read_progress
from derivatives import dpo, sample, sft
from derivatives.evaluate import Protocol, evaluate_model
from derivatives.seedling import SEEDLING_PATH
from verifiers.api import Task
from verifiers.tasks import load_tasks
from verifiers.tasks.worked import worked_solution

FAMILY = "reasoning_gym/products"
PARAMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


def draw(split: Any, count: int, seed: int) -> list[tuple[Task, str]]:
    """Problems with their worked solutions."""
    tasks = load_tasks(TaskSource(name=FAMILY, split=split, count=count, params=PARAMS, seed=seed))
    return [(task, solution) for task in tasks if (solution := worked_solution(task)) is not None]


def wrong(solution: str, answer: str, number: int) -> str:
    """The same steps with another number in the box: one digit is changed."""
    place = number % len(answer)
    digit = str((int(answer[place]) + 1 + number % 8) % 10)
    changed = answer[:place] + digit + answer[place + 1 :]
    return solution.replace(f"\\boxed{{{answer}}}", f"\\boxed{{{changed}}}")


def write(path: Path, lines: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def pairs_of(problems: list[tuple[Task, str]]) -> list[dict[str, str]]:
    return [
        {"prompt": task.prompt, "chosen": solution, "rejected": wrong(solution, task.answer, number)}
        for number, (task, solution) in enumerate(problems)
        if task.answer.isdigit()
    ]


def main() -> None:
    """Run both stages and print what moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where stages and data are written; a started run goes on")
    parser.add_argument("--pairs", type=int, default=400, help="pairs to train on")
    parser.add_argument("--own", action="store_true", help="pairs of the model's own answers to as many problems")
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate of dpo")
    parser.add_argument("--examples", type=int, default=600, help="worked solutions for sft")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(name="cpu", num_threads=1)

    def stage_file(kind: str, base: Path, **stage: Any) -> StageFile:
        size = {"sft": {"batch_examples": 32}, "dpo": {"batch_pairs": 32}}.get(kind, {})
        content = {"id": kind, "kind": kind, **size, **stage}
        inputs = {"base": {"kind": "base", "path": str(base)}}
        return StageFile.model_validate(
            {"recipe": "bench", "stage": content, "model": "base", "inputs": inputs, "machine": machine}
        )

    examples = [{"prompt": task.prompt, "completion": text} for task, text in draw("train", given.examples, 1)]
    tuned, preferred = folder / "sft", folder / "dpo"
    tuned.mkdir(exist_ok=True)
    preferred.mkdir(exist_ok=True)
    data = write(folder / "examples.jsonl", examples)
    sft.run(stage_file("sft", SEEDLING_PATH, data=[data], epochs=3.0, learning_rate=1e-3), tuned)

    def pairs(name: str, split: str, count: int, seed: int) -> str:
        """A file of pairs."""
        drawn = draw(split, count, seed)
        if not given.own:
            return write(folder / f"{name}.jsonl", pairs_of(drawn))
        lines = [{"prompt": task.prompt, "answer": task.answer} for task, _ in drawn]
        out, problems = folder / name, write(folder / f"{name}_problems.jsonl", lines)
        out.mkdir(exist_ok=True)
        drawing = {"num_samples": 6, "sampling": {"max_new_tokens": 96}, "max_pairs": 2}
        sample.run(stage_file("sample", tuned / "model", data=[problems], **drawing), out)
        return str(out / "data" / "pairs.jsonl")

    train, held = pairs("pairs", "train", given.pairs, 2), pairs("heldout", "heldout", 200, 3)
    learning: dict[str, Any] = {"epochs": 2.0, "learning_rate": given.rate, "beta": 0.1, "evaluate_every": 5}
    dpo.run(stage_file("dpo", tuned / "model", data=[train], heldout_pairs=[held], **learning), preferred)
    for line in read_progress(preferred):
        if "dpo/heldout_margin" in line:
            names = ("heldout_loss", "heldout_margin", "heldout_accuracy", "margin", "accuracy")
            print(f"step {line['step']:3}", *(f"{name} {line[f'dpo/{name}']:.4f}" for name in names))
    tasks = [task for task, _ in draw("heldout", 300, 4)]
    protocol = Protocol(tasks, Sampling(max_new_tokens=96))
    for name, model in (("sft", tuned), ("dpo", preferred)):
        print(name, evaluate_model(model / "model", protocol, machine=machine)["model"]["pass@1"])


if __name__ == "__main__":
    main()
