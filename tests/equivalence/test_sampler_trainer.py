"""The log-probabilities that the engine recorded, against those of the trainer's own pass, step after step.

Both have the same weights, so the distance is rounding: other shapes, other orders of summation. That it stays so while
the weights move is what shows that the engine draws from the weights as they are now.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import derivatives.seedling
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
BOUNDS = {"fp32": (1e-6, 1e-4), "bf16": (0.01, 2.0)}
"""Nats a token: the mean of a step, the largest of a step (in bf16 of an unlikely token). See docs/benchmarks.md."""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_sampler_is_the_trainer_within_rounding_while_the_weights_move(
    tmp_path: Path, precision: str, temperature: float
) -> None:
    lines = [
        {"id": f"{a}+{b}", "prompt": f"What is {a} + {b}?", "answer": str(a + b)}
        for a in range(1523, 9997, 1131)
        for b in range(1113, 4970, 1213)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(tmp_path / "p.jsonl"),), steps=5, prompts_per_step=8, group_size=4, learning_rate=5e-4,
        sampling=Sampling(max_new_tokens=48, temperature=temperature), verifier="exact", schedule="constant",
        precision=precision, checkpoint_every=100,
    )  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    out = tmp_path / "out"
    out.mkdir()
    rl.run(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine), out)
    log = read_progress(out)
    assert sum(line["rl/grad_norm"] > 0 for line in log) >= 3  # the weights did move
    mean, largest = BOUNDS[precision]
    for line in log:
        assert line["rl/mismatch"] < mean and line["rl/largest_mismatch"] < largest, line
        assert line["rl/clipped"] == 0.0
    print(precision, temperature, *(f"{line['rl/mismatch']:.2g} {line['rl/largest_mismatch']:.2g}" for line in log))
