"""The code verifier: runs the program that a completion holds against the task's tests, in the sandbox.

`task.metadata` holds the tests (`verifiers.sandbox.problem` says exactly what), `verifiers.sandbox.program` finds the
program. The program's process holds no expected value, no test and no verdict (`verifiers.sandbox`).

    task = Task("1", "Write f.", "", "code", {"kind": "calls", "entry_point": "f",
                                              "calls": [{"args": [3], "expected": 9}]})

The verdict is correct when every test ran and passed. Otherwise it is incorrect with the first thing that was amiss:
`wrong_result`, `wrong_output`, `assertion_failed`, `assertions_not_run`, `raised_NAME` (a built-in exception, or
`raised_other`), `raised_nothing`, `result_not_plain_data`, `no_program`, `no_entry_point`, `exited`, `crashed`,
`exit_status_not_0`, `broken_protocol`, `over_budget`, `broke_the_sandbox`. With `"reward": "fraction"` in the metadata,
its score is the share of the tests that passed. Tests that cannot be read or run are `gold_unreadable`, and a machine
that lacks a layer of the minimum `sandbox_unavailable`: no verdict, with the field or the layer and its remedy.

Run under `verifiers.pool`, a deadline of twice `Limits.wall_s` lets this verifier tell by itself what is over budget.
The environment variable DERIVE_SANDBOX_MINIMUM names the layers that must be in force (`landlock,seccomp` unless set).

What this does not do: it installs nothing, and programs see the standard library alone.
"""

from __future__ import annotations

import atexit
import functools
import marshal
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from configs.errors import UserError
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.sandbox.host import MINIMUM_LAYERS, REMEDIES, SandboxFault, SandboxUnavailable, Settings
from verifiers.sandbox.judging import Judge
from verifiers.sandbox.problem import GoldError, Problem, read
from verifiers.sandbox.program import extract

MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
MAX_REMEMBERED = 100_000
"""Bytes of metadata beyond which a task's tests are read anew for each completion."""
SHOWN = 500
"""Characters of the program that are kept in a verdict."""
MINIMUM_VARIABLE = "DERIVE_SANDBOX_MINIMUM"

_own = threading.local()


class CodeVerifier:
    """Correct if the completion's program passes each and every test of the task."""

    name = "code"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion, in this thread's own pair of sandboxes."""
        return judge_with(_own_judge(), task, completion)

    def warm_up(self) -> None:
        """Start the sandbox. Raises SandboxUnavailable where a layer of the minimum is not in force."""
        _own_judge().programs.start()


def judge_many(
    pairs: Sequence[tuple[Task, str]], num_zygotes: int = 2, settings: Settings | None = None
) -> list[Verdict]:
    """Verdicts of all pairs, in order, judged in `num_zygotes` pairs of sandboxes by as many threads of this one."""
    chosen = settings or settings_from_environment()
    idle: queue.SimpleQueue[Judge] = queue.SimpleQueue()
    judges = [Judge(chosen) for _ in range(num_zygotes)]
    for judge in judges:
        idle.put(judge)

    def one(pair: tuple[Task, str]) -> Verdict:
        judge = idle.get()
        try:
            return judge_with(judge, *pair)
        finally:
            idle.put(judge)

    try:
        with ThreadPoolExecutor(num_zygotes) as executor:
            return list(executor.map(one, pairs))
    finally:
        for judge in judges:
            judge.close()


def judge_with(judge: Judge, task: Task, completion: str) -> Verdict:
    """The verdict on one completion, by the given sandboxes."""
    try:
        problem = _problem(task)
    except GoldError as error:
        return no_verdict(f"gold_unreadable: {error}")
    if len(completion) > MAX_COMPLETION:
        return incorrect(OVER_BUDGET)
    program = extract(completion, problem.entry_point, problem.prompt)
    shown = program[:SHOWN]
    try:
        result = judge.judge(problem, program)
    except GoldError as error:
        return no_verdict(f"gold_unreadable: {error}")
    except SandboxUnavailable as error:
        return no_verdict(f"sandbox_unavailable: {error}")
    except SandboxFault as error:
        return no_verdict(f"sandbox_fault: {error}")
    if result.is_correct:
        return correct(shown, result.reason)
    return incorrect(result.reason, shown, _partial(problem, result.fraction))


def settings_from_environment() -> Settings:
    """Settings with the minimum that DERIVE_SANDBOX_MINIMUM asks for. Raises UserError for an unknown layer."""
    text = os.environ.get(MINIMUM_VARIABLE)
    if text is None:
        return Settings()
    layers = frozenset(filter(None, (name.strip() for name in text.split(","))))
    if unknown := layers - set(REMEDIES):
        raise UserError(
            f"{MINIMUM_VARIABLE}: {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(REMEDIES))}, "
            f"separated by commas; unset it for {','.join(sorted(MINIMUM_LAYERS))}"
        )
    return Settings(minimum=layers)


def _problem(task: Task) -> Problem:
    """The task's tests. Raises GoldError. Remembered, since the samples of a task come one after the other."""
    try:
        packed = marshal.dumps(task.metadata, 2)  # type: ignore[arg-type]  # version 2: like values, like bytes
    except ValueError:  # some mapping that is no dict
        return read(task.metadata)
    return _remembered(packed) if len(packed) <= MAX_REMEMBERED else read(task.metadata)


@functools.lru_cache(maxsize=64)
def _remembered(packed: bytes) -> Problem:
    return read(marshal.loads(packed))


def _partial(problem: Problem, fraction: float) -> float:
    return fraction if problem.fraction and fraction < 1.0 else 0.0


def _own_judge() -> Judge:
    """This thread's sandboxes, in this very process: a fork does not inherit them."""
    judge: Judge | None = getattr(_own, "judge", None)
    if judge is None or _own.pid != os.getpid():
        judge = Judge(settings_from_environment())
        _own.judge, _own.pid = judge, os.getpid()
        atexit.register(judge.close)
    return judge
