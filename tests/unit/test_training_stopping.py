"""SIGTERM ends a trainer after its step, or before the step's update where the step takes long; nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.settings.training import SftStage
from configs.stage import StageFile, read_progress
from derivatives import sft
from derivatives.training import checkpoint
from derivatives.training.batch import Row
from derivatives.training.loop import Trainer
from derivatives.training.stopping import STOPPED_EXIT
from tests.training_fixtures import sft_file, write_checkpoint, write_sums

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0

SLOW_STEP = """
import sys, time
from derivatives import sft
from derivatives.training import loop
from derivatives.training.loop import Trainer
from configs.stage import run_command
train, look, save_model = Trainer.train_step, Trainer.look, loop.save_model
seconds, where, slow_step = float(sys.argv.pop(1)), sys.argv.pop(1), int(sys.argv.pop(1))
def wait(at, step):
    if where == at and step == slow_step:
        print("waits", flush=True)
        time.sleep(seconds)
def slowly(self, rows):
    wait("before", self.step)
    train(self, rows)
    wait("after", self.step)
def slowly_looked(self, batch, of):
    wait("measured", self.step)
    return look(self, batch, of)
def slowly_saved(*given):
    wait("saved", slow_step)
    save_model(*given)
Trainer.train_step, Trainer.look, loop.save_model = slowly, slowly_looked, slowly_saved
sys.exit(run_command("sft", sft.run, ""))
"""
"""A step takes so many seconds more, before its update, after it or in each look at a measure; or the saving does."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, data, and what nobody stopped made of them."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def given(shared: Path) -> StageFile:
    base = write_checkpoint(shared / "base")
    return sft_file(base, write_sums(shared / "sums.jsonl", 96), precision="bf16", epochs=1.0, checkpoint_every=100)


def unstopped(given: StageFile, shared: Path) -> Path:
    """The folder of a run that nobody stopped; made once for each stage file."""
    out = shared / hashlib.sha256(given.model_dump_json().encode()).hexdigest()[:12]
    if not out.exists():
        finish(start(given, out))
    return out


def start(
    given: StageFile, out: Path, seconds: float = 0.0, where: str = "before", step: int = 4
) -> subprocess.Popen[str]:
    """The stage command, slow at one place; with as many ranks as its machine has."""
    out.mkdir(exist_ok=True)
    stage_json = out.with_suffix(".json")
    stage_json.write_text(given.model_dump_json())
    num = given.machine.num_processes
    launcher = [sys.executable, "-m", "derivatives.training.launch", f"--num-processes={num}"] if num > 1 else []
    command = [*launcher, sys.executable, "-c", SLOW_STEP, str(seconds), where, str(step), str(stage_json), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".out").open("w") as told:
        return subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=subprocess.PIPE, text=True, env=environment)


def stop_where_it_waits(process: subprocess.Popen[str], out: Path) -> str:
    """SIGTERM once it waits at its slow place; what it said in the end."""
    deadline = time.monotonic() + LIMIT_S
    while "waits" not in out.with_suffix(".out").read_text() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == STOPPED_EXIT, said
    return said


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
    tmp_path: Path, shared: Path, given: StageFile, seconds: float, where: str, kept: int, said: str
) -> None:
    straight, stopped = unstopped(given, shared), tmp_path / "stopped"
    assert said in stop_in_step(start(given, stopped, seconds, where), stopped, 4)
    assert checkpoint.steps(stopped) == [kept]
    finish(start(given, stopped))
    assert product(stopped) == product(straight)
    assert curve(stopped) == curve(straight)


@pytest.mark.slow
def test_a_stop_within_the_first_step_leaves_nothing_and_says_so(tmp_path: Path, given: StageFile) -> None:
    out = tmp_path / "out"
    said = stop_where_it_waits(start(given, out, 600.0, "before", 1), out)
    assert "the first, so that there is nothing to keep" in said
    assert checkpoint.steps(out) == []


