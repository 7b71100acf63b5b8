"""Reinforcement learning on two ranks is that of one: the same curve, whichever axis they form, from any checkpoint."""

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
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.settings.machine import Machine
from configs.settings.rollout import RolloutServer
from configs.stage import StageFile, read_progress
from tests.e2e.test_resume_rl import ROOT, product, write_stage
from tests.fake_vllm import FakeVllm
from tests.training_fixtures import write_checkpoint

DEADLINE_S = 600
KL: dict[str, Any] = {"kl_coefficient": 0.05, "updates_per_step": 2}
LORA: dict[str, Any] = {**KL, "lora": {"rank": 4, "alpha": 8}, "learning_rate": 1e-3, "entropy_target": None}
FIGURES = ("loss", "grad_norm", "entropy", "divergence", "clipped", "reward", "length", "trained_tokens", "audit_gap")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * DEADLINE_S)]


def write(folder: Path, name: str, num: int, tensor: int = 1, **stage: Any) -> Path:
    """A stage file of this many ranks: 7 steps that replace, retire, audit, grow and keep checkpoints."""
    given = json.loads(write_stage(folder).read_text())
    given["stage"].update(stage)
    given["machine"] = Machine(
        name="cpu", num_processes=num, tensor_parallel=tensor, num_threads=1, num_verifier_workers=1
    ).model_dump(mode="json")
    path = folder / f"{name}.json"
    path.write_text(StageFile.model_validate(given).model_dump_json())
    return path


def start(stage: Path, out: Path, num: int) -> subprocess.Popen[str]:
    return start_stage("rl", stage, out, num)


def start_stage(kind: str, stage: Path, out: Path, num: int) -> subprocess.Popen[str]:
    """A stage command on so many ranks."""
    launcher = ["-m", "derivatives.training.launch", f"--num-processes={num}", sys.executable] if num > 1 else []
    command = [sys.executable, *launcher, "-m", f"derivatives.{kind}", str(stage), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )


def run(folder: Path, name: str, num: int, tensor: int = 1, **stage: Any) -> Path:
    out = folder / name
    process = start(write(folder, name, num, tensor, **stage), out, num)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    return out


def assert_same_curve(one: Path, other: Path, tolerance: float) -> None:
    first, second = read_progress(one), read_progress(other)
    assert [line["step"] for line in first] == [line["step"] for line in second] == list(range(1, 8))
    for ours, theirs in zip(first, second, strict=True):
        for name in FIGURES:
            assert (f"rl/{name}" in ours) == (f"rl/{name}" in theirs)
            if f"rl/{name}" in ours:
                known = ours[f"rl/{name}"]
                assert theirs[f"rl/{name}"] == pytest.approx(known, rel=tolerance, abs=tolerance), (ours["step"], name)


@pytest.mark.parametrize("stage", [{}, KL, LORA], ids=["plain", "kl", "lora"])
def test_two_ranks_are_one_along_either_axis(tmp_path: Path, stage: dict[str, Any]) -> None:
    one = run(tmp_path, "one", 1, precision="fp32", **stage)
    log = read_progress(one)
    assert max(line["rl/grad_norm"] for line in log) > 0.1 and len({line["rl/reward"] for line in log}) > 2
    assert any(line["rl/groups_replaced"] for line in log) and any("rl/audit_gap" in line for line in log)
    for name, tensor in (("rows", 1), ("layers", 2)):
        other = run(tmp_path, name, 2, tensor, precision="fp32", **stage)
        assert_same_curve(one, other, 2e-4)
        ours, theirs = (load_file(out / "model/model.safetensors") for out in (one, other))
        assert ours.keys() == theirs.keys()
        distance = max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in ours)
        assert distance < 4e-3  # a step of bf16, in which models are written
        # All that was drawn is stored once, by the first rank, and is what one process draws.
        names = sorted(path.name for path in (other / "rollouts").iterdir())
        assert names == sorted(path.name for path in (one / "rollouts").iterdir())
        kept = [(out / "rollouts.jsonl").read_text() for out in (one, other)]
        assert kept[0] == kept[1]


def test_in_bf16_two_ranks_learn_as_one_does(tmp_path: Path) -> None:
    """Rounding parts the runs; what they reach is alike."""
    one, two = (read_progress(run(tmp_path, f"of{num}", num)) for num in (1, 2))
    assert one[0]["rl/reward"] == pytest.approx(two[0]["rl/reward"], abs=0.1)
    for log in (one, two):
        assert log[-1]["rl/reward"] > log[0]["rl/reward"] + 0.3
        assert max(line["rl/mismatch"] for line in log) < 0.02


