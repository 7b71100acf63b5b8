"""The process side of `verifiers.pool`: reads chunks of problems on stdin, writes one line a verdict on stdout.

Started by the pool as `python -c "... from verifiers.worker import main; main(...)"`, never by hand. Two processes:

- the **keeper**, a few lines that wait. It is a subreaper, so that all that the judge starts stays below it, and ends
  all of that when the judge ends, when the pool says so (SIGTERM), and when the pool dies, even by `kill -9`. It also
  makes and removes the judge's folder for temporary files.
- the **judge**, forked before anything else is imported. It imports the verifiers that it is asked for and nothing
  else of this project, dies with its keeper (PR_SET_PDEATHSIG), and has its address space capped above what its imports
  need.

Lines out: `{"judge": pid}` at the start; `{"loading": name}` and `{"loaded": name}` around an import, so that the
pool's clock stops; then for each problem one of `{"verdict": ...}`, `{"over": limit}` (the completion made the verifier
run out of memory or stack), `{"error": text}` (a fault of ours) or `{"unloadable": text}` (there is no verifier to try
again with).

A verdict must not depend on what was judged before: `random` starts from the same seed for every problem, and sets are
ordered the same in every worker (the pool fixes the hash seed).

What this does not do: it keeps no clock, since a hang in C cannot be interrupted from inside; the pool kills it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, BinaryIO, NoReturn

from verifiers.api import Task, Verdict, Verifier
from verifiers.processes import end_children
from verifiers.registry import load_verifier

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(parent: int, memory_mb: int) -> None:
    """Become the keeper of a judge. `parent` is the pool's process id; `memory_mb` is what judging may add."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides when a worker ends
    keeper = os.getpid()
    _die_with(parent, signal.SIGTERM)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # children do not inherit it
    folder = tempfile.mkdtemp(prefix="verifier-")
    os.chmod(folder, 0o711)  # a sandbox's private user must get through, not look around
    judge = os.fork()  # no thread runs yet
    if judge == 0:
        _die_with(keeper, signal.SIGKILL)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        _judge(memory_mb)
        os._exit(0)  # stdin was closed
    _keep(judge, folder)


def _keep(judge: int, folder: str) -> NoReturn:
    """Wait for the judge's end, then end what it left behind and remove its temporary files."""
    signal.signal(signal.SIGTERM, lambda number, frame: _end(-signal.SIGTERM, folder))
    for fd in (0, 1):
        os.close(fd)  # the pool must see the end of the pipe when the judge ends
    while True:
        pid, status = os.wait()  # orphans of the judge come here too
        if pid == judge:
            _end(os.waitstatus_to_exitcode(status), folder)


def _end(code: int, folder: str) -> NoReturn:
    end_children()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(code if code >= 0 else 128 - code)


def _die_with(parent: int, number: signal.Signals) -> None:
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _judge(memory_mb: int) -> None:
    """Serve until stdin closes."""
    requests, replies = _private_pipes()
    server = _Server(replies, memory_mb)
    server.reply({"judge": os.getpid()})
    for line in requests:
        for request in json.loads(line):
            server.serve(request)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our ends of the pipes, moved away from 0 and 1 so that a verifier that prints or reads cannot disturb them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, replies


class _Server:
    """Loads verifiers as they are asked for and judges one problem at a time."""

    def __init__(self, replies: BinaryIO, memory_mb: int) -> None:
        self.replies = replies
        self.memory_bytes = memory_mb * 2**20
        self.verifiers: dict[str, Verifier] = {}

    def serve(self, request: dict[str, Any]) -> None:
        try:
            verifier = self._verifier(request["verifier"])
        except Exception as error:
            self.reply({"unloadable": f"{type(error).__name__}: {error}"[:300]})
            return
        try:
            random.seed(0)
            started = time.perf_counter()
            verdict = verifier.judge(Task(**request["task"]), request["completion"])
            seconds = time.perf_counter() - started
            if not isinstance(verdict, Verdict):
                raise TypeError(f"judge returned a {type(verdict).__name__}, not a Verdict")
            self.reply({"verdict": [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason, seconds]})
        except MemoryError:
            gc.collect()
            self.reply({"over": "memory"})
        except RecursionError:
            self.reply({"over": "stack"})
        except Exception as error:
            self.reply({"error": f"{type(error).__name__}: {error}"[:300]})

    def reply(self, message: dict[str, Any]) -> None:
        """One line to the pool."""
        self.replies.write(json.dumps(message).encode() + b"\n")

    def _verifier(self, name: str) -> Verifier:
        if name not in self.verifiers:
            self.reply({"loading": name})
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            verifier = load_verifier(name)
            warm_up = getattr(verifier, "warm_up", None)
            if warm_up is not None:
                warm_up()
            self.verifiers[name] = verifier
            self._cap_memory()
            self.reply({"loaded": name, "deadline_s": float(getattr(verifier, "deadline_s", 0.0))})
        return self.verifiers[name]

    def _cap_memory(self) -> None:
        """Allow `memory_bytes` above what is mapped now; imports of large libraries map much that they never touch."""
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = mapped + self.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit("verifiers.worker is started by verifiers.pool; use VerifierPool")
