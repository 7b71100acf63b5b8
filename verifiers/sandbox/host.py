"""The judge's side: starts a zygote, opens runs in it (`verifiers.sandbox.run`), and ends them.

    with Sandbox() as sandbox, sandbox.open({"kind": "calls", "program": text, "entry_points": ["f"]}) as run:
        run.expect_loaded()
        answer = run.call("f", [1, 2])                  # Answer(letter=b"V", content=canonical bytes)

One `Sandbox` serves one run at a time and is not shared between threads; each thread takes its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from verifiers.sandbox.inside import codec, zygote
from verifiers.sandbox.run import Limits, Run, RunEnded, ready

START_TIMEOUT_S = 60.0
"""Time for a zygote to start; it imports forty modules, which a loaded machine does slowly."""
END_TIMEOUT_S = 30.0
"""Time for a zygote to kill a run and clean up."""
MAX_RUNS = 20_000
"""Runs after which a zygote is replaced, as a matter of hygiene."""

_BOOT = (
    "import sys, json; sys.path.append(json.loads(sys.argv[1])['source']); "
    "from inside import warm; warm.up(); from inside.zygote import main; main()"
)
_SCRATCH_BASES = ("/tmp", "/dev/shm", "/var/tmp")
OPTIONAL_LAYERS = ("user", "namespaces")
MINIMUM_LAYERS = ("seccomp", "landlock")
"""Besides resource limits and the killing of all that a run leaves, which need nothing of the machine."""


class SandboxFault(RuntimeError):
    """The sandbox itself failed: our fault, never the program's."""


class SandboxUnavailable(SandboxFault):
    """A layer of the required minimum is not in force on this machine; the message names it and the remedy."""


@dataclass(frozen=True)
class Settings:
    """How zygotes are confined.

    Attributes:
        without: Layers to leave out, of user, namespaces, landlock and seccomp.
        minimum: Layers that must be in force; where one is not, nothing runs.
        scratch_mb: Megabytes of files that one run may hold in its scratch folder, and the size of any one file.
        scratch_files: Files and folders that it may hold.
        max_threads: Threads of one run, where they can be counted (a user of its own, or namespaces).
    """

    without: frozenset[str] = frozenset()
    minimum: frozenset[str] = frozenset(MINIMUM_LAYERS)
    scratch_mb: int = 16
    scratch_files: int = 512
    max_threads: int = 32


@dataclass
class Ending:
    """How a run ended. A negative status is the signal that killed it; `over` says that files outgrew their bound."""

    status: int
    over: bool


