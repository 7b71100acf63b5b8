"""A run that outlives whoever reads what it says.

A served run's stdout and stderr are pipes to the process that serves. When that one is killed, the next line of the log
breaks the pipe, and the console library ends the process for it. A thread sees the break and points both at nowhere;
the log goes to Prefect's server all the same, and what the stages say to their files.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading


def outlive_readers() -> None:
    """Watch stdout and stderr, where they are pipes, for as long as the process lives."""
    watched = select.poll()
    pipes = [number for number in (1, 2) if _is_pipe(number)]
    for number in pipes:
        watched.register(number, 0)  # errors are reported whatever is asked for

    def work() -> None:
        while pipes:
            for number, _ in watched.poll():
                watched.unregister(number)
                pipes.remove(number)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)

    if pipes:
        sys.stdout.flush()
        threading.Thread(target=work, daemon=True, name="pipes").start()


def _is_pipe(number: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    except OSError:
        return False
