"""A reinforcement learning stage that is killed at any moment goes on to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import derivatives.seedling
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import Audit, Reward, RlStage
from configs.stage import StageFile, StageInput, read_progress

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
ROOT = Path(derivatives.seedling.__file__).parents[2]
NUM_KILLS = 4
CLOCKS = {"seconds", "rl/tokens_per_s", "rl/rollout_tokens_per_s", "rl/eta_s", "rl/peak_memory_gb"}


def write_stage(folder: Path) -> Path:
    lines = [
        {
            "id": f"{a}+{b}",
            "prompt": f"State the final answer to the following arithmetic problem: {a} + {b} =",
            "answer": str(a + b),
        }
        for a in range(1, 7)
        for b in range(1, 5)
    ]
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(folder / "p.jsonl"),), steps=7, prompts_per_step=6, group_size=4, learning_rate=1e-4,
        sampling=Sampling(max_new_tokens=16), checkpoint_every=2, micro_batch_tokens=512, max_no_verdict=0.9,
        length_stages=(8,), retire_after=1, replacement_rounds=2, more_rewards=(Reward(verifier="format", weight=0.5),),
        audit=Audit(verifier="exact", every=2, samples=8), keep_rollouts=4, fork_every=4, entropy_target=0.5,
    )  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    path = folder / "stage.json"
    path.write_text(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine).model_dump_json())
    return path


def start(stage: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "derivatives.rl", str(stage), str(out)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def product(out: Path) -> dict[str, object]:
    """Everything that must not differ: weights, rollouts, kept checkpoints, and the log less its clocks."""
    log = [{name: value for name, value in line.items() if name not in CLOCKS} for line in read_progress(out)]
    names = ["model/model.safetensors", "rollouts.jsonl"]
    names += sorted(str(path.relative_to(out)) for path in out.glob("rollouts/*"))
    names += sorted(str(path.relative_to(out)) for path in out.glob("fork_points/*/*/*/*"))
    digests = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    return {"log": log, **digests}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    stage = write_stage(tmp_path)
    began = time.monotonic()
    assert start(stage, tmp_path / "whole").wait() == 0
    whole_s = time.monotonic() - began
    expected = product(tmp_path / "whole")
    log = read_progress(tmp_path / "whole")
    assert any(line["rl/grad_norm"] > 0 for line in log)
    assert {line["rl/max_new_tokens"] for line in log} == {8, 16} and any(line["rl/retired"] for line in log)
    assert any(line["rl/groups_replaced"] for line in log) and any("rl/audit_gap" in line for line in log)
    assert {"rollouts/step-000001.npz", "fork_points/000004/checkpoints/step-000004/state.pt"} <= expected.keys()
    assert sum(name.endswith(".npz") for name in expected) == 4

    rng, out = random.Random(0), tmp_path / "killed"
    for number in range(NUM_KILLS):
        before = len(read_progress(out))
        process = start(stage, out)
        deadline = time.monotonic() + 3 * whole_s
        while process.poll() is None and len(read_progress(out)) < before + 1 and time.monotonic() < deadline:
            time.sleep(0.01)  # past the start-up, which takes longest and where a kill proves little
        time.sleep(rng.uniform(0, 0.15 * whole_s / (number + 1)))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(stage, out).wait() == 0
    assert product(out) == expected
