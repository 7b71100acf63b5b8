"""Short FP32 curves of two policy losses on the seedling, stored as text: a refactoring must give them again.

`python -m tests.golden.test_rl_golden grpo` (or dapo) prints the curves of the code as it is. A change of them needs a
reason. The draws are part of what is fixed: where a token falls between two of nearly its number, rounding decides, and
the rest of the curve follows it. Updates this large make much of rounding after a few steps; hence only three.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

import derivatives.seedling
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl

FOLDER = Path(__file__).parent
CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
COLUMNS = ("reward", "length", "entropy", "loss", "grad_norm", "divergence", "clipped")
TOLERANCE = 5e-3
"""Relative, for rounding that differs between processors and grows over the steps."""
NOTHING = 2e-5
"""Absolute, for what is 0 but for rounding: the loss of a first update."""


def curves(loss: str, folder: Path) -> list[list[float]]:
    """Three steps of two updates each on small sums, drawn hot and moved far: rewards differ, ratios are clipped."""
    problems = [{"id": f"{a}+{b}", "prompt": f"What is {a} + {b}?", "answer": str(a + b)}
                for a in range(3, 40, 4) for b in range(2, 30, 9)]  # fmt: skip
    (folder / "problems.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    stage = RlStage(
        id="rl", data=(str(folder / "problems.jsonl"),), loss=loss, steps=3, prompts_per_step=8, group_size=4,
        updates_per_step=2, learning_rate=1e-3, sampling=Sampling(temperature=1.6, max_new_tokens=24),
        precision="fp32", micro_batch_tokens=512, max_no_verdict=0.9,
        kl_coefficient=0.02 if loss == "grpo" else 0.0,
    )  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    out = folder / "out"
    out.mkdir()
    rl.run(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine), out)
    return [[line[f"rl/{name}"] for name in COLUMNS] for line in read_progress(out)]


@pytest.mark.parametrize("loss", ["grpo", "dapo"])
def test_the_curves_are_the_stored_ones(loss: str, tmp_path: Path) -> None:
    lines = [line.split() for line in (FOLDER / f"rl_{loss}.txt").read_text().splitlines()]
    assert lines[0] == list(COLUMNS)
    stored = [[float(value) for value in line] for line in lines[1:]]
    found = curves(loss, tmp_path)
    assert len(stored) == len(found) == 3
    for number, (one, other) in enumerate(zip(found, stored, strict=True), 1):
        assert one == pytest.approx(other, rel=TOLERANCE, abs=NOTHING), f"step {number}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(" ".join(COLUMNS))
        for values in curves(sys.argv[1], Path(scratch)):
            print(" ".join(f"{value:.6g}" for value in values))