class Sandbox:
    """One zygote, started when it is first needed and replaced when it fails. Raises SandboxFault.

    A process that forked from this one must make its own.
    """

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
        self.settings = settings
        self.in_force: frozenset[str] = frozenset()
        self.details: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.scratch = ""
        self._control: socket.socket | None = None
        self._num_runs, self._is_ending = 0, False
        self._owner = os.getpid()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the zygote unless it runs. Optional layers that the machine refuses are left out and noted."""
        if self._owner != os.getpid():
            raise SandboxFault("this sandbox belongs to the process that this one was forked from; make a new one")
        if self._control is not None:
            return
        without = set(self.settings.without)
        self.details = {}
        while True:
            reply = self._spawn(without)
            if "failed" not in reply:
                break
            self.close()
            step = reply["failed"]
            if step not in OPTIONAL_LAYERS or step in without:
                raise SandboxFault(f"the sandbox did not start: {step}: {reply['detail']}")
            without.add(step)
            self.details[step] = reply["detail"]
        self.in_force = frozenset(reply["in_force"])
        self.details.update(reply["details"])
        missing = self.settings.minimum - self.in_force
        if missing:
            self.close()
            raise SandboxUnavailable(missing_message(missing))
        self._num_runs = 0

    def open(
        self,
        job: Mapping[str, Any],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        descriptors: Sequence[int] = (),
        calls: Sequence[bytes] = (),
    ) -> Run:
        """Begin a run of `job` (see `inside.child`). `descriptors` become its standard input and output; `calls` are
        those that will be made first (see `Run.begin`)."""
        if self._num_runs >= MAX_RUNS:
            self.close()
        self.start()
        self._num_runs += 1
        self.settle()
        inward, outward = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        request = zygote.REQUEST.pack(limits.memory_mb, max(1, -int(-limits.time_s // 1)))
        try:
            assert self._control is not None
            socket.send_fds(self._control, [request], [inward[0], outward[1], *descriptors])
        except OSError as error:
            os.close(inward[1])
            os.close(outward[0])
            self.close()
            raise SandboxFault(f"the zygote is gone: {error}") from error
        finally:
            os.close(inward[0])
            os.close(outward[1])
        run = Run(self, inward[1], outward[0], time.monotonic() + limits.wall_s)
        try:
            run.begin(codec.encode(dict(job)), calls)
        except RunEnded:
            pass  # the run tells why when it is read
        except BaseException:
            run.close()
            raise
        return run

    def end_run(self) -> None:
        """Have the zygote kill what runs. It does so while this process goes on."""
        if self._control is not None:
            self._is_ending = True
            with contextlib.suppress(OSError):
                self._control.send(b"end")

    def ending(self) -> Ending:
        """How the run ended that `end_run` ended. Raises SandboxFault when the zygote has failed."""
        ending = self.settle()
        if ending is None:
            raise SandboxFault("no run was ended")
        return ending

    def close(self) -> None:
        """Kill the zygote and all that it started, and wait until its scratch folder is gone. Safe to call twice."""
        control, self._control = self._control, None
        process, self.process = self.process, None
        self._is_ending = False
        if control is not None:
            control.close()  # the zygote ends when it sees this; its launcher then cleans up
        if process is None or self._owner != os.getpid():
            return
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def settle(self) -> Ending | None:
        """Wait until the run that was ended is gone and its files with it; what the zygote says of it."""
        if not self._is_ending:
            return None
        reply = self._receive(END_TIMEOUT_S)
        self._is_ending = False
        try:
            status, over = zygote.ENDING.unpack(reply)
            return Ending(os.waitstatus_to_exitcode(status), over)
        except (struct.error, ValueError) as error:
            self.close()
            raise SandboxFault(f"the zygote says what is no ending: {error}") from error

    def _spawn(self, without: Collection[str]) -> dict[str, Any]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.scratch = tempfile.mkdtemp(prefix="sandbox-", dir=_scratch_base("user" not in without))
        settings = {
            "control": theirs.fileno(), "scratch": self.scratch, "without": sorted(without),
            "source": str(Path(zygote.__file__).parents[1]), "scratch_mb": self.settings.scratch_mb,
            "scratch_files": self.settings.scratch_files, "max_threads": self.settings.max_threads,
        }  # fmt: skip
        command = [sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8", "-c", _BOOT, json.dumps(settings)]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env={"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}, start_new_session=True)  # fmt: skip
        self._control = ours
        reply: dict[str, Any] = json.loads(self._receive(START_TIMEOUT_S))
        return reply

    def _receive(self, timeout_s: float) -> bytes:
        assert self._control is not None
        if not ready(self._control.fileno(), select.POLLIN, timeout_s):
            self.close()
            raise SandboxFault(f"the zygote does not answer within {timeout_s:g} s")
        try:
            message = self._control.recv(4096)
        except OSError as error:
            message = b""
            detail = str(error)
        else:
            detail = "it ended by itself"
        if not message:
            self.close()
            raise SandboxFault(f"the zygote is gone: {detail}")
        return message


REMEDIES = {
    "landlock": "run on Linux 5.13 or later with Landlock in the kernel's list of security modules (`lsm=`), "
    "in a container whose seccomp profile allows the landlock_* calls",
    "seccomp": "run on Linux with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    "namespaces": "allow unprivileged user namespaces (`sysctl user.max_user_namespaces`, "
    "`kernel.apparmor_restrict_unprivileged_userns=0`), in a container whose profile allows unshare",
    "user": "start as root in a container that may change users, or rely on namespaces to count processes",
}


def missing_message(missing: Collection[str]) -> str:
    """What is said when layers of the minimum are not in force."""
    parts = [f"{layer} ({REMEDIES[layer]})" for layer in sorted(missing)]
    return f"sandbox: programs are not run, for want of {'; and '.join(parts)}"


def _scratch_base(for_other_user: bool) -> str:
    """A folder for scratch folders that the private user can reach."""
    own = tempfile.gettempdir()
    if not for_other_user or os.geteuid() != 0:
        return own
    for base in (own, *_SCRATCH_BASES):
        if os.path.isdir(base) and zygote.open_to_others(base):
            return base
    return own
