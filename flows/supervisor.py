"""Runs one command so that nothing of it outlives its parent.

    python flows/supervisor.py PIPE_FD GRACE_S -- COMMAND...

A supervisor stands between a flow and a stage command. It leads its own session, is the subreaper of
everything below it (a daemon that forks twice ends up as its child), and holds the read end of a pipe
whose write end only the flow holds: end of file means that the flow is gone or wants an end. Then, and
when it gets SIGTERM, the command gets SIGTERM, alone, so that a trainer may end its step with its verifiers and
servers around it and write a checkpoint; once it has ended, what it left gets SIGTERM, and after the grace period
all that lives SIGKILL. When the command ends by itself, whatever it left running is ended in the same way. The exit
code is the command's, or 128 + n after signal n, or 143 when it was told to stop.

A byte in the pipe asks the command to stop, by SIGTERM, without a limit (`Supervised.ask`).

`Supervised` is the flow's side. This file imports only the standard library, as it also runs by itself.

Not covered: descendants that a process outside the tree started on the command's behalf (systemd-run,
docker), and a kill -9 of the supervisor itself: then the command dies at once (parent-death signal), and
what it had started is ended by the next builder of the folder (`kill_leftovers`).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

FOLDER_VARIABLE = "DERIVE_STAGE_FOLDER"
"""Set for every process of a stage to the folder it builds; the mark by which leftovers are found."""

STOPPED_EXIT = 128 + signal.SIGTERM
POLL_S = 0.1
LEFTOVER_GRACE_S = 1.0
"""A command that has ended has no claim on its children; they only get time to close files."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Supervised:
    """A command that runs under a supervisor, seen from the flow. Close it, always."""

    def __init__(
        self,
        command: Sequence[str],
        log: IO[bytes],
        folder: Path,
        environment: Mapping[str, str],
        keep_open: Sequence[int] = (),
        grace_s: float = 10.0,
    ) -> None:
        """Start it.

        Args:
            command: Words of the command.
            log: Open file for its stdout and stderr; a file and no pipe, so that nobody blocks or breaks on it.
            folder: What it builds; the mark of its processes.
            environment: Its whole environment.
            keep_open: File descriptors to inherit, such as the lock of the folder.
            grace_s: Seconds between SIGTERM and SIGKILL.
        """
        read_end, self._pipe = os.pipe()
        words = [sys.executable, "-S", "-E", __file__, str(read_end), str(grace_s), "--", *command]
        self.grace_s = grace_s
        try:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[read_end, *keep_open],
                cwd=Path(__file__).resolve().parent.parent,
                env={**environment, FOLDER_VARIABLE: str(folder)},
            )
        except BaseException:
            os.close(self._pipe)
            self._pipe = -1
            raise
        finally:
            os.close(read_end)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None if it still runs after this time."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def ask(self) -> None:
        """Send the command a SIGTERM and leave it the time that it needs; `close` still ends it."""
        try:
            os.write(self._pipe, b"s")
        except BrokenPipeError:  # it has just ended
            return

    def close(self) -> int:
        """End the whole tree and wait for it: at most the grace period and a few seconds. Returns the exit code."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        code = self.wait(self.grace_s + LEFTOVER_GRACE_S + 7.0)
        if code is None:  # a stuck supervisor; its command dies with it by the parent-death signal
            self.process.kill()
            code = 128 - self.process.wait()
        return code

    def __enter__(self) -> Supervised:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kill_leftovers(folder: Path) -> list[int]:
    """SIGKILL this user's processes that carry the mark of `folder`, and wait until they are gone. Returns their ids.

    Call it only with the folder's lock held: whoever still carries the mark then is an orphan.
    """
    mark = f"{FOLDER_VARIABLE}={folder}".encode()
    killed: list[int] = []
    for _ in range(50):
        found = [pid for pid in _process_ids() if pid != os.getpid() and mark in _read(pid, "environ").split(b"\0")]
        if not found:
            return killed
        for pid in found:
            _signal(pid, signal.SIGKILL)
        killed += [pid for pid in found if pid not in killed]
        time.sleep(POLL_S)
    raise RuntimeError(f"{folder}: processes {found} hold on after SIGKILL; end them and run again")


def descendants(root: int) -> list[int]:
    """Ids of all living processes below `root`, children before grandchildren; zombies are left out."""
    children: dict[int, list[int]] = {}
    for pid in _process_ids():
        # The name (in brackets) may hold spaces and brackets; state and parent follow its last bracket.
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 1 and fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(pid)
    found = list(children.get(root, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def supervise(pipe: int, grace_s: float, command: Sequence[str]) -> int:
    """Run the command to its end or to the end of the pipe. Returns the exit code."""
    told_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: told_to_stop.append(got))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    try:
        child = _start(libc, command)
    except OSError as error:
        print(f"error: cannot start {command[0]!r}: {error.strerror}; correct the machine's launcher", file=sys.stderr)
        return 2
    code = None
    while code is None and not told_to_stop:
        ready, _, _ = select.select([pipe], [], [], POLL_S)
        if ready and os.read(pipe, 1):
            _ask(child)
        elif ready:
            told_to_stop.append(0)
        code = _reap(child, code)
    code = end_tree(child, code, grace_s if code is None else min(grace_s, LEFTOVER_GRACE_S))
    return STOPPED_EXIT if told_to_stop else code


def end_tree(child: int, code: int | None, grace_s: float) -> int:
    """SIGTERM to the child, then to what it leaves; SIGKILL to all after the grace period, until none lives.

    Returns the child's exit code.
    """
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while True:
        code = _reap(child, code)
        alive = descendants(os.getpid())
        if not alive:
            return code if code is not None else STOPPED_EXIT
        late = time.monotonic() >= deadline
        for pid in alive:
            if late:
                _signal(pid, signal.SIGKILL)
            elif pid not in asked and (code is not None or pid == child):
                _ask(pid)
                asked.add(pid)
        time.sleep(POLL_S / 2)


def _ask(pid: int) -> None:
    _signal(pid, signal.SIGTERM)
    _signal(pid, signal.SIGCONT)  # a stopped process cannot act on SIGTERM


def _start(libc: ctypes.CDLL, command: Sequence[str]) -> int:
    supervisor = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:  # the supervisor died before the line above
            os._exit(1)

    # close_fds is off so that the folder's lock is inherited; the pipe is not inheritable past this point.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, preexec_fn=in_child).pid


def _reap(child: int, code: int | None) -> int | None:
    """Collect all zombies; the exit code of `child` once it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code


def _process_ids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def main() -> int:
    """Entry point of the file run by itself."""
    pipe, grace_s, dashes, *command = sys.argv[1:]
    assert dashes == "--" and command, "flows/supervisor.py is started by Supervised"
    os.set_inheritable(int(pipe), False)
    return supervise(int(pipe), float(grace_s), command)


if __name__ == "__main__":
    sys.exit(main())
