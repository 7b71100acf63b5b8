"""The process side of the checks that a pool cannot make: other hash seeds, orders, threads, forks, ten thousand calls.

Started by `verifiers.certify.children` with one JSON object on stdin, never by hand; writes one JSON object to its
first standard output, which the verifier cannot reach. It dies with its parent, and its memory is capped, so that a
verifier that leaks ends here and nowhere else.

Modes: `identify`, `verdicts` (one after another, in the given order), `threads`, `fork`, `memory`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

from verifiers.api import Task, Verifier
from verifiers.processes import below, resident_mb
from verifiers.registry import load_verifier

PR_SET_PDEATHSIG = 1
FILLER = "The next step follows from the one before it, as can be seen by looking at both of them together. "
FILLER_CHARACTERS = 4_000
"""Of what is put before every second completion, so that whoever keeps completions is seen to."""
SAMPLES = 100
STOP_GROWN_MB = 600.0

Pair = tuple[Task, str]
Told = list[Any]
"""Outcome, score, extracted and reason of a verdict; or `raised` and the error."""


def main(parent: int) -> None:
    """Do what stdin asks for."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    request = json.loads(sys.stdin.buffer.read())
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    verifier = load_verifier(request["verifier"])
    warm_up = getattr(verifier, "warm_up", None)
    if warm_up is not None:
        warm_up()
    cap_memory(request["memory_mb"])
    pairs = [(Task(**task), completion) for task, completion in request["pairs"]]
    answer = MODES[request["mode"]](verifier, pairs, request)
    with os.fdopen(answers, "wb") as file:
        file.write(json.dumps(answer).encode())
    sys.stderr.flush()
    os._exit(0)  # threads that hang must not keep this alive; what the verifier started dies with the session


def identify(verifier: Verifier, pairs: list[Pair], request: dict[str, Any]) -> dict[str, str]:
    """Name and version, once it is imported."""
    return {"name": str(verifier.name), "version": str(verifier.version)}


def tell(verifier: Verifier, pair: Pair) -> Told:
    """The verdict on one pair, or what was raised."""
    try:
        verdict = verifier.judge(*pair)
        return [verdict.outcome.value, verdict.score, verdict.extracted, verdict.reason]
    except Exception as error:
        return ["raised", f"{type(error).__name__}: {error}"[:200]]


def verdicts(verifier: Verifier, pairs: list[Pair], request: dict[str, Any]) -> list[Told]:
    """Of the pairs in the order that was asked for, which may name one twice."""
    return [tell(verifier, pairs[place]) for place in request["order"]]


def threads(verifier: Verifier, pairs: list[Pair], request: dict[str, Any]) -> list[list[Told]]:
    """Of all pairs, from each of the threads; each begins elsewhere, and they change places often."""
    sys.setswitchinterval(1e-5)
    count = request["threads"]
    found: list[list[Told]] = [[] for _ in range(count)]
    start = threading.Barrier(count)

    def judge_all(number: int) -> None:
        begin = number * len(pairs) // count
        order = [*range(begin, len(pairs)), *range(begin)]
        start.wait()
        told = {place: tell(verifier, pairs[place]) for place in order}
        found[number] = [told[place] for place in range(len(pairs))]

    running = [threading.Thread(target=judge_all, args=(number,), daemon=True) for number in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def fork(verifier: Verifier, pairs: list[Pair], request: dict[str, Any]) -> list[Told]:
    """Of all pairs in a forked child, after this process has judged the first; None for none."""
    tell(verifier, pairs[0])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        told = [tell(verifier, pair) for pair in pairs]
        with os.fdopen(writing, "wb") as file:
            file.write(json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    found: list[Told] = json.loads(data) if data else []
    return found


def memory(verifier: Verifier, pairs: list[Pair], request: dict[str, Any]) -> dict[str, Any]:
    """Resident memory of this process and all below it, over many calls."""
    calls, limit_s = request["calls"], request["limit_s"]
    started = time.monotonic()
    samples: list[tuple[int, float]] = []
    for number in range(calls):
        if number % max(1, calls // SAMPLES) == 0 or time.monotonic() - started > limit_s:
            samples.append((number, _resident_mb()))
            if samples[-1][1] - samples[0][1] > STOP_GROWN_MB or time.monotonic() - started > limit_s:
                break
        task, completion = pairs[number % len(pairs)]
        if number % 2:
            completion = filled(completion, number, task.metadata)
        told = tell(verifier, (task, completion))
        if told[0] == "raised" and told[1].startswith("MemoryError"):
            return {"samples": samples, "calls": number + 1, "out_of_memory": True}
    else:
        samples.append((calls, _resident_mb()))
    return {"samples": samples, "calls": samples[-1][0], "out_of_memory": False}


def filled(completion: str, number: int, metadata: Any) -> str:
    """The completion behind a page of words that no other call has; a bare program gets it as a comment behind."""
    words = f"Attempt {number}. " + FILLER * (FILLER_CHARACTERS // len(FILLER))
    if "```" not in completion and isinstance(metadata, dict) and "kind" in metadata:
        return f"{completion}\n# {words}\n"
    return f"{words}\n\n{completion}"


def cap_memory(memory_mb: int) -> None:
    """Allow so much above what is mapped now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _resident_mb() -> float:
    return sum(resident_mb(pid) for pid in (os.getpid(), *below(os.getpid())))


MODES = {"identify": identify, "verdicts": verdicts, "threads": threads, "fork": fork, "memory": memory}
