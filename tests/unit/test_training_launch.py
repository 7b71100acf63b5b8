"""The launcher of several ranks: their places, their exit codes, and that none outlives another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from derivatives.training import launch, ranks

DEADLINE_S = 120


def start(num: int, code: str, *words: str) -> subprocess.Popen[str]:
    """A launcher whose ranks run some Python."""
    command = [sys.executable, "-m", "derivatives.training.launch", f"--num-processes={num}"]
    command += [sys.executable, "-c", f"import os, signal, sys, time; rank = int(os.environ['RANK']); {code}", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, errors


def test_each_rank_knows_its_place_and_the_meeting_point(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    code = f"import json; open(sys.argv[1] + str(rank), 'w').write(json.dumps([os.environ[n] for n in {names}]))"
    assert finish(start(3, code, f"{tmp_path}/"))[0] == 0
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    port = found[0][5]
    assert int(port) > 1023
    assert found == [[str(rank), str(rank), "3", "3", "127.0.0.1", port] for rank in range(3)]


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("sys.exit(2 if rank == 1 else 0)", 2, ""),
        ("sys.exit(75 if rank == 0 else 76)", 75, ""),
        ("sys.exit(76)", 1, ""),
        ("rank == 0 and time.sleep(600); sys.exit(2)", 2, ""),
        (
            "rank == 0 and (time.sleep(0.2) or sys.exit(76)); os.kill(os.getpid(), signal.SIGKILL)", 137,
            "rank 1 of 2 was killed by signal 9; the others were ended\n",
        ),
    ],
)  # fmt: skip
def test_the_rank_that_failed_first_gives_the_exit_code(code: str, exit_code: int, said: str) -> None:
    assert finish(start(2, code)) == (exit_code, "", said)


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("stops(143)", 143, ""),
        ("stops(76 if rank else 143)", 143, ""),  # one was quicker, the other one missed it
        ("stops(2 if rank else 143)", 2, ""),  # a full disk while the checkpoint is written
        ("stops(1 if rank else 76)", 1, ""),
        ("rank and (open(sys.argv[1] + str(rank), 'w').write('1'), time.sleep(600)); stops(75)", 75, ""),
        (
            "rank and (open(sys.argv[1] + str(rank), 'w').write('1'), time.sleep(600)); stops(-9)", 137,
            "rank 0 of 2 was killed by signal 9; the others were ended\n",
        ),
    ],
)  # fmt: skip
def test_a_rank_that_fails_while_all_are_stopped_gives_the_exit_code(
    tmp_path: Path, code: str, exit_code: int, said: str
) -> None:
    """The failure is what has to be mended; that an end was asked for is known to whoever asked."""
    stops = """
def stops(code):
    def end(*_):
        time.sleep(0.3)
        os.kill(os.getpid(), -code) if code < 0 else os._exit(code)
    signal.signal(signal.SIGTERM, end)
    open(sys.argv[1] + str(rank), "w").write("1")
    time.sleep(600)
"""
    process = start(2, f"exec({stops!r}); {code}", f"{tmp_path}/")
    for rank in range(2):
        _pid(tmp_path / str(rank))
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (exit_code, "", said)


def test_a_lost_rank_is_never_the_reason() -> None:
    assert ranks.LOST_EXIT == launch.LOST_EXIT  # the launcher imports no torch, so it has the number of its own


def test_a_launcher_that_is_told_to_end_ends_its_ranks_and_so_does_its_own_death(tmp_path: Path) -> None:
    for number, exit_code in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
        code = "open(sys.argv[1] + str(rank), 'w').write(str(os.getpid())); time.sleep(600)"
        process = start(2, code, f"{tmp_path}/{int(number)}-")
        pids = [_pid(tmp_path / f"{int(number)}-{rank}") for rank in range(2)]
        process.send_signal(number)
        assert finish(process)[0] == exit_code
        deadline = time.monotonic() + DEADLINE_S
        while any(_runs(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _pid(path: Path) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b" Z " not in Path(f"/proc/{pid}/stat").read_bytes()


def test_a_launcher_without_a_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launch.main(["--num-processes=2"])
    assert "then the command" in capsys.readouterr().err
