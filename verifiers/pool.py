"""Judging in killable worker processes: hostile or endless work in a verifier cannot stop, starve or pay.

    with VerifierPool(num_workers=2, deadline_s=5.0) as pool:
        verdicts = pool.judge([(task, completion), ...])       # in order
        future = pool.submit(task, completion)                  # while other work goes on

A completion whose judgement takes longer than `deadline_s` or more memory than `memory_mb` gets its worker killed
(SIGKILL, with all it started in its session) and is judged once more in a fresh worker; if that fails again it is
INCORRECT with the reason `over_budget`. A worker that dies without having exceeded a limit, or a verifier that raises,
is our own fault: once more, then NO_VERDICT with the reason. The clock stops while a worker imports a verifier.

Each worker is a fresh interpreter (no fork: nothing of torch or CUDA is inherited), served by one thread here, and
dies with this process even after `kill -9`. Easy problems travel in chunks; each still has its own deadline.

What this does not do: it is no sandbox. Workers have the user's rights, files and network, and run trusted verifiers
on untrusted text, not untrusted code. Processes that a verifier starts in a session of their own outlive a kill.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from configs.errors import UserError
from verifiers import registry
from verifiers.api import OVER_BUDGET, Outcome, Task, Verdict, incorrect, no_verdict

MAX_CHUNK = 64
"""Problems sent to a worker at once."""
LOAD_TIMEOUT_S = 120.0
"""Time for a worker to start, import a verifier, and take in a chunk."""
MAX_FAILED_STARTS = 3
"""Workers in a row that die before they have judged anything, after which the pool gives up."""
NEAR_LIMIT = 0.8
"""A worker that died with this share of its memory in use died of it."""
SAMPLE_S = 0.05
"""Time between looks at the memory of a worker that has not answered yet. (Its resource usage after death would also
count the memory of this process, from before the worker's interpreter was loaded.)"""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_BOOT = ("import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
         "from verifiers.worker import main; main(*map(int, sys.argv[2:]))")


@dataclass
class _Job:
    """One problem on its way to a verdict."""

    request: str
    future: Future[Verdict] = field(default_factory=Future)


