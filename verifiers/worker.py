"""The process side of `verifiers.pool`: reads chunks of problems on stdin, writes one line a verdict on stdout.

Started by the pool as `python -c "... from verifiers.worker import main; main(...)"`, never by hand. It imports the
verifiers that it is asked for and nothing else of this project; no torch state can reach it, since it is a fresh
interpreter. It dies with its parent (PR_SET_PDEATHSIG) and has its address space capped above what its imports need.

Lines out: `{"loading": name}` and `{"loaded": name}` around an import, so that the pool's clock stops; then for each
problem one of `{"verdict": ...}`, `{"over": limit}` (the completion made the verifier run out of memory or stack) or
`{"error": text}` (a fault of ours).

What this does not do: it keeps no clock, since a hang in C cannot be interrupted from inside; the pool kills it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import time
from typing import Any, BinaryIO

from verifiers.api import Task, Verdict, Verifier
from verifiers.registry import load_verifier

PR_SET_PDEATHSIG = 1


def main(parent: int, memory_mb: int) -> None:
    """Serve until stdin closes. `parent` is the pool's process id; `memory_mb` is what judging may add."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides when a worker ends
    requests, replies = _private_pipes()
    server = _Server(replies, memory_mb)
    for line in requests:
        for request in json.loads(line):
            server.serve(request)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


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
            started = time.perf_counter()
            verdict = verifier.judge(Task(**request["task"]), request["completion"])
            seconds = time.perf_counter() - started
            if not isinstance(verdict, Verdict):
                raise TypeError(f"judge returned a {type(verdict).__name__}, not a Verdict")
            self._reply({"verdict": [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason, seconds]})
        except MemoryError:
            gc.collect()
            self._reply({"over": "memory"})
        except RecursionError:
            self._reply({"over": "stack"})
        except Exception as error:
            self._reply({"error": f"{type(error).__name__}: {error}"[:300]})

    def _verifier(self, name: str) -> Verifier:
        if name not in self.verifiers:
            self._reply({"loading": name})
            verifier = load_verifier(name)
            warm_up = getattr(verifier, "warm_up", None)
            if warm_up is not None:
                warm_up()
            self.verifiers[name] = verifier
            self._cap_memory()
            self._reply({"loaded": name})
        return self.verifiers[name]

    def _cap_memory(self) -> None:
        """Allow `memory_bytes` above what is mapped now; imports of large libraries map much that they never touch."""
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = mapped + self.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def _reply(self, message: dict[str, Any]) -> None:
        self.replies.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit("verifiers.worker is started by verifiers.pool; use VerifierPool")
