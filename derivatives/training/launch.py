"""Starts a stage command once per rank on this machine, and ends all when one fails.

    python -m derivatives.training.launch --num-processes=2 python -m derivatives.sft STAGE.json OUT/

For CPU profiles: `accelerate launch` starts several processes without a GPU only through MPI. The exit code is that of
the rank that failed first (2 for a user's error, 75 for a retry, 128 + n after signal n), which torchrun and accelerate
turn into 1. That holds also where an end was asked for meanwhile: 128 + n of that signal only says that nothing else
went wrong. What a rank says goes to the launcher's own stdout and stderr. It imports only the standard library.

Not done: several machines; starting a lost rank again (the next run resumes).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

LOST_EXIT = 76
"""As in `ranks`: that a rank ended because another one did."""
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = (*(128 + number for number in ENDS), *(-number for number in ENDS), LOST_EXIT)
"""What a rank ends with that was asked to: its own way of saying so, or none; or because another one was quicker."""
POLL_S = 0.05
SETTLE_S = 0.5
"""After one rank has ended badly, for others that failed at the same moment to be seen."""
GRACE_S = 5.0
"""Between SIGTERM and SIGKILL for the ranks that are left when one has failed."""
STOP_GRACE_S = 600.0
"""The same when an end was asked for: ranks finish their step and write a checkpoint. Whoever asks has a limit too."""

_PR_SET_PDEATHSIG = 1


def launch(num_processes: int, command: Sequence[str]) -> int:
    """Run to the end of all ranks; returns the exit code."""
    ends: list[int] = []
    for number in ENDS:
        signal.signal(number, lambda got, _frame: ends.append(got))
    libc = ctypes.CDLL(None)  # looked up before the fork, where nothing may be imported
    port = _free_port()
    ranks = [_start(command, rank, num_processes, port, libc) for rank in range(num_processes)]
    codes = _wait(ranks, ends)
    if ends:
        _ask(ranks)
        codes = _wait(ranks, (), STOP_GRACE_S, STOPPED)
    harmless = (0, *STOPPED) if ends else (0,)
    failed = {rank: code for rank, code in enumerate(codes) if code is not None and code not in harmless}
    if failed or ends:
        _end(ranks, GRACE_S)
    if not failed:
        return 128 + ends[0] if ends else 0
    rank, code = min(failed.items(), key=lambda item: (item[1] == LOST_EXIT, item[1] > 0, item[0]))
    if code < 0:
        print(f"rank {rank} of {num_processes} was killed by signal {-code}; the others were ended", file=sys.stderr)
        return 128 - code
    return 1 if code == LOST_EXIT else code


def _wait(
    ranks: Sequence[subprocess.Popen[bytes]],
    ends: Sequence[int],
    limit_s: float = float("inf"),
    harmless: Sequence[int] = (),
) -> list[int | None]:
    """Exit codes once all ranks have ended, or one badly, or an end was asked for; None for those that run on."""
    deadline = time.monotonic() + limit_s
    while True:
        codes = [rank.poll() for rank in ranks]
        if ends or None not in codes:
            return codes
        if any(code not in (None, 0, *harmless) for code in codes):
            deadline = min(deadline, time.monotonic() + SETTLE_S)
        if time.monotonic() >= deadline:
            return codes
        time.sleep(POLL_S)


def _ask(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to all that run."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
            rank.send_signal(signal.SIGCONT)  # a stopped process cannot act on SIGTERM


def _end(ranks: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """SIGTERM to all that run, SIGKILL after the grace period."""
    deadline = time.monotonic() + grace_s
    _ask(ranks)
    for rank in ranks:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _start(command: Sequence[str], rank: int, num: int, port: int, libc: ctypes.CDLL) -> subprocess.Popen[bytes]:
    place = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    launcher = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != launcher:  # it died before the line above
            os._exit(1)

    # Open files are inherited: the lock of the stage's folder lives as long as any of its processes.
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    return subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=in_child)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-processes", type=int, required=True, metavar="N", help="ranks to start, 1 or more")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what each rank runs")
    given = parser.parse_args(argv)
    if given.num_processes < 1 or not given.command:
        parser.error("give --num-processes of 1 or more, then the command")
    return launch(given.num_processes, given.command)


if __name__ == "__main__":
    sys.exit(main())