def measured(given: StageFile, folder: Path, **machine: int) -> StageFile:
    """The same, with the bits per byte of a text, in several looks, after each fourth step."""
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": f"{n} is a number. " * 9}) + "\n" for n in range(8)))
    plain = given.model_dump(mode="json")
    plain["stage"] |= {"heldout_text": [{"name": str(folder / "text.jsonl")}], "evaluate_every": 4}
    plain["machine"] |= machine
    return StageFile.model_validate(plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "step", "num_processes", "said"),
    [
        (600.0, 4, 1, "stopped while step 4 of 12 was measured, with a checkpoint"),
        (600.0, 12, 1, "stopped while step 12 of 12 was measured, with a checkpoint"),
        (2.0, 4, 2, "stopped after step 4 of 12, with a checkpoint"),
    ],
)
def test_a_stop_while_a_step_is_measured_keeps_the_step_and_it_is_measured_again(
    tmp_path: Path, shared: Path, given: StageFile, seconds: float, step: int, num_processes: int, said: str
) -> None:
    given = measured(given, shared, num_processes=num_processes)
    straight, stopped = unstopped(given, shared), tmp_path / "stopped"
    assert said in stop_where_it_waits(start(given, stopped, seconds, "measured", step), stopped)
    assert checkpoint.steps(stopped) == [step]
    assert curve(stopped) == curve(straight)[: step - 1]  # its line waits for what is measured
    if step == 12:  # a second stop at the same place
        assert said in stop_where_it_waits(start(given, stopped, seconds, "measured", step), stopped)
    finish(start(given, stopped))
    assert product(stopped) == product(straight)
    assert curve(stopped) == curve(straight)
    assert [line.get("sft/forgetting") for line in read_progress(stopped)] == [
        line.get("sft/forgetting") for line in read_progress(straight)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "where", "num_processes", "said"),
    [
        (1.0, "before", 1, "stopped after step 12 of 12, with a checkpoint"),
        (1.0, "after", 2, "stopped after step 12 of 12, with a checkpoint"),
        (600.0, "saved", 1, "stopped while the product was written, with a checkpoint after the last step"),
    ],
)
def test_a_stop_in_the_last_step_or_after_it_keeps_a_checkpoint_of_it(
    tmp_path: Path, shared: Path, given: StageFile, seconds: float, where: str, num_processes: int, said: str
) -> None:
    machine = given.machine.model_copy(update={"num_processes": num_processes})
    given = given.model_copy(update={"machine": machine})
    straight, stopped = unstopped(given, shared), tmp_path / "stopped"
    assert said in stop_where_it_waits(start(given, stopped, seconds, where, 12), stopped)
    assert checkpoint.steps(stopped) == [12] and not (stopped / "metrics.json").exists()
    finish(start(given, stopped))
    assert product(stopped) == product(straight)
    assert curve(stopped) == curve(straight) and checkpoint.steps(stopped) == []


def test_what_is_saved_between_two_steps_has_the_name_of_the_step_it_follows(tmp_path: Path, given: StageFile) -> None:
    """The alarm may ring between any two lines."""
    straight, rung = tmp_path / "straight", tmp_path / "rung"
    for out in (straight, rung):
        out.mkdir()
    assert isinstance(given.stage, SftStage)
    trainer = Trainer(given, straight)
    rows, _ = sft.read_rows(given, given.stage, trainer.tokenizer)

    def batch(step: int) -> list[Row]:
        return rows[8 * (step - 1) : 8 * step]

    for step in trainer.steps(4):
        trainer.train_step(batch(step))
    trainer = Trainer(given, rung)
    for step in trainer.steps(4):
        trainer.train_step(batch(step))
        if step == 2:
            break
    trainer._may_leave("before the next step has begun")
    assert trainer._save_within() == "stopped before the next step has begun"
    assert checkpoint.steps(rung) == [2]
    again = Trainer(given, rung)
    for step in again.steps(4):
        again.train_step(batch(step))
    assert curve(rung) == curve(straight)


@pytest.mark.slow
def test_ranks_stop_after_the_same_step(tmp_path: Path, shared: Path, given: StageFile) -> None:
    machine = given.machine.model_copy(update={"num_processes": 2})
    both, out = given.model_copy(update={"machine": machine}), tmp_path / "out"
    straight = unstopped(both, shared)
    said = stop_in_step(start(both, out, 2.0), out, 4)
    assert said.count("stopped after step 4 of 12, with a checkpoint") == 1
    assert checkpoint.steps(out) == [4]
    finish(start(both, out))
    assert product(out) == product(straight)
