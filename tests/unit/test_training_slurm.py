"""Ranks under Slurm, by an environment as srun makes it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from derivatives.training.slurm import environment

GIVEN = {
    "SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_NTASKS": "16", "SLURM_JOB_NODELIST": "gpu[007-008]",
    "SLURM_JOB_ID": "4123456",
}  # fmt: skip
COMMAND = [sys.executable, "-m", "derivatives.training.slurm"]


def test_slurms_words_become_torchs() -> None:
    assert environment(GIVEN) == {
        "RANK": "11", "LOCAL_RANK": "3", "WORLD_SIZE": "16", "MASTER_ADDR": "gpu007", "MASTER_PORT": "23456",
    }  # fmt: skip
    assert environment({**GIVEN, "SLURM_STEP_NODELIST": "gpu009,gpu010"})["MASTER_ADDR"] == "gpu009"


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run([*COMMAND, *words], env={**plain, **more}, capture_output=True, text=True, check=False)


def test_the_command_takes_its_place_and_gives_its_exit_code() -> None:
    told = run(sys.executable, "-c", "import os, sys; print(os.environ['RANK']); sys.exit(75)", **GIVEN)
    assert (told.returncode, told.stdout) == (75, "11\n")


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["true"], {}, "'SLURM_PROCID' is missing"),
        ([], GIVEN, "no command was given"),
        (["no-such-command"], GIVEN, "no-such-command: No such file"),
    ],
)
def test_what_is_missing_is_one_line(words: list[str], given: dict[str, str], message: str) -> None:
    told = run(*words, **given)
    assert told.returncode == 2 and message in told.stderr and told.stderr.count("\n") == 1
