"""Isolated executions a second: the sandbox against a process for each program, as peers do it, in one run.

    python tests/benchmarks/bench_sandbox.py [--seconds 5] [--zygotes 2]

Every execution is one program judged by three calls, judge and candidate apart. Each line is a JSON object with the
figure, the number measured, and the layers in force. Pin it to two cores (`taskset -c 0,1`) for the figures in the
documentation.

    sandbox                       all layers that this machine gives
    sandbox_without_namespaces    limits, seccomp, Landlock (and a user of its own)
    functions_through_pool        function tasks through `VerifierPool` as RL judges them: completions to verdicts, the
                                  pool's own thread and workers on the same cores, SAMPLES completions of each task
    cold_limits                   a fresh interpreter for each program, resource limits alone
    cold_unshare                  the same behind `unshare` with a user, pid and network namespace
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs.settings.common import TaskSource
from verifiers.pool import VerifierPool
from verifiers.sandbox.host import Settings
from verifiers.sandbox.judging import Judge
from verifiers.sandbox.problem import read
from verifiers.tasks.functions import draw

PROGRAM = "def f(items):\n    return sorted(set(items))\n"
PROBLEM = read(
    {
        "kind": "calls",
        "entry_point": "f",
        "calls": [
            {"args": [[3, 1, 3]], "expected": [1, 3]},
            {"args": [[]], "expected": []},
            {"args": [[2]], "expected": [2]},
        ],
    }
)
NUM_TASKS, SAMPLES = 25, 8
COLD = (
    "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (2, 3))\n"
    "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
    + PROGRAM
    + "assert (f([3, 1, 3]), f([]), f([2])) == ([1, 3], [], [2])\n"
)


def per_second(workers: list[Callable[[], None]], seconds: float) -> tuple[float, int]:
    """Executions a second of all workers together, each in a thread, and how many there were."""
    counts = [0] * len(workers)
    for worker in workers:
        worker()
    stop = time.monotonic() + seconds

    def run(index: int) -> None:
        while time.monotonic() < stop:
            workers[index]()
            counts[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(workers))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started), sum(counts)


def sandboxed(without: set[str], zygotes: int, seconds: float) -> dict[str, object]:
    """The sandbox with all layers but those."""
    judges = [Judge(Settings(without=frozenset(without))) for _ in range(zygotes)]

    def worker(judge: Judge) -> Callable[[], None]:
        def execute() -> None:
            assert judge.judge(PROBLEM, PROGRAM).is_correct

        return execute

    try:
        rate, count = per_second([worker(judge) for judge in judges], seconds)
        return {"per_second": round(rate, 1), "n": count, "layers": ["limits", *sorted(judges[0].programs.in_force)]}
    finally:
        for judge in judges:
            judge.close()


def cold(prefix: list[str], workers: int, seconds: float) -> dict[str, object]:
    """A fresh interpreter for each program, which holds its own tests, as peers run them."""
    command = [*prefix, sys.executable, "-I", "-S", "-c", COLD]

    def execute() -> None:
        subprocess.run(command, check=True, env={})

    rate, count = per_second([execute] * workers, seconds)
    return {"per_second": round(rate, 1), "n": count, "layers": ["limits", *(["namespaces"] if prefix else [])]}


def through_pool(workers: int, seconds: float) -> dict[str, object]:
    """Verdicts of `code` on right answers to function tasks, all layers."""
    params = {"min_steps": 2, "max_steps": 3}
    tasks = draw(TaskSource(name="functions/lists", split="train", count=NUM_TASKS, params=params))
    pairs = [(task, f"```python\n{task.answer}\n```") for task in tasks for _ in range(SAMPLES)]
    with VerifierPool(workers) as pool:
        pool.judge(pairs)
        count, started = 0, time.monotonic()
        while time.monotonic() < started + seconds:
            assert all(verdict.score == 1.0 for verdict in pool.judge(pairs))
            count += len(pairs)
        rate = count / (time.monotonic() - started)
    with Judge() as judge:
        judge.programs.start()
        return {"per_second": round(rate, 1), "n": count, "layers": ["limits", *sorted(judge.programs.in_force)]}


def figures(zygotes: int, seconds: float) -> Iterator[tuple[str, dict[str, object]]]:
    """All lines, in order."""
    yield "sandbox", sandboxed(set(), zygotes, seconds)
    yield "sandbox_without_namespaces", sandboxed({"namespaces"}, zygotes, seconds)
    yield "functions_through_pool", through_pool(zygotes, seconds)
    yield "cold_limits", cold([], zygotes, seconds)
    if shutil.which("unshare"):
        yield "cold_unshare", cold(["unshare", "-Urpn", "--fork"], zygotes, seconds)


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each figure")
    parser.add_argument("--zygotes", type=int, default=2, help="programs at a time")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    for name, figure in figures(given.zygotes, given.seconds):
        print(json.dumps({"what": name, **figure, "at_once": given.zygotes, "load": round(load, 1)}), flush=True)


if __name__ == "__main__":
    main()
