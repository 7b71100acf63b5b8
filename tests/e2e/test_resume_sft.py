"""kill -9 at random moments, then the same command: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.stage import read_progress, run_command
from derivatives import sft
from tests.training_fixtures import sft_file, write_checkpoint, write_sums

NUM_STEPS = 60
DEADLINE_S = 240


def start(stage_json: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "derivatives.sft", str(stage_json), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors.decode()


def kill_after(process: subprocess.Popen[bytes], out: Path, step: int, delay_s: float) -> None:
    """SIGKILL some time after a step was logged: between steps, in one, or while a checkpoint is written."""
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        lines = read_progress(out)
        if lines and lines[-1]["step"] >= step:
            break
        time.sleep(0.005)
    time.sleep(delay_s)
    process.kill()
    process.communicate()


def curve(out: Path) -> list[tuple[int, float, float]]:
    return [(line["step"], line["sft/loss"], line["sft/grad_norm"]) for line in read_progress(out)]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    given = sft_file(base, write_sums(tmp_path / "sums.jsonl", 96), precision="bf16", epochs=5.0, checkpoint_every=3)
    stage_json = tmp_path / "stage.json"
    stage_json.write_text(given.model_dump_json())

    finish(start(stage_json, tmp_path / "straight"))
    moments = random.Random(time.time_ns())
    for step in sorted(moments.sample(range(1, NUM_STEPS - 5), 3)):
        delay_s = moments.uniform(0, 0.05)
        print(f"kill {delay_s:.4f} s after step {step}")
        kill_after(start(stage_json, tmp_path / "killed"), tmp_path / "killed", step, delay_s)
    assert not (tmp_path / "killed" / "metrics.json").exists()
    finish(start(stage_json, tmp_path / "killed"))

    for name in ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json"):
        killed, straight = (tmp_path / run / "model" / name for run in ("killed", "straight"))
        assert killed.read_bytes() == straight.read_bytes(), name
    assert curve(tmp_path / "killed") == curve(tmp_path / "straight")
    assert [step for step, _, _ in curve(tmp_path / "killed")] == list(range(1, NUM_STEPS + 1))


def test_a_user_error_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = sft_file(tmp_path / "nowhere", tmp_path / "sums.jsonl")
    (tmp_path / "stage.json").write_text(given.model_dump_json())
    assert run_command("sft", sft.run, "", [str(tmp_path / "stage.json"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: model: {tmp_path / 'nowhere'} is not a folder; give a checkpoint in Hugging Face layout"
    ]
