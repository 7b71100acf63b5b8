"""SIGTERM to a stage of rl, between two steps and within one's completions: the same bytes as without."""

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
from tests.e2e.test_resume_kills import rl_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NUM_STEPS = 8
COMMAND = """
import sys
from derivatives import rl
from derivatives.training import stopping
from configs.stage import run_command
stopping.FINISH_STEP_S = float(sys.argv.pop(1))
sys.exit(run_command("rl", rl.run, ""))
"""


def start(given: StageFile, out: Path, patience_s: float) -> subprocess.Popen[str]:
    stage_json = out.with_suffix(".json")
    stage_json.write_text(given.model_dump_json())
    words = [sys.executable, "-c", COMMAND, str(patience_s), str(stage_json), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def stop_after(process: subprocess.Popen[str], out: Path, step: int) -> str:
    while process.poll() is None and (read_progress(out) or [{"step": 0}])[-1]["step"] < step:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == STOPPED_EXIT, said
    return said


def test_a_stop_of_rl_keeps_the_step_before_it_or_the_one_that_it_ends_and_changes_no_byte(tmp_path: Path) -> None:
    given = rl_file(tmp_path)
    longer = {"steps": NUM_STEPS, "checkpoint_every": 100, "fork_every": None}
    given = given.model_copy(update={"stage": given.stage.model_copy(update=longer)})
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    process = start(given, straight, 5.0)
    said = process.communicate()[1]
    assert process.returncode == 0, said

    said = stop_after(start(given, stopped, 600.0), stopped, 2)  # with patience: the step comes to its end
    assert "stopped after step" in said and "with a checkpoint" in said
    (first,) = checkpoint.steps(stopped)
    assert first >= 2  # or more: the signal may come when the next step has begun
    said = stop_after(start(given, stopped, 0.001), stopped, first + 1)  # with none: within the step
    assert f"of {NUM_STEPS}, with a checkpoint" in said
    second = checkpoint.steps(stopped)[-1]
    assert second > first
    process = start(given, stopped, 5.0)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    for name in ("model/model.safetensors", "rollouts.jsonl"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()
    curves = [[(line["step"], line["rl/loss"], line["rl/reward"]) for line in read_progress(out)]
              for out in (straight, stopped)]  # fmt: skip
    assert curves[0] == curves[1] and len(curves[0]) == NUM_STEPS
