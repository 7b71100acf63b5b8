"""Process trees by `/proc`: whom a worker has started, how to end all of them, and what a worker is doing.

A worker's keeper is a subreaper (see `verifiers.worker`), so that whatever its judge starts stays below it in the
tree, in whatever session or process group it hides; `kill_below` ends all of it.

What this does not do: it cannot signal processes of other users (a set-user-id program), and it sees only its own
process namespace and those below it.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress

KILL_ROUNDS_S = 2.0
"""Time for ending a tree that keeps growing; each round ends all that is seen."""


def below(root: int) -> list[int]:
    """Ids of the living descendants of a process, children before grandchildren; zombies are left out."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        found = _stat(int(name))
        if found is not None:
            state, parent = found
            children.setdefault(parent, []).append(int(name))
            if state in "ZX":
                zombies.add(int(name))
    tree = list(children.get(root, ()))
    for pid in tree:  # grows as it is walked
        tree += children.get(pid, ())
    return [pid for pid in tree if pid not in zombies]


def end_children() -> None:
    """SIGKILL every descendant of this process, a subreaper, until none is left.

    What is seen in `/proc` is never all: a process may fork and end while the list is read. But an orphan comes to a
    subreaper as its child, so that nothing is left once there is no child to wait for.
    """
    limit = time.monotonic() + KILL_ROUNDS_S
    while time.monotonic() < limit:
        for pid in below(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def kill_below(root: int) -> None:
    """SIGKILL every descendant of another process until none is seen; `end_children` says what that may miss."""
    limit = time.monotonic() + KILL_ROUNDS_S
    while (tree := below(root)) and time.monotonic() < limit:
        for pid in tree:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def state(pid: int) -> str:
    """`R` running, `S` waiting, `T` stopped, and the like (proc(5)); `gone` for a process that is not there."""
    found = _stat(pid)
    return found[0] if found is not None else "gone"


def starved_s(pid: int) -> float:
    """Seconds that a process stood ready to run and got no processor; 0 where the kernel does not count them."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def resident_mb(pid: int) -> float:
    """Resident memory in megabytes; 0 for a process that has just ended."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError):
        return 0.0


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        return fields[0].decode(), int(fields[1])
    except (OSError, IndexError, ValueError):
        return None