def test_two_ranks_killed_at_random_moments_end_with_the_same_bytes(tmp_path: Path) -> None:
    began = time.monotonic()
    expected = product(run(tmp_path, "whole", 2))
    whole_s = time.monotonic() - began
    rng, stage, out = random.Random(1), write(tmp_path, "killed", 2), tmp_path / "killed"
    for _ in range(3):
        before = len(read_progress(out))
        process = start(stage, out, 2)
        deadline = time.monotonic() + 3 * whole_s
        while process.poll() is None and len(read_progress(out)) < before + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05 * whole_s))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = start(stage, out, 2)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    assert product(out) == expected


def test_a_checkpoint_of_two_ranks_is_gone_on_from_by_one_and_a_fork_of_it_by_two(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole", 2, precision="fp32")
    out = tmp_path / "part"
    process = start(write(tmp_path, "part", 2, precision="fp32"), out, 2)
    while process.poll() is None and not (out / "checkpoints" / "step-000002").is_dir():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    alone = start(write(tmp_path, "part", 1, precision="fp32"), out, 1)
    said = alone.communicate(timeout=DEADLINE_S)[1]
    assert alone.returncode == 0, said
    assert_same_curve(whole, out, 2e-4)

    # From the kept checkpoint after step 4, with nothing changed.
    given = json.loads(write(tmp_path, "fork", 2, precision="fp32").read_text())
    given["stage"]["fork"] = {"step": 4, "artifact": "0" * 64}
    given["inputs"]["(fork)"] = {"kind": "rl", "path": str(whole)}
    (tmp_path / "fork.json").write_text(json.dumps(given))
    process = start(tmp_path / "fork.json", tmp_path / "fork", 2)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    assert_same_curve(whole, tmp_path / "fork", 1e-12)
    assert hashlib.sha256((tmp_path / "fork/model/model.safetensors").read_bytes()).hexdigest() == (
        hashlib.sha256((whole / "model/model.safetensors").read_bytes()).hexdigest()
    )


def test_a_verifier_that_fails_stops_all_ranks_with_the_reason(tmp_path: Path) -> None:
    lines = [{"id": f"p{n}", "prompt": f"{n} + 1 =", "answer": "", "verifier": "choice"} for n in range(24)]
    changed: dict[str, Any] = {"more_rewards": [], "audit": None, "max_no_verdict": 0.1, "fork_every": None}
    path = write(tmp_path, "stops", 2, verifier="choice", **changed)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    process = start(path, tmp_path / "stops", 2)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 2, said
    failure = json.loads((tmp_path / "stops" / "failure.json").read_text())
    assert failure["exit_code"] == 2 and "max_no_verdict" in failure["message"]
    assert len(read_progress(tmp_path / "stops")) < 7


def test_a_server_draws_for_both_ranks_with_whole_weights(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        base = write_checkpoint(tmp_path / "base")
    fake = FakeVllm(base)
    drawn = {
        "steps": 3, "verifier": "exact", "truncated": "shaped", "overlong_buffer": 4, "more_rewards": [], "audit": None,
        "sampling": {"max_new_tokens": 4}, "fork_every": None, "precision": "fp32", "max_no_verdict": 1.0,
        "length_stages": [], "learning_rate": 1e-2,
    }  # fmt: skip
    path = write(tmp_path, "served", 2, **drawn)
    given = json.loads(path.read_text())
    given["machine"]["rollout"] = RolloutServer(address=fake.address).model_dump(mode="json")
    given["inputs"]["base"]["path"] = str(base)
    path.write_text(json.dumps(given))
    process = start(path, tmp_path / "served", 2)
    said = process.communicate(timeout=DEADLINE_S)[1]
    fake.close()
    assert process.returncode == 0, said
    log = read_progress(tmp_path / "served")
    assert [line["step"] for line in log] == [1, 2, 3] and any(line["rl/grad_norm"] > 0 for line in log)
    for line in log:  # the server has the weights that the ranks train, after every update
        assert line["rl/mismatch"] < 1e-5 and line["rl/sync_distance"] < 1e-5
    assert len(fake.asked("/collective_rpc")) >= 2