class _Fault(Exception):
    """A worker came to its end, or must."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind  # over (a limit was exceeded) | died (by itself) | stopped (the pool closes)
        self.detail = detail


class VerifierPool:
    """Judges completions in `num_workers` processes. Thread-safe; use it as a context manager or call `close()`.

    Args:
        num_workers: Processes; each judges one completion at a time.
        deadline_s: Wall-clock seconds for one judgement.
        memory_mb: Megabytes that judging may take above what the imported verifier takes at rest.
        verifier: Registry name of the verifier for all tasks; None takes each task's own.
    """

    def __init__(self, num_workers: int = 2, deadline_s: float = 5.0, memory_mb: int = 2048,
                 verifier: str | None = None) -> None:
        for name, value in (("num_workers", num_workers), ("deadline_s", deadline_s), ("memory_mb", memory_mb)):
            if not value > 0:
                raise UserError(f"{name}: {value!r}; allowed: more than 0")
        self.num_workers, self.deadline_s, self.memory_mb, self.verifier = num_workers, deadline_s, memory_mb, verifier
        self._known: set[str] = set()
        if verifier is not None:
            self._check_name(verifier)
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._workers = [_Worker(self) for _ in range(num_workers)]

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def submit(self, task: Task, completion: str) -> Future[Verdict]:
        """Start judging; the future gives the verdict. Raises UserError for an unknown verifier."""
        job = self._job(task, completion)
        self._put([job])
        return job.future

    def judge(self, pairs: Sequence[tuple[Task, str]]) -> list[Verdict]:
        """Verdicts of all pairs, in order."""
        jobs = [self._job(task, completion) for task, completion in pairs]
        self._put(jobs)
        try:
            return [job.future.result() for job in jobs]
        except BaseException:  # an interrupt must not leave the rest to be judged
            for job in jobs:
                job.future.cancel()
            raise

    def close(self) -> None:
        """Kill the workers and cancel what has no verdict yet. Safe to call twice."""
        with self._wake:
            self._closed = True
            jobs, self._jobs = list(self._jobs), deque()
            self._wake.notify_all()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for job in jobs:
            job.future.cancel()

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def _job(self, task: Task, completion: str) -> _Job:
        name = self.verifier or task.verifier
        self._check_name(name)
        try:
            return _Job(json.dumps({"verifier": name, "task": _as_dict(task), "completion": completion}))
        except (TypeError, ValueError) as error:
            raise UserError(f"task {task.id!r}: metadata: not JSON ({error}); "
                            "allowed: texts, numbers, lists, objects") from error

    def _check_name(self, name: str) -> None:
        if name not in self._known:
            registry.check_name(name)
            self._known.add(name)

    def _put(self, jobs: list[_Job]) -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("the pool is closed; make a new VerifierPool")
            self._jobs.extend(jobs)
            if not self._threads:
                self._threads = [threading.Thread(target=worker.run, daemon=True, name="verifier-pool")
                                 for worker in self._workers]
                for thread in self._threads:
                    thread.start()
            self._wake.notify_all()

    def take(self) -> list[_Job]:
        """The next chunk, when there is one; empty when the pool closes. Called by the workers' threads."""
        with self._wake:
            while not self._jobs and not self._closed:
                self._wake.wait()
            if self._closed:
                return []
            num = max(1, min(MAX_CHUNK, len(self._jobs) // (2 * self.num_workers)))
            return [self._jobs.popleft() for _ in range(min(num, len(self._jobs)))]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed


class _Worker:
    """One process and the thread that serves it."""

    def __init__(self, pool: VerifierPool) -> None:
        self.pool = pool
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()  # over starting and killing
        self.buffer = b""
        self.rest_mb = self.peak_mb = 0.0  # resident memory after loading, and the most seen since
        self.failed_starts = 0

    def run(self) -> None:
        """Serve chunks until the pool closes. Any error of ours ends up in the futures, not in a silent thread."""
        while jobs := self.pool.take():
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            try:
                while jobs:
                    jobs = self._serve(jobs)
            except _Fault:
                for job in jobs:
                    _settle_closed(job)
            except BaseException as error:
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
        self.stop()

    def kill(self) -> None:
        """Kill the process with everything in its session. From any thread: the pipes stay open for our own."""
        with self.lock:
            if self.process is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill the process, wait for it, and close its pipes. Only from the thread that serves it."""
        self.kill()
        with self.lock:
            process, self.process = self.process, None
        self.buffer = b""
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        process.wait()

    def _serve(self, jobs: list[_Job]) -> list[_Job]:
        """Judge a chunk. After a fault, settle the job at fault by a second attempt and return those left over."""
        done = 0
        raised: list[_Job] = []
        try:
            self._send(jobs)
            while done < len(jobs):
                reply = self._receive()
                if "over" in reply:
                    raise _Fault("over", reply["over"])
                if "error" in reply:
                    raised.append(jobs[done])  # the worker is whole: the rest of the chunk goes on
                else:
                    jobs[done].future.set_result(_verdict(reply))
                done += 1
        except _Fault as fault:
            if fault.kind == "stopped" or self.pool.closed:
                for job in [*raised, *jobs[done:]]:
                    _settle_closed(job)
                return []
            self._end(fault)
            jobs[done].future.set_result(self._second_attempt(jobs[done]))
            return [*raised, *jobs[done + 1:]]
        for job in raised:
            job.future.set_result(self._second_attempt(job))
        return []

    def _second_attempt(self, job: _Job) -> Verdict:
        try:
            self._send([job])
            reply = self._receive()
            if "over" in reply:
                raise _Fault("over", reply["over"])
        except _Fault as fault:
            if fault.kind == "stopped" or self.pool.closed:
                return no_verdict("pool_closed")
            if self._end(fault) == "over":
                return incorrect(OVER_BUDGET)
            return no_verdict(f"verifier_fault: {fault.detail}")
        return no_verdict(f"verifier_fault: {reply['error']}") if "error" in reply else _verdict(reply)

    def _end(self, fault: _Fault) -> str:
        """Kill the worker after a fault, so that what follows gets a fresh one; the fault's kind, memory considered."""
        self.stop()
        if fault.kind == "died" and self.peak_mb - self.rest_mb >= NEAR_LIMIT * self.pool.memory_mb:
            return "over"
        return fault.kind

    def _send(self, jobs: list[_Job]) -> None:
        if self.process is None:
            self._start()
        data = memoryview(f"[{','.join(job.request for job in jobs)}]\n".encode())
        process, limit = self.process, time.monotonic() + LOAD_TIMEOUT_S
        if process is None or process.stdin is None:
            raise _Fault("stopped")
        try:
            fd = process.stdin.fileno()
            while data:
                if not _ready(fd, select.POLLOUT, limit - time.monotonic()):
                    raise _Fault("died", "the worker takes nothing in")
                data = data[os.write(fd, data):]
        except (OSError, ValueError) as error:
            raise _Fault("died", f"the worker ended: {error}") from error

    def _receive(self) -> dict[str, Any]:
        """The reply to the next problem. Raises _Fault when the deadline passes or the worker ends."""
        limit = time.monotonic() + (self.pool.deadline_s if self.failed_starts == 0 else LOAD_TIMEOUT_S)
        while True:
            reply = self._line(limit)
            if "loading" in reply:
                limit = time.monotonic() + LOAD_TIMEOUT_S
            elif "loaded" in reply:
                self.failed_starts = 0
                self.rest_mb = self.peak_mb = self._resident_mb()
                limit = time.monotonic() + self.pool.deadline_s
            else:
                self.failed_starts = 0
                return reply

    def _line(self, limit: float) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            process = self.process
            if process is None or process.stdout is None:
                raise _Fault("stopped")
            try:
                fd = process.stdout.fileno()
                while not _ready(fd, select.POLLIN, min(SAMPLE_S, limit - time.monotonic())):
                    self.peak_mb = max(self.peak_mb, self._resident_mb())
                    if time.monotonic() >= limit:
                        raise _Fault("over", "deadline")
                data = os.read(fd, 1 << 16)
            except (OSError, ValueError) as error:
                raise _Fault("stopped" if self.pool.closed else "died", f"the worker's pipe broke: {error}") from error
            if not data:
                raise _Fault("stopped" if self.pool.closed else "died", "the worker ended by itself")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _resident_mb(self) -> float:
        try:
            with open(f"/proc/{self.process.pid if self.process else 0}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * resource.getpagesize() / 2**20
        except (OSError, IndexError):  # it has just ended
            return 0.0

    def _start(self) -> None:
        self.failed_starts += 1
        self.rest_mb = self.peak_mb = 0.0
        if self.failed_starts > MAX_FAILED_STARTS:
            raise RuntimeError(f"{MAX_FAILED_STARTS} verifier workers in a row ended before their first verdict; "
                               "their stderr says why")
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1"), "CUDA_VISIBLE_DEVICES": ""}
        arguments = [json.dumps(sys.path), str(os.getpid()), str(self.pool.memory_mb)]
        with self.lock:
            if self.pool.closed:
                raise _Fault("stopped")
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                bufsize=0, env=environment, start_new_session=True)
            assert self.process.stdin is not None
            os.set_blocking(self.process.stdin.fileno(), False)


def _ready(fd: int, event: int, timeout_s: float) -> bool:
    """Whether the pipe is ready within the time; a pipe that is ready counts even when the time is over."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0, timeout_s) * 1000))


def _verdict(reply: dict[str, Any]) -> Verdict:
    outcome, score, extracted, reason, seconds = reply["verdict"]
    return Verdict(Outcome(outcome), score, extracted, reason, seconds)


def _settle_closed(job: _Job) -> None:
    if not job.future.done():
        job.future.set_result(no_verdict("pool_closed"))


def _as_dict(task: Task) -> dict[str, Any]:
    return {**vars(task), "metadata": dict(task.metadata)}
