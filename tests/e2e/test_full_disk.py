"""A disk that is full in the middle: on a real file system of a few megabytes, in a namespace of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training_fixtures import sft_file, write_checkpoint, write_sums

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
ENTER = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=64m tmpfs "$0" && exec "$@"'

DRIVER = """
import hashlib, os, shutil, subprocess, sys, time
from pathlib import Path
stage, disk = Path(sys.argv[1]), Path(sys.argv[2])
out, filler = disk / "out", disk / "filler"
def start():
    return subprocess.Popen([sys.executable, "-m", "derivatives.sft", str(stage), str(out)], stderr=subprocess.PIPE,
                            text=True)
stopped = start()
while not (out / "checkpoints" / "step-000003").exists():
    time.sleep(0.005)
while True:  # to the last byte
    try:
        with filler.open("ab") as file:
            file.write(b"x" * 4096)
    except OSError:
        break
said = stopped.communicate()[1]
kept = sorted(path.name for path in (out / "checkpoints").iterdir())
filler.unlink()
again = start()
said_again = again.communicate()[1]
digest = hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()
print(stopped.returncode, "the disk is full; free space there and run the same command again" in said, len(kept) >= 1,
      all(name.startswith("step-") for name in kept), again.returncode, digest)
"""


def can_enter() -> bool:
    return subprocess.run([*ENTER, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_enter(), reason="no user namespace with mounts here")
def test_a_disk_that_fills_during_a_training_costs_nothing_and_the_last_checkpoint_resumes(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", hidden_size=128, intermediate_size=256, initializer_range=0.05)
    sums = write_sums(tmp_path / "sums.jsonl", 96)
    given = sft_file(base, sums, precision="bf16", epochs=5.0, checkpoint_every=3, learning_rate=1e-3)
    stage_json, disk, straight = tmp_path / "stage.json", tmp_path / "disk", tmp_path / "straight"
    stage_json.write_text(given.model_dump_json())
    disk.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "derivatives.sft", str(stage_json), str(straight)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    words = [*ENTER, "sh", "-c", MOUNT, str(disk), sys.executable, "-c", DRIVER, str(stage_json), str(disk)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    expected = hashlib.sha256((straight / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert done.stdout.split() == ["2", "True", "True", "True", "0", expected], done.stdout + done.stderr
