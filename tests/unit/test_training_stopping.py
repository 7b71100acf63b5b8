"""SIGTERM ends a trainer after its step, or before the step's update where the step takes long; nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.stage import StageFile, read_progress
from derivatives.training import checkpoint
from derivatives.training.stopping import STOPPED_EXIT
from tests.training_fixtures import sft_file, write_checkpoint, write_sums

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0

SLOW_STEP = """
import sys, time
from derivatives import sft
from derivatives.training.loop import Trainer
from configs.stage import run_command
train, seconds, where = Trainer.train_step, float(sys.argv.pop(1)), sys.argv.pop(1)
def slowly(self, rows):
    if where == "before" and self.step == 4:
        time.sleep(seconds)
    train(self, rows)
    if where == "after" and self.step == 4:
        time.sleep(seconds)
Trainer.train_step = slowly
sys.exit(run_command("sft", sft.run, ""))
"""
"""Step 4 takes so many seconds more, before its update or after it."""


@pytest.fixture
def given(tmp_path: Path) -> StageFile:
    base = write_checkpoint(tmp_path / "base")
    return sft_file(base, write_sums(tmp_path / "sums.jsonl", 96), precision="bf16", epochs=1.0, checkpoint_every=100)


def start(given: StageFile, out: Path, seconds: float = 0.0, where: str = "before") -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    stage_json = out.with_suffix(".json")
    stage_json.write_text(given.model_dump_json())
    command = [sys.executable, "-c", SLOW_STEP, str(seconds), where, str(stage_json), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def stop_in_step(process: subprocess.Popen[str], out: Path, step: int) -> str:
    """SIGTERM once the step before this one is logged; what it said in the end."""
    deadline = time.monotonic() + LIMIT_S
    while len(read_progress(out)) < step - 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == STOPPED_EXIT, said
    return said


def finish(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, said


def product(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def curve(out: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["sft/loss"]) for line in read_progress(out)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "where", "kept", "said"),
    [
        (1.0, "before", 4, "stopped after step 4 of 12, with a checkpoint"),
        (600.0, "before", 3, "stopped within step 4 of 12, with a checkpoint from before it"),
        (7.0, "after", 4, "stopped after step 4 of 12, with a checkpoint"),
    ],
)
def test_a_stopped_trainer_keeps_a_checkpoint_of_the_step_it_was_in_and_ends_in_the_same_bytes(
    tmp_path: Path, given: StageFile, seconds: float, where: str, kept: int, said: str
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    finish(start(given, straight))
    assert said in stop_in_step(start(given, stopped, seconds, where), stopped, 4)
    assert checkpoint.steps(stopped) == [kept]
    finish(start(given, stopped))
    assert product(stopped) == product(straight)
    assert curve(stopped) == curve(straight)


@pytest.mark.slow
def test_a_stop_within_the_first_step_leaves_nothing_and_says_so(tmp_path: Path, given: StageFile) -> None:
    out = tmp_path / "out"
    slow = given.model_copy(update={"machine": given.machine})
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_STEP.replace("self.step == 4", "self.step == 1"), "600", "before",
         str(written(slow, out)), str(out)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + LIMIT_S
    while not handles_sigterm(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == STOPPED_EXIT and "the first, so that there is nothing to keep" in said
    assert checkpoint.steps(out) == []


def written(given: StageFile, out: Path) -> Path:
    out.mkdir()
    path = out.with_suffix(".json")
    path.write_text(given.model_dump_json())
    return path


def handles_sigterm(pid: int) -> bool:
    caught = next(
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")
    )
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
def test_ranks_stop_after_the_same_step(tmp_path: Path, given: StageFile) -> None:
    machine = given.machine.model_copy(update={"num_processes": 2})
    both, out, straight = given.model_copy(update={"machine": machine}), tmp_path / "out", tmp_path / "straight"

    def launched(folder: Path, seconds: float) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        path = folder.with_suffix(".json")
        path.write_text(both.model_dump_json())
        words = [sys.executable, "-m", "derivatives.training.launch", "--num-processes=2", sys.executable, "-c"]
        command = [*words, SLOW_STEP, str(seconds), "before", str(path), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)

    finish(launched(straight, 0.0))
    said = stop_in_step(launched(out, 2.0), out, 4)
    assert said.count("stopped after step 4 of 12, with a checkpoint") == 1
    assert checkpoint.steps(out) == [4]
    finish(launched(out, 0.0))
    assert product(out) == product(straight)
