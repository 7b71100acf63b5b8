"""kill -9 at forty random moments, the writing of checkpoints among them; the same command ends in the same bytes.

Ten moments for a stage of sft, ten for one of pretrain, twenty for one of rl. When a run comes to the step it is killed
after is a matter of the machine, so a kill is placed by the progress log, or by the appearance of a half-written
checkpoint, and a share of a step's measured time after that. On a slow machine the same moments only take longer.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import derivatives.seedling
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import Audit, Reward, RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives.training import checkpoint
from tests.training_fixtures import sft_file, stage_file, write_checkpoint, write_sums

ROOT = Path(__file__).parents[2]
CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
NUM_STEPS = 90
EVERY = 3
"""Steps between checkpoints."""
RL_STEPS = 69
NUM_KILLS = {"sft": 10, "pretrain": 10, "rl": 20}
DEADLINE_S = 600.0
"""For one step of a machine that has much else to do; some milliseconds are usual."""
POLL_S = 0.001


@dataclass(frozen=True)
class Moment:
    """When to kill: some share of a step's time after a step was logged, or after its checkpoint was begun."""

    step: int
    saving: bool
    share: float


def moments(seed: int, num_steps: int, num_kills: int) -> list[Moment]:
    """Spread over the run, in order; every other one falls into the writing of a checkpoint."""
    rng = random.Random(seed)
    places = sorted(rng.sample(range(1, num_steps // EVERY - 1), num_kills))
    return [
        Moment(EVERY * place + (0 if number % 2 else rng.randrange(EVERY)), bool(number % 2), rng.random())
        for number, place in enumerate(places)
    ]


def corpus(folder: Path) -> Path:
    """200 random documents of 2 to 60 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 61, size=200)
    (folder / "data").mkdir(parents=True)
    rng.integers(0, 256, size=lengths.sum()).astype("<u4").tofile(folder / "data" / "tokens.bin")
    np.save(folder / "data" / "documents.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    return folder


def given_stage(kind: str, folder: Path) -> StageFile:
    """Steps over data that is gone through several times, on a model whose checkpoints have 3 MB (rl: the seedling)."""
    if kind == "rl":
        return rl_file(folder)
    base = write_checkpoint(folder / "base", hidden_size=128, intermediate_size=256, initializer_range=0.05)
    common = {"precision": "bf16", "checkpoint_every": EVERY, "learning_rate": 1e-3}
    if kind == "sft":
        return sft_file(base, write_sums(folder / "sums.jsonl", 96), epochs=NUM_STEPS / 12, **common)
    batch: dict[str, int] = {"batch_tokens": 500, "num_tokens": 500 * NUM_STEPS}
    given = stage_file(base, kind="pretrain", data=["corpus"], lora=None, **batch, **common)
    source = StageInput(kind="corpus", path=str(corpus(folder / "corpus")))
    return given.model_copy(update={"inputs": {**given.inputs, "corpus": source}})


def rl_file(folder: Path) -> StageFile:
    """Sums that the seedling gets right now and then, with everything that has a state of its own switched on."""
    lines = [
        {"id": f"{a}+{b}", "prompt": f"State the final answer to the following arithmetic problem: {a} + {b} =",
         "answer": str(a + b)}
        for a in range(1, 7) for b in range(1, 5)
    ]  # fmt: skip
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(folder / "p.jsonl"),), steps=RL_STEPS, prompts_per_step=6, group_size=4, learning_rate=1e-4,
        sampling=Sampling(max_new_tokens=16), checkpoint_every=EVERY, micro_batch_tokens=512, max_no_verdict=0.9,
        length_stages=(8,), retire_after=1, replacement_rounds=2, more_rewards=(Reward(verifier="format", weight=0.5),),
        audit=Audit(verifier="exact", every=2, samples=8), keep_rollouts=12, fork_every=30, entropy_target=0.5,
    )  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    return StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine)


def start(kind: str, stage_json: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"derivatives.{kind}", str(stage_json), str(out)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors.decode()


def reached(out: Path, moment: Moment, log_before: int) -> bool:
    if inode(out) == log_before:
        return False  # it still loads the model
    if moment.saving and (out / "checkpoints" / f".step-{moment.step:06d}.partial").is_dir():
        return True
    lines = read_progress(out)
    # Where the writing was too quick to be seen, the step after it will do.
    return bool(lines) and lines[-1]["step"] >= moment.step + moment.saving


def inode(out: Path) -> int:
    """Of the progress log, which every process that goes on begins anew."""
    path = out / "progress.jsonl"
    return path.stat().st_ino if path.exists() else 0


def kill_at(kind: str, stage_json: Path, out: Path, moment: Moment, step_s: float) -> str:
    """Start, wait for the moment and kill; what the kill fell into."""
    log_before = inode(out)
    process = start(kind, stage_json, out)
    deadline = time.monotonic() + DEADLINE_S
    while not reached(out, moment, log_before):
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    time.sleep(moment.share * step_s * (0.2 if moment.saving else 1.0))
    process.kill()
    process.communicate()
    torn = [path.name for path in (out / "checkpoints").glob(".step-*.partial")]
    return f"half of {torn[0]} was there" if torn else "no checkpoint was being written"


def log_of(out: Path) -> list[dict[str, float]]:
    """The progress log less its clocks."""
    clocks = ("seconds", "tokens_per_s", "rollout_tokens_per_s", "eta_s", "peak_memory_gb")
    return [
        {name: value for name, value in line.items() if name.rpartition("/")[2] not in clocks}
        for line in read_progress(out)
    ]


def products(out: Path) -> list[str]:
    """Files that must not differ: the model, and of rl what was drawn and the checkpoints that are kept."""
    patterns = ("model/*", "rollouts*", "rollouts/*", "fork_points/**/*")
    found = [path for pattern in patterns for path in out.glob(pattern) if path.is_file()]
    return sorted(str(path.relative_to(out)) for path in found)


@pytest.mark.slow
@pytest.mark.timeout(4 * DEADLINE_S)
@pytest.mark.parametrize(("kind", "seed"), [("sft", 1), ("pretrain", 2), ("rl", 3)])
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path, kind: str, seed: int) -> None:
    num_steps = RL_STEPS if kind == "rl" else NUM_STEPS
    stage_json = tmp_path / "stage.json"
    stage_json.write_text(given_stage(kind, tmp_path).model_dump_json())
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finish(start(kind, stage_json, straight))
    expected = log_of(straight)
    assert [line["step"] for line in expected] == list(range(1, num_steps + 1))
    whole = read_progress(straight)
    step_s = (whole[-1]["seconds"] - whole[0]["seconds"]) / (num_steps - 1)

    found = []
    for number, moment in enumerate(moments(seed, num_steps, NUM_KILLS[kind]), 1):
        found.append(kill_at(kind, stage_json, killed, moment, step_s))
        print(f"kill {number}: {moment}; step {log_of(killed)[-1]['step']} was logged; {found[-1]}")
        assert log_of(killed) == expected[: len(log_of(killed))]  # nothing done twice, nothing left out
        assert max(checkpoint.steps(killed), default=0) >= moment.step - 2 * EVERY
    assert sum(text.startswith("half of") for text in found) >= 1
    assert not (killed / "metrics.json").exists()
    finish(start(kind, stage_json, killed))

    assert log_of(killed) == expected
    names = products(straight)
    assert names == products(killed)
    assert kind != "rl" or sum(name.startswith("rollouts/step-") for name in names) == 12
    for name in names:
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    assert not (killed / "checkpoints").exists()
